#!/usr/bin/python3
"""deploy/demo leaves nothing behind: its steps in order, its exit codes, and Ctrl-C at every moment, with
stand-ins for what it builds and starts (the real demo takes minutes)."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import uuid

import repository

STAND_IN = r"""#!/bin/bash
# cmake, gradwatchd or gradwatch, whatever it is called: says how it was called; hangs where told to.
name=$(basename "$0")
echo "$name $*" >>"$STAND_IN_LOG"
hang() { touch "$STAND_IN_HANGS"; sleep 1000 | sleep 1000; }
[[ "$name $*" == $STAND_IN_HANG_AT ]] && hang
[[ "$name $*" == $STAND_IN_FAIL_AT ]] && exit 3
[[ "$name $*" == "gradwatch submit"*d1-boom* ]] && exit 1 # As the real one does.
case "$name" in
  cmake)
    if [[ $1 == --build ]]; then
      mkdir -p build/release/bin
      cp "$0" build/release/bin/gradwatchd
      cp "$0" build/release/bin/gradwatch
    fi
    ;;
  gradwatchd)
    for flag in "$@"; do
      [[ $flag == --port-file=* ]] &&
        echo '{"grpc":"127.0.0.1:1","http":"127.0.0.1:2"}' >"${flag#*=}"
    done
    sleep 1000
    ;;
esac
exit 0
"""
PATIENCE_SECONDS = 60


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"gave up waiting until {what}")
        time.sleep(0.01)


class DemoTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gradwatch_demo_"))
        self.addCleanup(shutil.rmtree, self.folder)
        shutil.copytree(repository.ROOT / "deploy", self.folder / "project" / "deploy")
        (self.folder / "bin").mkdir()
        (self.folder / "tmp").mkdir()
        fake = self.folder / "bin" / "cmake"
        fake.write_text(STAND_IN)
        fake.chmod(0o755)
        self.marker = f"gradwatch-demo-test-{uuid.uuid4()}"
        self.log = self.folder / "log"
        self.log.touch()

    def start(self, *arguments, hang_at="never", fail_at="never"):
        process = subprocess.Popen(
            [str(self.folder / "project" / "deploy" / "demo"), "--no-install", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                 "TMPDIR": str(self.folder / "tmp"), "MARKER": self.marker,
                 "STAND_IN_LOG": str(self.log), "STAND_IN_HANGS": str(self.folder / "hangs"),
                 "STAND_IN_HANG_AT": hang_at, "STAND_IN_FAIL_AT": fail_at})
        self.addCleanup(self.end_all)
        return process

    def alive(self):
        """Processes that the demo started, found by their environment."""
        found = []
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if self.marker.encode() in (place / "environ").read_bytes():
                    found.append(int(place.name))
            except OSError:  # It ended meanwhile.
                pass
        return found

    def end_all(self):
        for pid in self.alive():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def test_goes_through_all_steps_and_leaves_nothing(self):
        process = self.start()
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

        self.assertEqual(0, process.returncode, output)
        self.assertEqual([], self.alive())
        self.assertEqual([], list((self.folder / "tmp").iterdir()))
        calls = self.log.read_text()
        for step in ("cmake --build --preset release --target gradwatchd gradwatch",
                     "d2-temporal-order.yaml", "d2-temporal-order-clipped.yaml",
                     "gradwatch watch unclipped", "gradwatch watch clipped", "d1-boom.yaml",
                     "gradwatch alerts boom", "gradwatch compare unclipped clipped boom",
                     "gradwatch report unclipped --output", "gradwatch report clipped --output",
                     "--text /usr/share/common-licenses/GPL-3", "gradwatch generate writer"):
            self.assertIn(step, calls)
        self.assertIn("http://127.0.0.1:2/metrics", output)

    def test_takes_another_text(self):
        text = self.folder / "a text.txt"
        text.write_text("x")

        process = self.start(str(text))
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

        self.assertEqual(0, process.returncode, output)
        self.assertIn(f"--text {text}", self.log.read_text())

    def test_keep_leaves_the_server_and_says_how_to_stop_it(self):
        process = self.start("--keep")
        output = ""
        while "Stop it with: kill " not in output:
            line = process.stdout.readline()
            self.assertTrue(line, output)
            output += line
        process.wait(timeout=PATIENCE_SECONDS)
        process.stdout.close()

        self.assertEqual(0, process.returncode)
        server = int(output.rsplit("kill ", 1)[1])
        self.assertIn(server, self.alive())
        os.kill(server, signal.SIGTERM)

    def test_a_failed_build_ends_it(self):
        process = self.start(fail_at="cmake --build*")
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

        self.assertEqual(1, process.returncode)
        self.assertIn("the build failed", output)
        self.assertEqual([], self.alive())

    def test_a_command_that_fails_ends_it(self):
        for moment in ("gradwatch submit*d2-temporal-order.yaml*", "gradwatch submit*d1*",
                       "gradwatch alerts*", "gradwatch compare*", "gradwatch report*",
                       "gradwatch submit*--text*", "gradwatch generate*"):
            with self.subTest(moment):
                process = self.start(fail_at=moment)
                output, _ = process.communicate(timeout=PATIENCE_SECONDS)

                self.assertEqual(1, process.returncode, output)
                self.assertEqual([], self.alive())

    def test_a_server_that_does_not_start_ends_it(self):
        process = self.start(fail_at="gradwatchd*")
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

        self.assertEqual(1, process.returncode)
        self.assertIn("gradwatchd did not start", output)
        self.assertEqual([], self.alive())

    def test_bad_arguments_are_usage_errors(self):
        for arguments in (["--bogus"], [str(self.folder / "no such file")]):
            process = self.start(*arguments)
            output, _ = process.communicate(timeout=PATIENCE_SECONDS)
            self.assertEqual(2, process.returncode, output)

    def test_ctrl_c_at_any_moment_leaves_no_process(self):
        moments = ("cmake --preset*", "cmake --build*", "gradwatchd*", "gradwatch submit*d2*",
                   "gradwatch watch clipped*", "gradwatch submit*d1*", "gradwatch alerts*",
                   "gradwatch submit*--text*", "gradwatch generate*")
        for moment in moments:
            for whole_group in (False, True):  # A terminal signals the group, kill -INT only one.
                with self.subTest(moment, whole_group=whole_group):
                    (self.folder / "hangs").unlink(missing_ok=True)
                    process = self.start(hang_at=moment)
                    wait_until((self.folder / "hangs").exists, f"{moment} hangs")

                    if whole_group:
                        os.killpg(process.pid, signal.SIGINT)
                    else:
                        os.kill(process.pid, signal.SIGINT)
                    output, _ = process.communicate(timeout=PATIENCE_SECONDS)

                    self.assertEqual(130, process.returncode, output)
                    self.assertIn("interrupted", output)
                    self.assertEqual([], self.alive())
                    self.assertEqual([], list((self.folder / "tmp").iterdir()))


if __name__ == "__main__":
    unittest.main()
