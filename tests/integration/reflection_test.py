"""Standard tools find the services by reflection and call them: buf curl."""
import json
import os
import subprocess
import unittest

import gradwatch_testing as testing

SERVICES = {"AlertService", "DatasetService", "JobService", "ModelService", "StatsService"}


def buf():
    """The program, or None where it cannot be had."""
    found = subprocess.run([str(testing.SOURCE / "tests/house/fetch-buf")], capture_output=True,
                           text=True, stdin=subprocess.DEVNULL)
    return found.stdout.strip() if found.returncode == 0 else None


BUF = buf()


@unittest.skipUnless(BUF, "buf cannot be had here")
class ReflectionTest(unittest.TestCase):
    def curl(self, server, *arguments):
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        return subprocess.run(
            [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment,
            timeout=testing.PATIENCE_SECONDS)

    def test_lists_every_service_and_method(self):
        with testing.running_server() as server:
            result = self.curl(server, "--list-methods", f"http://{server.grpc}")

        self.assertEqual(result.returncode, 0, result.stderr)
        listed = {line.split("/")[0] for line in result.stdout.split()}
        self.assertLessEqual({f"gradwatch.v1.{s}" for s in SERVICES}, listed)
        self.assertIn("grpc.health.v1.Health", listed)
        self.assertIn("gradwatch.v1.JobService/CreateJob", result.stdout)

    def test_calls_a_method_without_our_schema(self):
        with testing.running_server() as server:
            result = self.curl(server, "-d", "{}",
                               f"http://{server.grpc}/gradwatch.v1.AlertService/ListRules")

        self.assertEqual(result.returncode, 0, result.stderr)
        names = [rule["name"] for rule in json.loads(result.stdout)["rules"]]
        self.assertEqual(names[:2], ["NON_FINITE", "EXPLODING_ABS"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
