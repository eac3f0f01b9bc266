"""What the integration tests share: generated stubs, a real server, the command line.

The stubs are generated from proto/ by the test itself, so nothing here shares code with the C++
clients. Environment, set by CTest: GRADWATCH_SOURCE_DIR, GRADWATCH_BUILD_DIR.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

SOURCE = pathlib.Path(os.environ["GRADWATCH_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["GRADWATCH_BUILD_DIR"])
GRADWATCHD = BUILD / "bin" / "gradwatchd"
GRADWATCH = BUILD / "bin" / "gradwatch"
GOOGLEAPIS = pathlib.Path("/usr/share/gocode/src/github.com/gogo/googleapis")
GRPC_PROTO = pathlib.Path("/usr/share/grpc-proto")

# A sanitized or loaded machine is slow; nothing here asserts a time, these only end a hang.
PATIENCE_SECONDS = 120


def generate_stubs():
    """Generates Python messages and stubs once for a build folder and puts them on sys.path."""
    out = BUILD / "python_stubs"
    out.mkdir(parents=True, exist_ok=True)
    protos = sorted(SOURCE.glob("proto/gradwatch/v1/*.proto"))
    with open(out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = out / ".stamp"
        newest = max(p.stat().st_mtime for p in protos)
        if not stamp.exists() or stamp.stat().st_mtime < newest:
            names = [str(p.relative_to(SOURCE / "proto")) for p in protos]
            names += ["google/rpc/status.proto", "google/rpc/error_details.proto",
                      "google/rpc/code.proto", "grpc/health/v1/health.proto"]
            plugin = subprocess.run(["which", "grpc_python_plugin"], check=True,
                                    capture_output=True, text=True).stdout.strip()
            subprocess.run(
                ["protoc", "-I", str(SOURCE / "proto"), "-I", str(GOOGLEAPIS), "-I",
                 str(GRPC_PROTO), f"--plugin=protoc-gen-grpc={plugin}", f"--python_out={out}",
                 f"--grpc_out={out}", *names], check=True)
            stamp.touch()
    sys.path.insert(0, str(out))
    # The generated google/rpc and grpc/health join the installed packages of those names.
    import google
    import grpc
    google.__path__.append(str(out / "google"))
    grpc.__path__.append(str(out / "grpc"))


def wait_until(condition, what, patience=PATIENCE_SECONDS):
    """Returns the first true value of condition(); fails after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"gave up waiting until {what}")
        time.sleep(0.02)


class Server:
    """A gradwatchd on free loopback ports."""

    def __init__(self, process, ports, log_path):
        self.process = process
        self.grpc = ports["grpc"]
        self.http = ports["http"]
        self.log_path = log_path

    def get(self, path):
        """(status, text) of a GET on the HTTP port."""
        request = urllib.request.Request(f"http://{self.http}{path}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def log(self):
        return pathlib.Path(self.log_path).read_text()

    def stop(self, sig=signal.SIGTERM):
        """Ends the server; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def running_server(*flags, env=None):
    """A Server that is gone when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = pathlib.Path(folder) / "ports.json"
        log_path = pathlib.Path(folder) / "server.log"
        with open(log_path, "w") as log:
            process = subprocess.Popen(
                [str(GRADWATCHD), "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0",
                 f"--port-file={port_file}", *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(env or {})})
        try:
            def ready():
                if process.poll() is not None:
                    raise AssertionError(
                        f"gradwatchd ended with {process.returncode}:\n{log_path.read_text()}")
                return port_file.exists()
            wait_until(ready, "gradwatchd wrote its port file")
            yield Server(process, json.loads(port_file.read_text()), log_path)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise


def cli(server, *arguments, expect=0, input=None, env=None):
    """Runs the command line; checks its exit code; returns the finished process."""
    address = server if isinstance(server, str) else server.grpc
    result = subprocess.run(
        [str(GRADWATCH), *arguments], capture_output=True, text=True, input=input or "",
        timeout=PATIENCE_SECONDS * 3,
        env={**os.environ, "GRADWATCH_SERVER": address, "NO_COLOR": "1", **(env or {})})
    if expect is not None and result.returncode != expect:
        raise AssertionError(
            f"gradwatch {' '.join(arguments)}: exit code {result.returncode}, expected {expect}\n"
            f"stdout:\n{result.stdout}\nstderr:\n{result.stderr}")
    return result


def cli_json(server, *arguments, **kwargs):
    """The same with -o json, parsed."""
    return json.loads(cli(server, *arguments, "-o", "json", **kwargs).stdout)
