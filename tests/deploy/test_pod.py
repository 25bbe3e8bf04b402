"""
The CPU overlay's pod, run as its manifest says: unprivileged, on a read-only root, as process 1.

One start of the tiny model for everything that only a running server can show of the files below
deploy/.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from gemma_serve.gemma.cache import cache_dir
from tests.conftest import TINY
from tests.deploy import sandbox
from tests.deploy.manifests import ROOT, serving

START_S = 300
KEY = "a-key-of-the-test"
pytestmark = [
    pytest.mark.engine,
    pytest.mark.usefixtures("serve_profile"),  # ends the engine of the tests before
    pytest.mark.skipif(os.geteuid() != 0, reason="the pod's files belong to another user"),
]


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A pod that is up, with what it told its service manager."""

    pod: sandbox.Sandbox
    ports: dict[str, int]
    manager: socket.socket

    def url(self, path: str, port: str = "http") -> str:
        """An address of the pod."""
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def told(self) -> list[str]:
        """The next message to the service manager, a line each."""
        try:
            return self.manager.recv(4096).decode().splitlines()
        except TimeoutError:
            pytest.fail(f"nothing was told:\n{self.pod.output()}")

    def health(self) -> tuple[int, str]:
        """What Docker's HEALTHCHECK makes of it: exit code and line."""
        done = subprocess.run(
            [sys.executable, ROOT / "deploy" / "docker" / "healthcheck.py"],
            env=dict(os.environ) | {"GEMMA_SERVE_HEALTH_URL": self.url("/readyz")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def volumes(tiny_model: Path, tmp_path: Path) -> dict[str, Path]:
    """The pod's volumes, with the tiny model for weights and a profile of it."""
    names = ("profile", "api-keys", "weights", "home", "tmp")
    found = {name: tmp_path / name for name in names}
    for directory in found.values():
        directory.mkdir()
    shutil.copytree(tiny_model, found["weights"] / "tiny")
    profile = {"model": "/weights/tiny", **TINY}
    (found["profile"] / "profile.yaml").write_text(yaml.safe_dump(profile))
    (found["api-keys"] / "api-keys").write_text(f"{KEY}\n")
    # What this machine has read of vLLM already, which takes ten seconds each.
    kept = found["home"] / ".cache"
    (kept / "gemma-serve").mkdir(parents=True)
    for file in cache_dir().glob("engine-fields-*.json"):
        shutil.copy2(file, kept / "gemma-serve")
    if (models := Path.home() / ".cache" / "vllm" / "modelinfos").exists():
        shutil.copytree(models, kept / "vllm" / "modelinfos")
    return found


@pytest.fixture
def running(volumes: dict[str, Path], tmp_path: Path) -> Iterator[Running]:
    """The pod, started and not yet ready."""
    ports = {name: free_port() for name in ("http", "grpc", "metrics")}
    keys = {"http": "server.port", "grpc": "server.grpc_port", "metrics": "server.metrics_port"}
    arguments = [f"--set={keys[name]}={port}" for name, port in ports.items()]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(volumes["home"] / "notify"))
        manager.settimeout(START_S)
        environ = {"NOTIFY_SOCKET": "/home/vllm/notify"}
        log = tmp_path / "pod.log"
        with sandbox.running(serving("cpu"), volumes, arguments, environ, log) as pod:
            yield Running(pod, ports, manager)


def test_pod_starts(running: Running) -> None:
    """It starts with nothing to write to but its volumes, and says so to whom it may concern."""
    # Bound from the first moment on, unhealthy until the model is loaded.
    while "can't be reached" in (before := running.health())[1]:
        assert running.pod.process.poll() is None, running.pod.output()
    assert before[0] == 1
    assert 'answers 503: {"status":"starting"' in before[1]

    # Type=notify: READY=1 comes with /readyz.
    told = running.told()
    assert told == ["READY=1", f"STATUS=Serving tiny at {running.url('')}"]
    assert running.health() == (0, '{"status":"ready"}\n')

    # Keys come from the Secret; the probes and the metrics port ask for none.
    assert httpx.get(running.url("/v1/models")).status_code == 401
    for probe in serving("cpu").container.values():
        if isinstance(probe, dict) and "httpGet" in probe:
            path, port = probe["httpGet"]["path"], probe["httpGet"]["port"]
            assert httpx.get(running.url(path, port)).status_code == 200


def test_missing_keys_are_the_pods_last_line(volumes: dict[str, Path], tmp_path: Path) -> None:
    """A Secret whose api-keys is empty: exit code 2 and the sentence that describes the pod."""
    (volumes["api-keys"] / "api-keys").write_text("")

    with sandbox.running(serving("cpu"), volumes, [], {}, tmp_path / "pod.log") as pod:
        assert pod.process.wait(START_S) == 2
        assert pod.output().splitlines()[-1] == (
            "gemma-serve: server.api_keys_file '/run/secrets/gemma-serve/api-keys' holds no key; "
            "write one key a line."
        )
