#!/usr/bin/python3
"""Files below deploy/ parse, and what they point at is there."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

import repository

DEPLOY = repository.ROOT / "deploy"


class DeployFilesTest(unittest.TestCase):
    def test_yaml_and_json_parse(self):
        count = 0
        for path in repository.files():
            if path.suffix in (".yaml", ".yml"):
                self.assertIsNotNone(yaml.safe_load(repository.read(path)), path)
                count += 1
            elif path.suffix == ".json":
                json.loads(repository.read(path))
                count += 1
        self.assertGreater(count, 15)

    def test_compose_mounts_files_that_exist_and_opens_loopback_only(self):
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]

        self.assertEqual({"gradwatchd", "prometheus", "alertmanager", "grafana"}, set(services))
        for name, service in services.items():
            for volume in service.get("volumes", []):
                source, _, options = volume.split(":")
                self.assertTrue((DEPLOY / source).exists(), volume)
                self.assertEqual("ro", options)
            for port in service["ports"]:
                self.assertTrue(port.startswith("127.0.0.1:"), (name, port))
            for other in service.get("depends_on", []):
                self.assertIn(other, services)
        self.assertTrue((DEPLOY / services["gradwatchd"]["build"] / "Dockerfile").exists())

    def test_prometheus_and_grafana_point_at_compose_services(self):
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        targets = (config["scrape_configs"][0]["static_configs"][0]["targets"] +
                   config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"])
        source = yaml.safe_load(
            (DEPLOY / "grafana/provisioning/datasources/gradwatch.yml").read_text())
        targets.append(source["datasources"][0]["url"].removeprefix("http://"))

        for target in targets:
            self.assertIn(target.split(":")[0], services)

    def test_docker_compose_accepts_the_file(self):
        program = shutil.which("docker-compose")
        if not program:
            self.skipTest("docker-compose is not installed")
        done = subprocess.run([program, "-f", str(DEPLOY / "compose.yaml"), "config", "-q"],
                              capture_output=True, text=True)
        self.assertEqual(0, done.returncode, done.stderr)

    def test_systemd_accepts_the_unit(self):
        program = shutil.which("systemd-analyze")
        if not program:
            self.skipTest("systemd-analyze is not installed")
        # The unit names programs that are not installed here: put one that is in their place.
        text = (DEPLOY / "systemd" / "gradwatchd.service").read_text()
        text, count = re.subn(r"/usr/local/bin/gradwatchd", "/bin/true", text)
        self.assertEqual(1, count)
        with tempfile.TemporaryDirectory() as folder:
            unit = f"{folder}/gradwatchd.service"
            with open(unit, "w") as file:
                file.write(text)
            done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True)
        complaints = [line for line in (done.stdout + done.stderr).splitlines()
                      if "gradwatchd.service" in line]
        self.assertEqual([], complaints)

    def test_the_image_is_built_as_decided(self):
        text = repository.read("Dockerfile")

        self.assertIn("ARG BASE=debian:bookworm-slim", text)
        self.assertIn("FROM scratch AS runtime", text)
        self.assertIn("USER 65532:65532", text)
        self.assertIn('CMD ["/usr/bin/gradwatch", "health"]', text)
        self.assertIn("--insecure-listen", text)


if __name__ == "__main__":
    unittest.main()
