#!/usr/bin/python3
"""What deploy/ ships for Prometheus, Alertmanager and Grafana is accepted by the programs it is for, names
only metrics that the server has, and its own tests pass (and would fail if a rule lost a branch)."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

import repository

DEPLOY = repository.ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
TOOLS = None  # Where promtool and amtool are.


def tool(name, *arguments):
    done = subprocess.run([f"{TOOLS}/{name}", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def rules():
    return [rule for group in yaml.safe_load((RULES / "gradwatch.yml").read_text())["groups"]
            for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def metric_names(expression):
    return set(re.findall(r"\b(?:gradwatch|grpc_server|process)_[a-z0-9_]+", expression))


def exported_metrics():
    """Names in the sources of server/metrics, with a histogram's three endings."""
    names = set()
    for path in (repository.ROOT / "server" / "metrics").glob("*.cc"):
        names |= set(re.findall(r'"((?:gradwatch|grpc_server|process)_[a-z0-9_]+)"', path.read_text()))
    return names | {name + ending for name in names if name.endswith("_seconds")
                    for ending in ("_bucket", "_count", "_sum")}


def anchors(text):
    """The anchors that a Markdown page's headings have on the usual sites."""
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


class PrometheusTest(unittest.TestCase):
    def test_configuration_and_rules_are_accepted(self):
        for arguments in (("check", "config", DEPLOY / "prometheus" / "prometheus.yml"),
                          ("check", "rules", RULES / "gradwatch.yml")):
            code, output = tool("promtool", *arguments)
            self.assertEqual(0, code, output)

    def test_the_rules_tests_pass(self):
        code, output = tool("promtool", "test", "rules", RULES / "gradwatch_test.yml")

        self.assertEqual(0, code, output)

    def test_a_rule_that_lost_a_branch_fails_its_test(self):
        text = (RULES / "gradwatch.yml").read_text()
        losses = {
            "born firing": re.sub(r"> 0\s+unless gradwatch_job_alerts_total offset 1m", "< 0", text),
            "rise": re.sub(r"(increase\([^)]*\)) > 0", r"\1 < 0", text),
            "firing now": re.sub(r"(gradwatch_job_alerts_firing\{[^}]*\}) > 0", r"\1 < 0", text),
        }
        for name, planted in losses.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.assertNotEqual(text, planted)
                (pathlib.Path(folder) / "gradwatch.yml").write_text(planted)
                (pathlib.Path(folder) / "t.yml").write_text((RULES / "gradwatch_test.yml").read_text())

                code, output = tool("promtool", "test", "rules", f"{folder}/t.yml")

                self.assertNotEqual(0, code, output)

    def test_every_alert_says_what_a_pager_needs(self):
        readme = anchors(repository.read("README.md"))
        for alert in alerts():
            with self.subTest(alert["alert"]):
                self.assertIn(alert["labels"]["severity"], ("critical", "warning", "info"))
                notes = alert["annotations"]
                self.assertEqual({"summary", "description", "runbook_url"}, set(notes))
                page, _, anchor = notes["runbook_url"].partition("#")
                self.assertEqual("README.md", page)
                self.assertIn(anchor, readme)

    def test_every_alert_has_a_test(self):
        tested = (RULES / "gradwatch_test.yml").read_text()
        for alert in alerts():
            self.assertIn(alert["alert"], tested)

    def test_recording_rules_are_named_level_metric_operation(self):
        for rule in rules():
            if "record" in rule:
                self.assertRegex(rule["record"], r"^\w+:gradwatch_\w+:\w+$")

    def test_rules_name_only_metrics_that_are_exported(self):
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        for rule in rules():
            self.assertEqual(set(), metric_names(rule["expr"]) - exported_metrics() - recorded)


class AlertmanagerTest(unittest.TestCase):
    def test_configuration_is_accepted(self):
        code, output = tool("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")

        self.assertEqual(0, code, output)

    def test_inhibitions_name_alerts_that_exist(self):
        names = {alert["alert"] for alert in alerts()}
        text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()

        self.assertEqual(set(), set(re.findall(r"Gradwatch\w+", text)) - names)


class GrafanaTest(unittest.TestCase):
    def setUp(self):
        self.dashboard = json.loads(DASHBOARD.read_text())
        self.panels = [p for p in self.dashboard["panels"] if p["type"] != "row"]
        self.expressions = [t["expr"] for p in self.panels for t in p["targets"]]

    def test_it_can_be_provisioned(self):
        self.assertIsNone(self.dashboard["id"])
        self.assertEqual("gradwatch", self.dashboard["uid"])
        self.assertNotIn("__inputs", self.dashboard)
        self.assertEqual(len({p["id"] for p in self.dashboard["panels"]}),
                         len(self.dashboard["panels"]))

    def test_everything_reads_the_chosen_data_source(self):
        variables = {v["name"]: v for v in self.dashboard["templating"]["list"]}
        self.assertEqual("datasource", variables["datasource"]["type"])
        self.assertEqual("prometheus", variables["datasource"]["query"])
        places = (self.panels + [t for p in self.panels for t in p["targets"]] +
                  [variables["instance"], variables["job_id"]] +
                  self.dashboard["annotations"]["list"])
        for place in places:
            self.assertEqual("${datasource}", place["datasource"]["uid"], place)

    def test_jobs_can_be_chosen_several_at_a_time(self):
        variable = next(v for v in self.dashboard["templating"]["list"] if v["name"] == "job_id")

        self.assertTrue(variable["multi"])
        self.assertTrue(variable["includeAll"])

    def test_rates_follow_the_scrape_interval(self):
        for expression in self.expressions:
            for window in re.findall(r"\[([^\]]+)\]", expression):
                self.assertEqual("$__rate_interval", window, expression)

    def test_panels_do_not_overlap_and_say_what_they_show(self):
        cells = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            own = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                   for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & own, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells |= own
        for panel in self.panels:
            self.assertTrue(panel["title"] and panel["description"])

    def test_every_expression_is_promql_over_exported_metrics(self):
        for expression in self.expressions:
            self.assertEqual(set(), metric_names(expression) - exported_metrics(), expression)
        plain = [e.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$job_id", ".*")
                 for e in self.expressions]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": [
                {"record": f"panel:x:{i}", "expr": e} for i, e in enumerate(plain)]}]}, file)
            file.flush()

            code, output = tool("promtool", "check", "rules", file.name)

        self.assertEqual(0, code, output)


if __name__ == "__main__":
    fetched = subprocess.run([str(DEPLOY / "fetch-monitoring")], stdout=subprocess.PIPE, text=True)
    if fetched.returncode == 77:
        print("SKIPPED: promtool and amtool could not be fetched")
        sys.exit(77)
    fetched.check_returncode()
    TOOLS = fetched.stdout.strip()
    unittest.main()
