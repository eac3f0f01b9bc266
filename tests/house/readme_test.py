#!/usr/bin/python3
"""README.md is true: its reference is that of the contract, it names every metric, rule, example and
room, and what it links to is there."""

import re
import unittest

import monitoring_test
import readme_reference
import repository

README = repository.read("README.md")


class ReadmeTest(unittest.TestCase):
    def test_the_reference_of_job_fields_is_that_of_the_contract(self):
        self.assertEqual(README, readme_reference.replace(README),
                         "run tests/house/readme_reference.py --write")
        self.assertGreater(README.count("| `model."), 5)

    def test_every_metric_is_listed_and_no_other(self):
        table = README.split("### Metrics")[1].split("###")[0]
        listed = set(re.findall(r"`((?:gradwatch|grpc_server|process)_\w+)`", table))
        exported = {name for name in monitoring_test.exported_metrics()
                    if not re.search(r"_seconds_(bucket|count|sum)$", name)}

        self.assertEqual(exported, listed)

    def test_every_rule_is_listed_and_no_other(self):
        table = README.split("### Alert rules of a job")[1].split("\n## ")[0]
        rules = set(re.findall(r"RULE_ID_(\w+)", repository.read("proto/gradwatch/v1/alert.proto")))

        # CUSTOM stands for all rules that jobs bring along.
        self.assertEqual(rules - {"UNSPECIFIED", "CUSTOM"}, set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)))

    def test_every_example_is_listed(self):
        table = README.split("## The demonstrations")[1].split("\n## ")[0]
        listed = set()
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
            names = re.findall(r"`([^`]+)`", row)
            first = names[0]
            for name in names:
                base = re.sub(r"-(lstm|gru|rnn)$", "", first) if name in ("-gru", "-rnn") else first
                listed.add(base + name if name.startswith("-") else name)
        there = {p.stem for p in (repository.ROOT / "deploy/examples").glob("*.yaml")}

        self.assertEqual(there, listed)

    def test_every_room_is_in_the_house(self):
        table = README.split("## The house")[1].split("\n## ")[0]
        rows = dict(re.findall(r"^\| `([^|`]+/)`[^|]*\|[^|]*\| (?:`([^`]+)`)?", table, re.MULTILINE))
        rooms = {f"server/{p.parts[1]}/" for p in repository.files()
                 if p.parts[0] == "server" and len(p.parts) > 2}

        self.assertEqual(set(), rooms - set(rows))
        for folder, first in rows.items():
            self.assertTrue((repository.ROOT / folder / first).exists(), (folder, first))

    def test_links_and_scripts_are_there(self):
        for target in re.findall(r"\]\(([^)#]+)\)", README):
            self.assertTrue((repository.ROOT / target).exists(), target)
        for path in re.findall(r"\b((?:deploy|tests)/[\w./-]*\w)", README):
            self.assertTrue((repository.ROOT / path).exists(), path)


if __name__ == "__main__":
    unittest.main()
