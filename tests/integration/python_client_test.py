"""Drives a real server with Python's grpc client and stubs generated from the .proto files."""
import hashlib
import os
import threading
import unittest

import gradwatch_testing as testing

testing.generate_stubs()

import grpc  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from grpc.health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from gradwatch.v1 import (  # noqa: E402
    alert_service_pb2, alert_service_pb2_grpc, clipping_pb2, dataset_pb2, dataset_service_pb2,
    dataset_service_pb2_grpc, job_pb2, job_service_pb2, job_service_pb2_grpc, model_service_pb2,
    model_service_pb2_grpc, stats_pb2, stats_service_pb2, stats_service_pb2_grpc, task_pb2)

FINAL = (job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED, job_pb2.Job.STATE_CANCELLED)
TIMEOUT = testing.PATIENCE_SECONDS


class Client:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.stats = stats_service_pb2_grpc.StatsServiceStub(self.channel)
        self.alerts = alert_service_pb2_grpc.AlertServiceStub(self.channel)
        self.datasets = dataset_service_pb2_grpc.DatasetServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def create(self, job, job_id="", request_id="", validate_only=False):
        return self.jobs.CreateJob(job_service_pb2.CreateJobRequest(
            job=job, job_id=job_id, request_id=request_id, validate_only=validate_only),
            timeout=TIMEOUT)

    def get(self, name):
        return self.jobs.GetJob(job_service_pb2.GetJobRequest(name=name), timeout=TIMEOUT)

    def wait(self, name, states=FINAL):
        for message in self.jobs.WatchJob(job_service_pb2.WatchJobRequest(name=name),
                                          timeout=TIMEOUT):
            if message.HasField("job") and message.job.state in states:
                return message.job
        raise AssertionError(f"{name} never reached one of {states}")

    def upload(self, data, kind, dataset_id="", sha256=None):
        def parts():
            yield dataset_service_pb2.UploadDatasetRequest(
                header=dataset_service_pb2.UploadDatasetRequest.Header(
                    dataset_id=dataset_id, kind=kind, size_bytes=len(data),
                    sha256=sha256 or hashlib.sha256(data).hexdigest()))
            for start in range(0, len(data), 65536):
                yield dataset_service_pb2.UploadDatasetRequest(chunk=data[start:start + 65536])
        return self.datasets.UploadDataset(parts(), timeout=TIMEOUT)

    def steps(self, name, **request):
        """Every StepStats of a stream, and its last message."""
        steps, last = [], None
        for message in self.stats.StreamStats(
                stats_service_pb2.StreamStatsRequest(name=name, **request), timeout=TIMEOUT):
            assert message.dropped_before == 0
            steps.extend(message.steps)
            last = message
        return steps, last


def small_job(steps=50, **fields):
    """A job that trains in an instant."""
    job = job_pb2.Job(
        task=task_pb2.Task(adding=task_pb2.AddingTask(time_steps=10)),
        model=job_pb2.Model(cell=job_pb2.Model.CELL_GRU, hidden_units=8),
        training=job_pb2.Training(step_limit=steps, batch_size=4),
        evaluation=job_pb2.Evaluation(every_steps=0), seed=7)
    job.MergeFrom(job_pb2.Job(**fields))
    return job


ENDLESS = 1_000_000_000


def details(error):
    """The google.rpc details of an RpcError by their type."""
    found = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for packed in status_pb2.Status.FromString(value).details:
                for kind in (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo,
                             error_details_pb2.RetryInfo):
                    if packed.Is(kind.DESCRIPTOR):
                        found[kind] = kind()
                        packed.Unpack(found[kind])
    return found


