"""README.md names exactly the metrics and rules that a running server has."""
import re
import unittest

import gradwatch_testing as testing

testing.generate_stubs()

import grpc  # noqa: E402
from gradwatch.v1 import alert_service_pb2, alert_service_pb2_grpc  # noqa: E402


def named_in_section(title):
    """Every `name` in the first column of the tables below the README's heading `title`."""
    text = (testing.SOURCE / "README.md").read_text()
    section = re.search(rf"^### {title}\n(.*?)(?=^#)", text, re.M | re.S).group(1)
    return {name for row in re.findall(r"^\| (`[^|]*)\|", section, re.M)
            for name in re.findall(r"`([^`]+)`", row)}


class DocumentationTest(unittest.TestCase):
    def setUp(self):
        context = testing.running_server()
        self.server = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def test_readme_lists_every_metric(self):
        testing.cli(self.server, "submit", "--file",
                    str(testing.SOURCE / "deploy/examples/d1-boom.yaml"), "--wait", expect=1)
        testing.cli(self.server, "submit", "--time-steps", "10", "--steps", "5", "--compare-steps",
                    "true", "--noise-every", "1", "--wait")

        exported = set(re.findall(r"^# TYPE (\S+)", self.server.get("/metrics")[1], re.M))

        self.assertEqual(named_in_section("Metrics"), exported)

    def test_readme_lists_every_rule(self):
        with grpc.insecure_channel(self.server.grpc) as channel:
            rules = alert_service_pb2_grpc.AlertServiceStub(channel).ListRules(
                alert_service_pb2.ListRulesRequest(), timeout=testing.PATIENCE_SECONDS).rules

        self.assertEqual(named_in_section("Alert rules of a job"), {rule.name for rule in rules})

    def test_readme_uses_only_flags_that_commands_have(self):
        text = (testing.SOURCE / "README.md").read_text()
        uses = {((command, *self.subcommand(command, rest)), flag)
                for command, rest in re.findall(r"\bgradwatch ([a-z]+)([^\n`&|;#]*)", text)
                for flag in re.findall(r"(?<![\w-])--[a-z-]+", rest) if flag != "--help"}

        self.assertGreater(len(uses), 8)
        for command, flag in sorted(uses):
            with self.subTest(f"gradwatch {' '.join(command)} {flag}"):
                self.assertIn(flag, testing.cli(self.server, *command, "--help").stdout)

    def subcommand(self, command, rest):
        """The subcommand that `rest` begins with, in a list; empty where there is none."""
        word = re.match(r" ([a-z]+)\b", rest)
        text = testing.cli(self.server, command, "--help").stdout
        listed = re.search(r"^Commands:\n(.*?)^$", text, re.M | re.S)
        names = re.findall(r"^  ([a-z]+)\b", listed.group(1), re.M) if listed else []
        return [word.group(1)] if word and word.group(1) in names else []


if __name__ == "__main__":
    unittest.main(verbosity=2)
