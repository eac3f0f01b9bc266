#!/usr/bin/python3
"""What must not be committed is not: paths and proxies of somebody's machine, built files, big files.
And what is meant to be run can be: scripts parse and are executable."""

import os
import re
import subprocess
import unittest

import repository

# Written in pieces, so that this file does not find itself.
MACHINE = [
    re.compile(pattern) for pattern in (
        r"(?<![\w.~-])/wo" r"rk/\w",
        r"(?<![\w.~-])/ho" r"me/[a-z]\w*",
        r"(?<![\w.~-])/Us" r"ers/\w",
        r"(?<![\w.~-])/ro" r"ot/\w",
        r"(?i)\b(https?|ftp|all)_pro" r"xy\s*[=:]\s*[\"']?\w+://",
        r"(?i)Acquire::https?::Pro" r"xy[^;\n]*\w+://",
    )
]
BUILT = re.compile(r"\.(o|a|so|pyc|pb\.(h|cc)|deb|whl)$|(^|/)(build|node_modules|__pycache__)/")
BYTES_MAX = 4 << 20


def machine_traces(text):
    return [match.group(0) for pattern in MACHINE for match in pattern.finditer(text)]


def first_line(path):
    with open(repository.ROOT / path, "rb") as file:
        return file.readline(200)


class HygieneTest(unittest.TestCase):
    def test_no_file_names_a_machine(self):
        found = {str(path): machine_traces(repository.read(path)) for path in repository.files()}

        self.assertEqual({}, {path: traces for path, traces in found.items() if traces})

    def test_planted_traces_are_caught(self):
        for text in ("cd /wo" "rk/main", "see /ho" "me/ada/x", 'http_pro' 'xy="http://a:1"',
                     "HTTPS_PRO" "XY=http://a", 'Acquire::http::Pro' 'xy "http://a:1";'):
            self.assertEqual(1, len(machine_traces(text)), text)
        for text in ("https://example.org/wo" "rk/x", "unset http_pro" "xy", "/usr/ho" "me/"):
            self.assertEqual([], machine_traces(text), text)

    def test_nothing_built_and_nothing_big_is_committed(self):
        for path in repository.files():
            self.assertIsNone(BUILT.search(str(path)), path)
            self.assertLess((repository.ROOT / path).stat().st_size, BYTES_MAX, path)

    def test_what_starts_with_an_interpreter_is_executable(self):
        for path in repository.files():
            if first_line(path).startswith(b"#!"):
                self.assertTrue(os.access(repository.ROOT / path, os.X_OK), path)

    def test_shell_scripts_parse(self):
        scripts = [path for path in repository.files()
                   if re.match(rb"#!.*\b(ba)?sh\b", first_line(path))]

        self.assertGreater(len(scripts), 4)
        for path in scripts:
            done = subprocess.run(["bash", "-n", str(repository.ROOT / path)],
                                  capture_output=True, text=True)
            self.assertEqual((0, ""), (done.returncode, done.stderr), path)

    def test_scripts_that_install_know_their_packages(self):
        script = str(repository.ROOT / "deploy" / "install-packages")
        for what in ("build", "test", "all"):
            done = subprocess.run([script, what], capture_output=True, text=True,
                                  env={**os.environ, "GRADWATCH_DRY_RUN": "1"})
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertRegex(done.stdout, r"^packages: (all )?\d+ of")
        done = subprocess.run([script, "everything"], capture_output=True, text=True)
        self.assertEqual(1, done.returncode)
        self.assertIn("say build, test or all", done.stderr)

    def test_help_is_there(self):
        for script in ("deploy/demo", "deploy/install-packages", "deploy/fetch-monitoring",
                       "tests/run", "tests/bench/setup-peer", "tests/bench/versus_pytorch",
                       "tests/bench/instruction_counts"):
            done = subprocess.run([str(repository.ROOT / script), "--help"], capture_output=True,
                                  text=True, stdin=subprocess.DEVNULL)
            self.assertEqual(0, done.returncode, script)
            self.assertIn(script, done.stdout)


if __name__ == "__main__":
    unittest.main()
