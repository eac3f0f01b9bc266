#!/usr/bin/python3
"""The closing line of tests/run counts right, in particular what went wrong."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import summary

CTEST = """<testsuite><testcase name="a_test" status="run"/><testcase name="b_test" status="fail"/>
<testcase name="crash_test" status="fail"/><testcase name="script" status="run"/>
<testcase name="absent" status="notrun"/></testsuite>"""
A = """<testsuites><testsuite>
<testcase name="One" status="run" result="completed" classname="A"/>
<testcase name="Two" status="run" result="skipped" classname="A"><skipped/></testcase>
<testcase name="Off" status="notrun" result="suppressed" classname="A"/></testsuite></testsuites>"""
B = """<testsuites><testsuite>
<testcase name="One" status="run" result="completed" classname="B"/>
<testcase name="Two" status="run" result="completed" classname="B"><failure message="no"/></testcase>
</testsuite></testsuites>"""


def closing(files, failed_steps):
    """Exit code and last line for a results folder with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = summary.main(folder, failed_steps)
    return code, out.getvalue().splitlines()[-1]


class SummaryTest(unittest.TestCase):
    def test_counts_cases_and_programs(self):
        files = {"dev.xml": CTEST, "dev.cases/a_test.xml": A, "dev.cases/b_test.xml": B}

        # a: 1 passed, 1 skipped; b: 1 passed, 1 failed; the crash 1 failed; the script 1 passed.
        self.assertEqual((1, "3 passed, 2 failed, 2 skipped"), closing(files, 1))

    def test_counts_the_cases_of_python_programs(self):
        out = ("<system-out>test_x (a.B) ... ok\ntest_y (a.B) ... skipped 'no buf'\n{}\n"
               "Ran 3 tests in 0.1s\n\n{}\n</system-out>")
        good = out.format("test_z (a.B) ... ok", "OK (skipped=1)")
        bad = out.format("test_z (a.B) ... FAIL\nFAIL: test_z (a.B)",
                         "FAILED (failures=1, skipped=1)")

        for text, status, expected in ((good, "run", (0, "2 passed, 0 failed, 1 skipped")),
                                       (bad, "fail", (1, "1 passed, 1 failed, 1 skipped"))):
            run = f'<testsuite><testcase name="a" status="{status}">{text}</testcase></testsuite>'
            self.assertEqual(expected, closing({"dev.xml": run}, 0))

    def test_a_step_that_broke_without_a_test_is_a_failure(self):
        files = {"dev.xml": '<testsuite><testcase name="a" status="run"/></testsuite>'}

        self.assertEqual((0, "1 passed, 0 failed"), closing(files, 0))
        self.assertEqual((1, "1 passed, 1 failed"), closing(files, 1))

    def test_no_test_at_all_is_no_success(self):
        self.assertEqual((1, "0 passed, 0 failed"), closing({}, 0))


if __name__ == "__main__":
    unittest.main()
