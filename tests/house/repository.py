"""Where the project lies, and which files belong to it."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files():
    """Paths of the project's files, relative to ROOT: what git would commit.

    Without git (an unpacked archive) everything but build folders.
    """
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z",
             "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True).stdout.decode()
        names = [name for name in listing.split("\0") if name]
    else:
        names = []
        for folder, folders, leaves in os.walk(ROOT):
            folders[:] = [f for f in folders if f not in ("build", ".git", "__pycache__")]
            names += [os.path.relpath(os.path.join(folder, leaf), ROOT) for leaf in leaves]
    return sorted(pathlib.Path(name) for name in set(names) if (ROOT / name).is_file())


def read(path):
    """The text of a file of the project; empty when it is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
