#!/usr/bin/python3
"""Counts what tests/run left in its results folder and prints the closing line.

usage: summary.py FOLDER FAILED_STEPS

FOLDER holds NAME.xml (ctest's own results) and NAME.cases/ (one file for each GoogleTest program). A
GoogleTest program counts case by case, anything else as one test. A failed step that no failed test
explains (a build that broke, say) counts as one failure. Exit code 0 when nothing failed."""

import pathlib
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


def count_run(junit):
    """The same for one call of ctest, names prefixed with the run's."""
    passed, failed, skipped = 0, [], []
    run = junit.stem
    for test in ElementTree.parse(junit).iter("testcase"):
        name, status = test.get("name"), test.get("status")
        cases = junit.with_suffix(".cases") / f"{name}.xml"
        inner = (0, [], [])
        if cases.exists():
            try:
                inner = count_cases(cases)
            except ElementTree.ParseError:  # The program died while it wrote.
                pass
        if status == "fail":
            failed += [f"{run}: {name}: {case}" for case in inner[1]] or [f"{run}: {name}"]
            passed += inner[0]
        elif status in ("notrun", "disabled"):
            skipped.append(f"{run}: {name}")
        else:
            passed += inner[0] if cases.exists() else 1
            skipped += [f"{run}: {name}: {case}" for case in inner[2]]
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