class PythonClientTest(unittest.TestCase):
    def setUp(self):
        context = testing.running_server("--running-jobs=2")
        self.server = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.client = Client(self.server.grpc)
        self.addCleanup(self.client.channel.close)

    def test_trains_a_job_and_streams_every_step(self):
        job = self.client.create(small_job(steps=60), job_id="first")

        steps, last = self.client.steps(job.name, from_step=0)
        again, _ = self.client.steps(job.name, from_step=20)

        self.assertEqual([s.step for s in steps], list(range(60)))
        self.assertEqual([s.step for s in again], list(range(20, 60)))
        self.assertEqual(again, steps[20:])
        self.assertEqual(last.final_job.state, job_pb2.Job.STATE_SUCCEEDED)
        self.assertEqual(last.final_job.step, 60)
        for step in steps:
            self.assertGreater(step.norm_before, 0)
            self.assertTrue(step.HasField("norm_after"))
            self.assertEqual(len(step.tensors), len(last.final_job.parameters))

    def test_pauses_resumes_updates_and_cancels(self):
        name = self.client.create(small_job(steps=ENDLESS)).name
        self.client.wait(name, (job_pb2.Job.STATE_RUNNING,))

        paused = self.client.jobs.PauseJob(
            job_service_pb2.PauseJobRequest(name=name), timeout=TIMEOUT)
        still = self.client.get(name)
        resumed = self.client.jobs.ResumeJob(
            job_service_pb2.ResumeJobRequest(name=name), timeout=TIMEOUT)
        self.client.wait(name, (job_pb2.Job.STATE_RUNNING,))
        update = job_service_pb2.UpdateJobRequest(job=job_pb2.Job(
            name=name, clipping=clipping_pb2.Clipping(policies=[clipping_pb2.ClipPolicy(
                global_norm=clipping_pb2.GlobalNormClip(max_norm=0.001))])))
        update.update_mask.paths.append("clipping")
        updated = self.client.jobs.UpdateJob(update, timeout=TIMEOUT)
        stream = self.client.stats.StreamStats(stats_service_pb2.StreamStatsRequest(
            name=name, from_step=updated.effective_step), timeout=TIMEOUT)
        first = next(m for m in stream if m.steps).steps[0]
        stream.cancel()
        cancelled = self.client.jobs.CancelJob(
            job_service_pb2.CancelJobRequest(name=name), timeout=TIMEOUT)

        self.assertEqual(paused.job.state, job_pb2.Job.STATE_PAUSED)
        self.assertEqual(still.step, paused.effective_step)
        self.assertEqual(resumed.effective_step, paused.effective_step)
        self.assertFalse(updated.pending)
        self.assertEqual(updated.job.clipping.policies[0].global_norm.max_norm, 0.001)
        self.assertEqual(first.step, updated.effective_step)
        self.assertTrue(first.clipped)
        self.assertLessEqual(first.norm_after, 0.001)
        self.assertEqual(cancelled.job.state, job_pb2.Job.STATE_CANCELLED)

    def test_same_seed_gives_the_same_bits_with_twenty_readers(self):
        alone = self.client.create(small_job(steps=200, seed=3))
        want, _ = self.client.steps(alone.name, from_step=0)
        watched = self.client.create(small_job(steps=200, seed=3))
        results = [None] * 20

        def read(i):
            results[i], _ = self.client.steps(watched.name, from_step=0, lossless=True)
        readers = [threading.Thread(target=read, args=(i,)) for i in range(20)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

        def bits(steps):
            return [(s.step, s.loss.hex(), s.norm_before.hex(), s.norm_after.hex()) for s in steps]
        for result in results:
            self.assertEqual(bits(result), bits(want))

    def test_lists_with_pages_and_filters(self):
        for i in range(5):
            self.client.create(small_job(steps=1, labels={"round": str(i % 2)}), job_id=f"list-{i}")
        for i in range(5):
            self.client.wait(f"jobs/list-{i}")

        names, token = [], ""
        while True:
            page = self.client.jobs.ListJobs(job_service_pb2.ListJobsRequest(
                page_size=2, page_token=token), timeout=TIMEOUT)
            self.assertLessEqual(len(page.jobs), 2)
            names += [job.name for job in page.jobs]
            token = page.next_page_token
            if not token:
                break
        odd = self.client.jobs.ListJobs(job_service_pb2.ListJobsRequest(
            filter='labels.round = "1" AND state = SUCCEEDED'), timeout=TIMEOUT)

        self.assertEqual(names, [f"jobs/list-{i}" for i in (4, 3, 2, 1, 0)])
        self.assertEqual([job.name for job in odd.jobs], ["jobs/list-3", "jobs/list-1"])

    def test_uploads_trains_generates_and_downloads(self):
        text = ("the quick brown fox jumps over the lazy dog\n" * 60).encode()
        dataset = self.client.upload(text, dataset_pb2.Dataset.KIND_TEXT, "fox")
        job = self.client.create(job_pb2.Job(
            task=task_pb2.Task(language=task_pb2.LanguageTask(
                dataset=dataset.name, time_steps=20)),
            model=job_pb2.Model(hidden_units=32),
            optimizer=job_pb2.Optimizer(learning_rate=0.02),
            training=job_pb2.Training(step_limit=200, batch_size=8),
            evaluation=job_pb2.Evaluation(every_steps=0), seed=1))
        final = self.client.wait(job.name)

        request = model_service_pb2.GenerateRequest(
            name=job.name, prompt="the ", characters=40, temperature=0)
        generated = self.client.models.Generate(request, timeout=TIMEOUT)
        repeated = self.client.models.Generate(request, timeout=TIMEOUT)
        chunks = list(self.client.models.DownloadModel(
            model_service_pb2.DownloadModelRequest(name=job.name), timeout=TIMEOUT))

        self.assertEqual(dataset.characters, len(text))
        self.assertEqual(final.state, job_pb2.Job.STATE_SUCCEEDED)
        self.assertEqual(len(generated.text), 40)
        self.assertIn("quick brown fox", generated.text)
        self.assertEqual(generated, repeated)
        self.assertEqual(sum(len(c.chunk) for c in chunks), chunks[0].size_bytes)

    def test_shows_no_evaluation_where_nothing_is_held_out(self):
        dataset = self.client.upload(b"abcdefgh" * 50, dataset_pb2.Dataset.KIND_TEXT)
        job = self.client.create(job_pb2.Job(
            task=task_pb2.Task(language=task_pb2.LanguageTask(
                dataset=dataset.name, time_steps=10, held_out_share=0)),
            model=job_pb2.Model(hidden_units=8),
            training=job_pb2.Training(step_limit=5, batch_size=4),
            evaluation=job_pb2.Evaluation(every_steps=1)))

        final = self.client.wait(job.name)

        self.assertEqual(final.state, job_pb2.Job.STATE_SUCCEEDED)
        self.assertFalse(final.HasField("latest_evaluation"))
        self.assertFalse(final.HasField("best_evaluation"))

    def test_names_every_bad_field_at_once(self):
        job = small_job()
        job.model.hidden_units = -1
        job.training.batch_size = 0
        job.clipping.policies.add().global_norm.max_norm = float("nan")

        with self.assertRaises(grpc.RpcError) as caught:
            self.client.create(job)

        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        found = details(caught.exception)
        self.assertEqual({v.field for v in found[error_details_pb2.BadRequest].field_violations},
                         {"model.hidden_units", "training.batch_size",
                          "clipping.policies[0].global_norm.max_norm"})
        self.assertEqual(found[error_details_pb2.ErrorInfo].domain, "gradwatch")
        self.assertFalse(self.client.jobs.ListJobs(job_service_pb2.ListJobsRequest(),
                                                   timeout=TIMEOUT).jobs)

    def test_refuses_a_wrong_checksum_and_keeps_nothing(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.upload(b"some text", dataset_pb2.Dataset.KIND_TEXT, "bad", "0" * 64)

        self.assertEqual(caught.exception.code(), grpc.StatusCode.DATA_LOSS)
        self.assertFalse(self.client.datasets.ListDatasets(
            dataset_service_pb2.ListDatasetsRequest(), timeout=TIMEOUT).datasets)

    def test_repeats_a_request_id_safely(self):
        first = self.client.create(small_job(steps=1), request_id="r-1")
        again = self.client.create(small_job(steps=1), request_id="r-1")
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.create(small_job(steps=2), request_id="r-1")

        self.assertEqual(again.name, first.name)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.ALREADY_EXISTS)
        self.assertIn("training", caught.exception.details())

    def test_raises_the_alerts_of_an_explosion(self):
        job = job_pb2.Job(
            task=task_pb2.Task(adding=task_pb2.AddingTask(time_steps=50)),
            model=job_pb2.Model(cell=job_pb2.Model.CELL_RNN_TANH, hidden_units=48),
            optimizer=job_pb2.Optimizer(learning_rate=0.1, sgd=job_pb2.Sgd()),
            clipping=clipping_pb2.Clipping(), training=job_pb2.Training(step_limit=200),
            evaluation=job_pb2.Evaluation(every_steps=0), seed=1)
        job.model.initialization.recurrent_weights.orthogonal_gain = 1.2
        job.model.initialization.input_weights.normal_deviation = 0.1
        job.model.initialization.readout_weights.normal_deviation = 0.1
        job.model.initialization.biases.constant = 0
        job.model.initialization.readout_bias.constant = 0

        name = self.client.create(job).name
        final = self.client.wait(name)
        alerts = self.client.alerts.ListAlerts(alert_service_pb2.ListAlertsRequest(parent=name),
                                               timeout=TIMEOUT).alerts

        self.assertEqual(final.state, job_pb2.Job.STATE_FAILED)
        self.assertEqual(final.failure.reason, job_pb2.Failure.REASON_NON_FINITE)
        by_rule = {a.rule_name: a for a in alerts}
        self.assertLessEqual({"EXPLODING_ABS", "LOSS_DIVERGENCE", "NON_FINITE"}, set(by_rule))
        self.assertTrue(by_rule["EXPLODING_ABS"].advice)

    def test_shows_the_batch_of_a_step(self):
        text = "the quick brown fox jumps over the lazy dog\n" * 60
        dataset = self.client.upload(text.encode(), dataset_pb2.Dataset.KIND_TEXT, "fox")
        language = task_pb2.Task(language=task_pb2.LanguageTask(dataset=dataset.name,
                                                                time_steps=20))
        name = self.client.create(small_job(steps=30, task=language)).name
        self.client.wait(name)
        steps, _ = self.client.steps(name, from_step=0)

        def batch(step, name=name):
            return self.client.jobs.GetBatch(
                job_service_pb2.GetBatchRequest(name=name, step=step), timeout=TIMEOUT)
        for step in steps:
            shown = batch(step.step)
            self.assertEqual(shown.batch_origin, step.batch_origin)
            self.assertEqual(len(shown.examples), 4)
            for example in shown.examples:
                end = example.origin + example.time_steps
                self.assertEqual(example.text, text[example.origin:end])
                self.assertEqual(example.target_text, text[example.origin + 1:end + 1])

        self.client.datasets.DeleteDataset(
            dataset_service_pb2.DeleteDatasetRequest(name=dataset.name), timeout=TIMEOUT)
        for arguments, code in (((3,), grpc.StatusCode.FAILED_PRECONDITION),
                                ((30,), grpc.StatusCode.OUT_OF_RANGE),
                                ((-1,), grpc.StatusCode.INVALID_ARGUMENT),
                                ((3, "jobs/nobody"), grpc.StatusCode.NOT_FOUND)):
            with self.assertRaises(grpc.RpcError) as caught:
                batch(*arguments)
            self.assertEqual(caught.exception.code(), code)

    def test_tells_liveness_and_readiness(self):
        live = self.client.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"),
                                     timeout=TIMEOUT)

        self.assertEqual(live.status, health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(self.server.get("/healthz")[0], 200)
        self.assertEqual(self.server.get("/readyz")[0], 200)

    def test_ends_streams_when_the_server_stops(self):
        name = self.client.create(small_job(steps=ENDLESS)).name
        stream = self.client.stats.StreamStats(
            stats_service_pb2.StreamStatsRequest(name=name, from_step=0), timeout=TIMEOUT)
        next(stream)

        code = self.server.stop()

        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertEqual(code, 0)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)


if __name__ == "__main__":
    unittest.main(verbosity=2)
