#!/usr/bin/python3
"""Counts what tests/run left in its results folder and prints the closing line.

usage: summary.py FOLDER FAILED_STEPS

FOLDER holds NAME.xml (ctest's own results) and NAME.cases/ (one file for each GoogleTest program).
GoogleTest and unittest programs count case by case, anything else as one test. A failed step that no
failed test explains (a build that broke, say) counts as one failure. Exit code 0 when nothing failed."""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def count_cases(file):
    """(passed, failed names, skipped names) of one GoogleTest program's own results."""
    passed, failed, skipped = 0, [], []
    for case in ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.get("status") == "notrun":
            continue
        if case.find("failure") is not None:
            failed.append(name)
        elif case.get("result") == "skipped" or case.find("skipped") is not None:
            skipped.append(name)
        else:
            passed += 1
    return passed, failed, skipped


def count_unittest(output):
    """The same from what a Python unittest program printed; None when it is none. Names are those
    that it printed: of failures always, of skipped ones with verbosity 2."""
    ran = re.findall(r"^Ran (\d+) tests? in ", output, re.MULTILINE)
    if not ran:
        return None
    failed = re.findall(r"^(?:FAIL|ERROR): (\w+)", output, re.MULTILINE)
    skipped = re.findall(r"^(\w+) .*\.\.\. skipped ", output, re.MULTILINE)
    unnamed = sum(map(int, re.findall(r"\bskipped=(\d+)\)?$", output, re.MULTILINE))) - len(skipped)
    skipped += ["a test"] * max(0, unnamed)
    return max(0, int(ran[-1]) - len(set(failed)) - len(skipped)), failed, skipped


def count_cases_of(test, run):
    """(passed, failed, skipped) inside one test of ctest, or None when it has no cases that we know."""
    cases = run / f"{test.get('name')}.xml"
    if cases.exists():
        try:
            return count_cases(cases)
        except ElementTree.ParseError:  # The program died while it wrote.
            return None
    return count_unittest(test.findtext("system-out") or "")


def count_run(junit):
    """The same for one call of ctest, names prefixed with the run's."""
    passed, failed, skipped = 0, [], []
    for test in ElementTree.parse(junit).iter("testcase"):
        name, status = f"{junit.stem}: {test.get('name')}", test.get("status")
        if status in ("notrun", "disabled"):
            skipped.append(name)
            continue
        inner = count_cases_of(test, junit.with_suffix(".cases"))
        if inner is None:
            inner = (0, [], []) if status == "fail" else (1, [], [])
        passed += inner[0]
        failed += [f"{name}: {case}" for case in inner[1]]
        skipped += [f"{name}: {case}" for case in inner[2]]
        if status == "fail" and not inner[1]:
            failed.append(name)
    return passed, failed, skipped


def main(folder, failed_steps):
    passed, failed, skipped = 0, [], []
    failing_runs = 0
    for junit in sorted(pathlib.Path(folder).glob("*.xml")):
        counts = count_run(junit)
        passed += counts[0]
        failed += counts[1]
        skipped += counts[2]
        failing_runs += bool(counts[1])
    for name in skipped:
        print(f" skipped  {name}")
    for name in failed:
        print(f"  FAILED  {name}")
    failures = len(failed) + max(0, failed_steps - failing_runs)
    print(f"{passed} passed, {failures} failed" +
          (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failures or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
