"""A Ray head on the loopback with deploy/ray's application on it, as `serve run` starts it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.commands import session_of
from tests.conftest import free_port
from tests.deploy.manifests import ROOT

FOLDER = ROOT / "deploy" / "ray"
RAY = Path(sys.prefix) / "ray" / "bin"  # its own environment; scripts/setup.py makes it
BOUND_S = 240.0
END_S = 60.0
OBJECT_STORE_BYTES = 100_000_000
# On the loopback. For 127.0.0.1 Ray would take the address by which other machines reach this one.
HOST = "127.0.0.2"
NUM_CPUS = 4  # that Ray counts; its scheduler reserves, and binds nothing
PORT = re.compile(r"server\.port=(\d+)")
# Reports every half second, where Ray's default is ten, so that the autoscaler decides within two.
ENVIRON = {
    "PYTHONPATH": str(FOLDER),
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's workers, and what they start, would step back behind all else on the machine.
    "RAY_worker_niceness": "0",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}


def until(holds: Callable[[], bool], what: str, bound_s: float = BOUND_S) -> None:
    """Wait, with a bound."""
    deadline_s = time.monotonic() + bound_s
    while not holds():
        assert time.monotonic() < deadline_s, f"no {what} within {bound_s:.0f} s"
        time.sleep(0.5)


class Cluster:
    """A Ray head, the application on it, and the processes below both."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.config, self.folder = config, folder
        self.base_url = f"http://127.0.0.1:{config['http_options']['port']}"
        # Unix sockets in it: their path has room for a hundred characters.
        self.temporary = Path(tempfile.mkdtemp(prefix="ray-"))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the head, and hand it the application."""
        port = free_port()
        where = [f"--node-ip-address={HOST}", f"--port={port}", f"--temp-dir={self.temporary}"]
        size = [f"--num-cpus={NUM_CPUS}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        ports = ["--min-worker-port=0", "--max-worker-port=0"]
        options = [*where, *size, *ports, "--include-dashboard=false", "--disable-usage-stats"]
        self._run("head", "ray", "start", "--head", "--block", *options)
        until(lambda: "Ray runtime started" in self.output("head"), "Ray head", END_S)
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(self.config))
        self._run("application", "serve", "run", f"--address={HOST}:{port}", file)

    def _run(self, name: str, program: str, *words: str | Path) -> None:
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                [RAY / program, *words],
                env=os.environ | ENVIRON,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append(process)

    def output(self, name: str) -> str:
        """What the head or the application has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def below(self) -> list[psutil.Process]:
        """All that runs in the sessions of the two commands, orphans too."""
        return [found for leader in self.processes for found in session_of(leader.pid)]

    def servers(self) -> dict[int, psutil.Process]:
        """The replicas' servers by their ports."""
        found = {}
        for process in self.below():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if (port := PORT.search(line)) and " serve " in line and "setpriv" not in line:
                    found[int(port[1])] = process
        return found

    def ready(self) -> list[int]:
        """The ports of the servers that are ready."""
        return [port for port in self.servers() if is_ready(f"http://127.0.0.1:{port}")]

    def until_ready(self, count: int) -> list[int]:
        """Wait until so many replicas' servers are ready, and Serve answers."""
        self._until(lambda: len(self.ready()) >= count, f"{count} servers")
        self._until(lambda: is_ready(self.base_url), "Serve")
        return self.ready()

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        def either() -> bool:
            assert all(process.poll() is None for process in self.processes), self.logs()
            assert "Failed to update the deployments" not in self.output("application"), self.logs()
            return holds()

        try:
            until(either, what)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.logs()}") from error

    def logs(self) -> str:
        """The logs of the two commands, and of Ray's workers."""
        files = [*self.folder.glob("*.log"), *self.temporary.glob("session_*/logs/worker-*.err")]
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')}" for file in files)

    def stop(self) -> None:
        """Ctrl-C for the application, SIGTERM for the head; both must end by themselves."""
        head, application = self.processes
        application.send_signal(signal.SIGINT)
        application.wait(BOUND_S)
        head.terminate()
        head.wait(END_S)

    def end(self) -> None:
        """End what is left, whatever state it is in."""
        for process in reversed(self.below()):
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in self.processes:
            process.wait(END_S)
        shutil.rmtree(self.temporary, ignore_errors=True)


def is_ready(base_url: str) -> bool:
    """Whether /readyz says so."""
    try:
        return httpx.get(f"{base_url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def cluster(config: dict[str, Any], folder: Path) -> Iterator[Cluster]:
    """A head with an application for the length of a with block."""
    running = Cluster(config, folder)
    try:
        running.start()
        yield running
    finally:
        running.end()
