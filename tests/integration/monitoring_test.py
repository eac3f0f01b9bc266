"""A real Prometheus scrapes a real server, loads the shipped rules and tells a real Alertmanager."""
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request

import gradwatch_testing as testing

TOOLS = pathlib.Path(os.environ.get("GRADWATCH_TOOLS_DIR",
                                    testing.SOURCE / "build" / "tools" / "monitoring"))


def tool(name):
    """The program in the tools folder, or on PATH; None where there is neither."""
    for folder in [TOOLS / "usr" / "bin", *map(pathlib.Path, os.environ["PATH"].split(":"))]:
        if (folder / name).exists():
            return str(folder / name)
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fetch(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as response:
            return response.read().decode()
    except OSError:
        return None


def in_its_own_usr_share(command):
    """The command with the unpacked package's /usr/share laid over the machine's, in a mount
    namespace of its own: Debian's Alertmanager insists on its templates there."""
    templates = TOOLS / "usr" / "share"
    if not templates.exists():
        return command
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    overlay = f"mount -t overlay overlay -o lowerdir={templates}:/usr/share /usr/share"
    return ["unshare", *user, "--mount", "sh", "-c", f'{overlay} && exec "$@"', "sh", *command]


@contextlib.contextmanager
def daemon(arguments, ready_url, log):
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        def ready():
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"{arguments} ended with {process.returncode}:\n{log.read()}")
            return fetch(ready_url)
        testing.wait_until(ready, f"{ready_url} answers")
        yield
    finally:
        process.terminate()
        process.wait(timeout=testing.PATIENCE_SECONDS)


@unittest.skipUnless(tool("prometheus") and tool("prometheus-alertmanager"),
                     "prometheus and prometheus-alertmanager are not here")
class MonitoringTest(unittest.TestCase):
    def test_prometheus_fires_for_a_job_that_lived_between_two_scrapes(self):
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            log = stack.enter_context(open(folder / "daemons.log", "w+"))
            server = stack.enter_context(testing.running_server("--running-jobs=4"))
            prometheus_port, alertmanager_port = free_port(), free_port()
            (folder / "alertmanager.yml").write_text(
                "route: {receiver: none, group_wait: 1s}\nreceivers: [{name: none}]\n")
            (folder / "prometheus.yml").write_text(json.dumps({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(testing.SOURCE / "deploy/prometheus/rules/gradwatch.yml")],
                "alerting": {"alertmanagers": [{"static_configs": [
                    {"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
                "scrape_configs": [{"job_name": "gradwatch", "static_configs": [
                    {"targets": [server.http]}]}]}))
            alertmanager = f"http://127.0.0.1:{alertmanager_port}"
            prometheus = f"http://127.0.0.1:{prometheus_port}"
            stack.enter_context(daemon(
                in_its_own_usr_share([
                    tool("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml",
                    f"--storage.path={folder}/am",
                    f"--web.listen-address=127.0.0.1:{alertmanager_port}",
                    "--cluster.listen-address="]), f"{alertmanager}/-/ready", log))
            stack.enter_context(daemon(
                [tool("prometheus"), f"--config.file={folder}/prometheus.yml",
                 f"--storage.tsdb.path={folder}/tsdb",
                 f"--web.listen-address=127.0.0.1:{prometheus_port}"],
                f"{prometheus}/-/ready", log))

            def query(expression):
                answer = fetch(f"{prometheus}/api/v1/query?" +
                               urllib.parse.urlencode({"query": expression}))
                return json.loads(answer)["data"]["result"] if answer else []

            testing.wait_until(lambda: query("up == 1"), "the first scrape")
            for i in range(19):
                testing.cli(server, "submit", "--task", "adding", "--time-steps", "10", "--hidden",
                            "8", "--steps", "20", "--eval-every", "0", "--id", f"calm-{i}")
            testing.cli(server, "submit", "--file",
                        str(testing.SOURCE / "deploy/examples/d1-boom.yaml"), "--id", "boom",
                        "--wait", expect=1)

            testing.wait_until(lambda: len(query("gradwatch_job_info")) == 20, "20 jobs are seen")
            firing = testing.wait_until(
                lambda: [r for r in query('ALERTS{alertstate="firing"}')
                         if r["metric"].get("job_id") == "boom"],
                "the explosion rule fires")
            received = testing.wait_until(
                lambda: [a for a in json.loads(fetch(f"{alertmanager}/api/v2/alerts") or "[]")
                         if a["labels"].get("job_id") == "boom"],
                "Alertmanager received it")

            self.assertTrue(any("xplod" in r["metric"]["alertname"] for r in firing),
                            [r["metric"] for r in firing])
            self.assertTrue(received[0]["annotations"]["summary"])
            self.assertFalse([r for r in query('ALERTS{alertstate="firing",job_id=~"calm.*"}')])


if __name__ == "__main__":
    unittest.main(verbosity=2)
