"""The loader chooses the engine of the best CPU level: in the build folder, and once installed."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from gradwatch_testing import BUILD, GRADWATCHD, SOURCE

AT_LEVEL = SOURCE / "tests" / "at_level"


def cache_entry(name):
    """The value of a setting of the build folder."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    return re.search(rf"^{name}:[A-Z]+=(.*)$", cache, re.MULTILINE).group(1)


LEVELS = cache_entry("GRADWATCH_ENGINE_LEVELS").split(";")
APART = "x86-64-v4"  # Built, but kept where the loader does not look by itself.
CHOSEN = [level for level in LEVELS if level != APART]


def supported(level):
    loader = subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--help"], check=True,
                            capture_output=True, text=True)
    return f"{level} (supported" in loader.stdout


def engine_of(command, **environment):
    """The level that a --version names."""
    run = subprocess.run([str(word) for word in command] + ["--version"], check=True,
                         capture_output=True, text=True, env={**os.environ, **environment})
    return re.search(r"^engine (\S+)$", run.stdout, re.MULTILINE).group(1)


def install(prefix, *arguments):
    subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix, *arguments], check=True,
                   stdout=subprocess.DEVNULL)
    return pathlib.Path(prefix) / "bin" / "gradwatchd"


def best_of(levels):
    return [level for level in levels if supported(level)][-1]


class EngineLevelsTest(unittest.TestCase):
    def expect_masks_work(self, program):
        for level in CHOSEN:
            if supported(level):
                self.assertEqual(level, engine_of([AT_LEVEL, level, program]))
        self.assertEqual(best_of(CHOSEN), engine_of([program]))

    def test_the_build_folder_has_every_level(self):
        self.expect_masks_work(GRADWATCHD)

    @unittest.skipUnless(APART in LEVELS, f"{APART} is not built")
    def test_the_level_that_is_kept_apart_runs_on_request(self):
        self.assertEqual(best_of(CHOSEN + [APART]),
                         engine_of([GRADWATCHD], LD_LIBRARY_PATH=str(BUILD / "lib-v4")))

    def test_an_installed_server_has_every_level_but_that_one(self):
        with tempfile.TemporaryDirectory() as prefix:
            program = install(prefix)

            self.expect_masks_work(program)
            self.assertEqual(sorted(CHOSEN[1:]), sorted(
                folder.name for folder in program.parents[1].glob("lib/glibc-hwcaps/*")))

    @unittest.skipUnless(APART in LEVELS, f"{APART} is not built")
    def test_the_level_that_is_kept_apart_can_be_installed(self):
        with tempfile.TemporaryDirectory() as prefix:
            install(prefix)
            program = install(prefix, "--component", "avx512")

            self.assertEqual(best_of(CHOSEN + [APART]), engine_of([program]))

    def test_an_installed_engine_needs_nothing_of_the_build_folder(self):
        with tempfile.TemporaryDirectory() as prefix:
            program = install(prefix)

            loaded = subprocess.run(["ldd", program], check=True, capture_output=True, text=True)

            self.assertIn(prefix, loaded.stdout)
            self.assertNotIn(str(BUILD), loaded.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
