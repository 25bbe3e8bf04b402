"""Replicas of the tiny model, and what stands in front of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.conftest import free_port
from tests.deploy.manifests import ROOT
from tests.servers import Server

FOLDER = ROOT / "deploy" / "replicas"
WAIT_S = 60
# vllm-router is beside this Python.
ENVIRON = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait with a bound."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"never: {what}"
        time.sleep(0.1)


@dataclass
class Replica:
    """A server on an address that stays, whatever becomes of it."""

    url: str
    server: Server | None = None

    @classmethod
    def of(cls, server: Server) -> Replica:
        """One that runs."""
        return cls(server.base_url, server)

    def drain(self) -> None:
        """SIGTERM; it answers what it has, and ends by itself."""
        assert self.server is not None
        self.server.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a machine would go."""
        assert self.server is not None
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait(WAIT_S)

    def answered(self) -> float:
        """Chats that it has answered."""
        return self._metric("gemma_serve_http_requests_total", 'route="/v1/chat/completions"')

    def running(self) -> float:
        """Requests that its engine has now."""
        return self._metric("vllm:num_requests_running") + self._metric("vllm:num_requests_waiting")

    def _metric(self, name: str, label: str = "") -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=WAIT_S).text.splitlines()
        samples = [line for line in lines if line.startswith(f"{name}{{") and label in line]
        return sum(float(line.rpartition(" ")[2]) for line in samples)


@dataclass
class Proxy:
    """What stands in front, with what it wrote."""

    url: str
    log: Path
    metrics_url: str = ""

    def output(self) -> str:
        """What an operator reads of it."""
        return self.log.read_text(errors="replace")

    def is_healthy(self) -> bool:
        """Whether vllm-router calls all of its replicas healthy."""
        return httpx.get(f"{self.url}/health", timeout=WAIT_S).is_success


@contextlib.contextmanager
def nginx(replicas: Sequence[Replica], folder: Path) -> Iterator[Proxy]:
    """nginx with the configuration of deploy/replicas, but for the addresses."""
    port, own = free_port(), folder / "nginx"
    own.mkdir()
    shutil.copy(FOLDER / "nginx.conf", own)
    _replace(own / "nginx.conf", "listen 8080;", f"listen 127.0.0.1:{port};")
    shutil.copy(FOLDER / "replicas.conf", own)
    for number, replica in enumerate(replicas, 11):
        address = replica.url.removeprefix("http://")
        _replace(own / "replicas.conf", f"10.0.0.{number}:8000", address)
    command = ["nginx", "-e", "stderr", "-p", own, "-c", own / "nginx.conf", "-g", "daemon off;"]
    proxy = Proxy(f"http://127.0.0.1:{port}", folder / "nginx.log")
    with _running(command, proxy.log, lambda: _status(f"{proxy.url}/metrics") == 404):
        yield proxy


@contextlib.contextmanager
def router(replicas: Sequence[Replica], folder: Path, *options: str) -> Iterator[Proxy]:
    """vllm-router as deploy/replicas/router.sh starts it, but for the ports."""
    port, metrics_port, log = free_port(), free_port(), folder / f"router-{len(options)}.log"
    command = [
        FOLDER / "router.sh",
        *(replica.url for replica in replicas),
        *("--port", str(port), "--prometheus-port", str(metrics_port), *options),
    ]
    proxy = Proxy(f"http://127.0.0.1:{port}", log, f"http://127.0.0.1:{metrics_port}")
    with _running(command, log, lambda: _status(f"{proxy.url}/readiness") == 200):
        yield proxy


def _replace(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path], log: Path, answers: Callable[[], bool]
) -> Iterator[None]:
    """A program for the length of a with block, once it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRON)
    try:
        wait_until(answers, f"{command[0]} answers")
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0
