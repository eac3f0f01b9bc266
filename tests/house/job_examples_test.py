#!/usr/bin/python3
"""Every job file below deploy/examples is a whole gradwatch.v1.Job, by the contract's own descriptors:
no unknown field, no unknown enum value, nothing that only the server may set."""

import atexit
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml
from google.protobuf import json_format

import repository

EXAMPLES = sorted((repository.ROOT / "deploy" / "examples").glob("*.yaml"))


def job_class():
    """gradwatch.v1.Job, generated from proto/ into a temporary folder."""
    folder = tempfile.mkdtemp(prefix="gradwatch_proto_")
    atexit.register(shutil.rmtree, folder)
    root = repository.ROOT / "proto"
    subprocess.run(
        ["protoc", f"-I{root}", f"--python_out={folder}"] +
        [str(p) for p in sorted(root.glob("gradwatch/v1/*.proto"))
         if not p.name.endswith("_service.proto")], check=True)
    sys.path.insert(0, folder)
    from gradwatch.v1 import job_pb2
    return job_pb2.Job


Job = job_class()


def parse(text):
    return json_format.ParseDict(yaml.safe_load(text), Job())


class JobExamplesTest(unittest.TestCase):
    def test_each_demonstration_has_a_file(self):
        kinds = {path.name.split("-")[0] for path in EXAMPLES}

        self.assertEqual({f"d{n}" for n in range(1, 9)}, kinds)

    def test_each_file_is_a_job(self):
        for path in EXAMPLES:
            with self.subTest(path.name):
                job = parse(path.read_text())

                self.assertTrue(job.HasField("seed"))
                self.assertTrue(job.HasField("clipping"))
                self.assertEqual(Job.STATE_UNSPECIFIED, job.state)
                self.assertIsNotNone(job.task.WhichOneof("kind"))

    def test_each_file_starts_with_two_lines_of_comment(self):
        for path in EXAMPLES:
            lines = path.read_text().splitlines()

            self.assertTrue(lines[0].startswith("# D"), path.name)
            self.assertTrue(lines[1].startswith("# "), path.name)
            self.assertFalse(lines[2].startswith("#"), path.name)

    def test_pairs_differ_in_clipping_alone(self):
        pairs = [(p, p.with_name(p.stem + "-clipped.yaml")) for p in EXAMPLES
                 if p.with_name(p.stem + "-clipped.yaml").exists()]

        self.assertGreaterEqual(len(pairs), 5)
        for plain, clipped in pairs:
            with self.subTest(plain.name):
                a, b = parse(plain.read_text()), parse(clipped.read_text())
                self.assertEqual(0, len(a.clipping.policies))
                self.assertEqual(1, len(b.clipping.policies))
                for job in (a, b):
                    for field in ("clipping", "display_name", "labels"):
                        job.ClearField(field)
                    if plain.name.startswith("d1"):  # It is over long before its limit.
                        job.training.ClearField("step_limit")
                self.assertEqual(a, b)

    def test_a_planted_unknown_field_is_caught(self):
        with self.assertRaises(json_format.ParseError):
            parse("model: {hidden_unit: 50}")


if __name__ == "__main__":
    unittest.main()
