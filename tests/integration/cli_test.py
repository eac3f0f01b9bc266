"""Drives a real server with the real command line: every command, exit code and error sentence."""
import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

import gradwatch_testing as testing
from gradwatch_testing import cli, cli_json

SMALL = ["--task", "adding", "--time-steps", "10", "--cell", "gru", "--hidden", "8", "--batch", "4",
         "--eval-every", "0", "--seed", "7"]
ENDLESS = "1000000000"
NOBODY = "127.0.0.1:1"


class CliTest(unittest.TestCase):
    def setUp(self):
        context = testing.running_server("--running-jobs=2")
        self.server = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def submit(self, *flags, **kwargs):
        """Submits a small job; returns it as JSON."""
        return cli_json(self.server, "submit", *SMALL, *flags, **kwargs)

    def test_submits_watches_and_lists(self):
        cli(self.server, "submit", *SMALL, "--steps", "50", "--id", "one", "--wait")

        watched = cli(self.server, "watch", "one")
        listed = cli(self.server, "list")
        job = cli_json(self.server, "get", "one")

        self.assertIn("SUCCEEDED", watched.stdout)
        self.assertIn("one", listed.stdout)
        self.assertEqual(job["state"], "STATE_SUCCEEDED")
        self.assertEqual(int(job["step"]), 50)

    def test_advises_on_the_threshold_of_a_job_that_measures_others(self):
        self.submit("--steps", "300", "--id", "one", "--optimizer", "sgd", "--shadow-clip",
                    "0.001,1000,value:0.001", "--wait")

        text = cli(self.server, "advise", "one", "--threshold", "0.25").stdout
        advice = cli_json(self.server, "advise", "one")
        job = cli_json(self.server, "get", "one")
        steps = cli(self.server, "export", "one", "--format", "jsonl").stdout.splitlines()

        self.assertIn("clip the global L2 norm at", text)
        self.assertIn("norm 0.25", text)
        self.assertLess(max(len(line) for line in text.splitlines()), 80)
        self.assertEqual(int(advice["window"]["steps"]), 300)
        self.assertGreater(advice["recommended"]["max_norm"], 0)
        self.assertEqual([s.get("clip_rate", 0) for s in job["shadow_summaries"]][:2],
                         [1, 0])
        self.assertEqual(len(json.loads(steps[-1])["shadow_reports"]), 3)

    def test_sweeps_over_thresholds_and_seeds(self):
        task = [flag for flag in SMALL if flag not in ("--seed", "7")]
        arguments = ["sweep", *task, "--steps", "30", "--clips", "none,0.5", "--seeds", "0,1"]

        text = cli(self.server, *arguments, "--id", "first").stdout
        sweep = cli_json(self.server, *arguments, "--id", "second")
        listed = cli_json(self.server, "list", "--label", "sweep=second")["jobs"]

        self.assertIn("Best: clip", text)
        self.assertEqual(len(sweep["jobs"]), 4)
        self.assertIn(sweep["best"], ("none", "0.5"))
        self.assertEqual(len(listed), 4)
        self.assertEqual({job["state"] for job in listed}, {"STATE_SUCCEEDED"})

    def test_controls_a_running_job(self):
        self.submit("--steps", ENDLESS, "--id", "long")

        cli(self.server, "pause", "long")
        paused = cli_json(self.server, "get", "long")["state"]
        cli(self.server, "update", "long", "--clip", "0.5", "--author", "ann")
        before = int(cli_json(self.server, "get", "long")["step"])
        advanced = cli(self.server, "advance", "long", "-n", "3")
        after = int(cli_json(self.server, "get", "long")["step"])
        interventions = cli_json(self.server, "interventions", "long")["interventions"]
        clipping = cli_json(self.server, "get", "long")["clipping"]
        cli(self.server, "resume", "long")
        cli(self.server, "delete", "long", expect=5)
        cli(self.server, "cancel", "long")
        cancelled = cli(self.server, "watch", "long", expect=5)
        cli(self.server, "delete", "long")
        cli(self.server, "get", "long", expect=3)

        self.assertEqual(paused, "STATE_PAUSED")
        self.assertEqual(after, before + 3)
        self.assertIn("PAUSED: stands before step", advanced.stdout)
        self.assertEqual([(one["author"], one["changes"][0]["path"]) for one in interventions],
                         [("ann", "clipping")])
        self.assertEqual(clipping["policies"][0]["global_norm"]["max_norm"], 0.5)
        self.assertIn("CANCELLED", cancelled.stdout)

    def test_exports_every_step(self):
        cli(self.server, "submit", *SMALL, "--steps", "30", "--id", "out", "--wait")

        rows = list(csv.DictReader(io.StringIO(
            cli(self.server, "export", "out", "--format", "csv").stdout)))
        lines = cli(self.server, "export", "out", "--format", "jsonl").stdout.splitlines()

        self.assertEqual([int(row["step"]) for row in rows], list(range(30)))
        self.assertEqual([int(json.loads(line).get("step", 0)) for line in lines], list(range(30)))
        self.assertEqual(float(rows[3]["loss"]), json.loads(lines[3])["loss"])

    def test_trains_on_an_uploaded_text_and_writes(self):
        text = self.folder / "fox.txt"
        text.write_text("the quick brown fox jumps over the lazy dog\n" * 60)
        model = self.folder / "fox.safetensors"

        cli(self.server, "submit", "--text", str(text), "--time-steps", "20", "--hidden", "32",
            "--batch", "8", "--lr", "0.02", "--steps", "200", "--eval-every", "0", "--seed", "1",
            "--id", "fox", "--wait")
        written = cli(self.server, "generate", "fox", "--prompt", "the ", "--characters", "40",
                      "--temperature", "0").stdout
        cli(self.server, "download", "fox", "--output", str(model))
        datasets = cli_json(self.server, "datasets", "list")

        self.assertIn("quick brown fox", written)
        header = int.from_bytes(model.read_bytes()[:8], "little")
        tensors = json.loads(model.read_bytes()[8:8 + header])
        self.assertEqual(tensors["rnn.weight_hh_l0"]["shape"], [128, 32])
        self.assertEqual(len(datasets["datasets"]), 1)

    def test_reads_job_files_and_names_the_bad_line(self):
        good, bad = self.folder / "good.yaml", self.folder / "bad.yaml"
        good.write_text("task: {adding: {time_steps: 10}}\ntraining: {step_limit: 3}\n")
        bad.write_text("task: {adding: {time_steps: 10}}\nmodel:\n  hidden_unit: 4\n")

        job = cli_json(self.server, "submit", "--file", str(good), "--validate-only")
        refused = cli(self.server, "submit", "--file", str(bad), expect=2)
        missing = cli(self.server, "submit", "--file", str(self.folder / "none.yaml"), expect=2)

        self.assertEqual(int(job["training"]["step_limit"]), 3)
        self.assertIn("hidden_units", refused.stderr)
        self.assertIn("3", refused.stderr)
        self.assertIn("none.yaml", missing.stderr)
        self.assertFalse(cli_json(self.server, "list").get("jobs"))

    def test_names_every_bad_field(self):
        refused = cli(self.server, "submit", "--hidden", "-3", "--batch", "0", expect=2)

        self.assertIn("model.hidden_units", refused.stderr)
        self.assertIn("training.batch_size", refused.stderr)

    def test_shows_alerts_and_fails_with_the_job(self):
        boom = str(testing.SOURCE / "deploy/examples/d1-boom.yaml")

        cli(self.server, "submit", "--file", boom, "--id", "boom", "--wait", expect=1)
        alerts = cli(self.server, "alerts", "boom")
        compared = cli(self.server, "compare", "boom")

        for rule in ("EXPLODING_ABS", "LOSS_DIVERGENCE", "NON_FINITE"):
            self.assertIn(rule, alerts.stdout)
        self.assertIn("boom", compared.stdout)

    def test_shows_an_alert_with_the_examples_of_its_step(self):
        boom = str(testing.SOURCE / "deploy/examples/d1-boom.yaml")
        cli(self.server, "submit", "--file", boom, "--id", "boom", "--rule",
            "EXPLODING_ABS:threshold=7", "--custom-rule", "OWN: loss > 1e6", "--wait", expect=1)

        alert = cli_json(self.server, "alerts", "show", "boom/1")
        whole = cli(self.server, "alerts", "show", "boom/1", "--batch").stdout
        batch = cli_json(self.server, "batch", "boom", alert["firing_step"], "--examples", "2")
        full = cli(self.server, "batch", "boom", alert["firing_step"], "--full").stdout
        rules = cli(self.server, "alerts", "rules", "--job", "boom").stdout.splitlines()

        self.assertIn(alert["message"].split()[0], whole)
        self.assertIn(f"jobs/boom step {alert['firing_step']}: 4 of the 32 rows", whole)
        self.assertIn("40 time steps left out", whole)
        self.assertEqual(batch["batch_origin"], alert["batch_origin"])
        for example in batch["examples"]:
            self.assertAlmostEqual(
                sum(value for value, mark in zip(example["inputs"][::2], example["inputs"][1::2])
                    if mark), example["target_values"][0], places=5)
        self.assertNotIn("left out", full)
        self.assertIn("threshold=7", next(line for line in rules if "EXPLODING_ABS" in line))
        self.assertIn("loss > 1e6", rules[-1])
        self.assertIn("there is no jobs/boom/alerts/99",
                      cli(self.server, "alerts", "show", "boom/99", expect=3).stderr)
        self.assertIn("is not recorded",
                      cli(self.server, "batch", "boom", "100000", expect=1).stderr)
        self.assertIn("there is no 'jobs/nobody'",
                      cli(self.server, "alerts", "rules", "--job", "nobody", expect=3).stderr)

    def test_names_symbols_as_the_tasks_mean_them(self):
        step = ["--steps", "1", "--batch", "16", "--eval-every", "0", "--wait"]
        cli(self.server, "submit", "--task", "temporal-order", "--time-steps", "20", "--id", "order",
            *step)
        cli(self.server, "submit", "--task", "copy-memory", "--delay", "5", "--id", "copy", *step)

        def classes(job):
            text = cli(self.server, "batch", job, "0", "--examples", "16", "--full").stdout
            rows = cli_json(self.server, "batch", job, "0", "--examples", "16")["examples"]
            return text.split("\nrow ")[1:], rows

        for text, example in zip(*classes("order")):
            pair = "".join("AB"[int(symbol)] for symbol in example["inputs"] if symbol < 2)
            self.assertEqual(text.rstrip().splitlines()[-1], f"target class {pair}")
        for text, example in zip(*classes("copy")):
            lines = [line.split() for line in text.rstrip().splitlines()[2:]]
            seen, said = [line[1] for line in lines], [line[2] for line in lines]
            signal_at = seen.index("now")
            letters = [name for name in seen[:signal_at] if name != "_"]
            self.assertEqual(said[signal_at + 1:], letters)
            self.assertEqual(len(letters), 10)
            self.assertEqual(len(set(seen[signal_at + 1:])), 1)

    def test_checks_gradients(self):
        checked = cli(self.server, "check", *SMALL)

        self.assertIn("rnn.weight_hh_l0", checked.stdout)

    def test_knows_its_exit_codes(self):
        cli(self.server, "watch", "nobody", expect=3)
        cli(self.server, "no-such-command", expect=2)
        cli(self.server, "submit", "--no-such-flag", expect=2)
        cli(self.server, "health")
        gone = cli(NOBODY, "list", expect=7)

        self.assertIn(NOBODY, gone.stderr)
        self.assertIn("gradwatchd", gone.stderr)

    def test_suggests_the_command_that_was_meant(self):
        self.assertIn("submit", cli(self.server, "sumbit", expect=2).stderr)

    def test_leaves_the_job_running_on_ctrl_c(self):
        self.submit("--steps", ENDLESS, "--id", "long")
        watcher = subprocess.Popen(
            [str(testing.GRADWATCH), "watch", "long"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "GRADWATCH_SERVER": self.server.grpc})
        watcher.stdout.readline()

        watcher.send_signal(signal.SIGINT)
        _, errors = watcher.communicate(timeout=testing.PATIENCE_SECONDS)

        self.assertEqual(watcher.returncode, 130)
        self.assertIn("long", errors)
        self.assertEqual(cli_json(self.server, "get", "long")["state"], "STATE_RUNNING")

    def test_tells_when_the_server_goes_away(self):
        self.submit("--steps", ENDLESS, "--id", "long")
        watcher = subprocess.Popen(
            [str(testing.GRADWATCH), "watch", "long"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "GRADWATCH_SERVER": self.server.grpc})
        watcher.stdout.readline()

        self.server.stop(signal.SIGKILL)
        _, errors = watcher.communicate(timeout=testing.PATIENCE_SECONDS)

        self.assertEqual(watcher.returncode, 7)
        self.assertIn("--reconnect", errors)

    def test_every_command_has_help_with_examples(self):
        for command in ("submit", "list", "get", "watch", "pause", "resume", "advance",
                        "cancel", "update", "interventions",
                        "delete", "alerts", "datasets", "generate", "download", "export", "check",
                        "compare", "health"):
            with self.subTest(command):
                text = cli(self.server, command, "--help").stdout
                self.assertIn(f"gradwatch {command}", text)
                self.assertRegex(text.lower(), "example")


class DaemonTest(unittest.TestCase):
    def test_refuses_a_port_that_is_taken(self):
        with testing.running_server() as server:
            second = subprocess.run(
                [str(testing.GRADWATCHD), f"--listen={server.grpc}", "--http-listen=127.0.0.1:0"],
                capture_output=True, text=True, timeout=testing.PATIENCE_SECONDS)

        self.assertEqual(second.returncode, 1)
        self.assertIn(server.grpc, second.stderr)

    def test_refuses_plain_text_beyond_loopback(self):
        result = subprocess.run(
            [str(testing.GRADWATCHD), "--listen=0.0.0.0:0", "--http-listen=127.0.0.1:0"],
            capture_output=True, text=True, timeout=testing.PATIENCE_SECONDS)

        self.assertEqual(result.returncode, 2)
        self.assertIn("--insecure-listen", result.stderr)

    def test_takes_flags_from_the_environment_and_names_a_bad_one(self):
        with testing.running_server(env={"GRADWATCH_LOG_FORMAT": "json"}) as server:
            server.stop()
            self.assertTrue(all(json.loads(line) for line in server.log().splitlines()))
        bad = subprocess.run(
            [str(testing.GRADWATCHD)], capture_output=True, text=True,
            env={**os.environ, "GRADWATCH_RUNNING_JOBS": "many"}, timeout=testing.PATIENCE_SECONDS)

        self.assertEqual(bad.returncode, 2)
        self.assertIn("GRADWATCH_RUNNING_JOBS", bad.stderr)

    def test_stops_in_order_on_sigterm_with_jobs_running(self):
        with testing.running_server() as server:
            cli(server, "submit", *SMALL, "--steps", ENDLESS)

            self.assertEqual(server.stop(signal.SIGTERM), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
