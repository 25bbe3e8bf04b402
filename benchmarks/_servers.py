"""Servers under test: started one at a time, waited for, measured from outside, ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class Command:
    """How a server is started: its name in the results, words, environment and ready path."""

    name: str
    words: Sequence[str]
    ready_path: str
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    port: int
    process: psutil.Process
    ready_s: float

    @property
    def model(self) -> str:
        """The first served name."""
        models = get_json(self.port, "/v1/models")
        return str(models["data"][0]["id"])

    def api_cpu_s(self) -> float:
        """CPU seconds of the API process alone, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def tree_cpu_s(self) -> float:
        """CPU seconds of the API process and all below it."""
        total_s = self.api_cpu_s()
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total_s += times.user + times.system
        return total_s

    def api_memory_mib(self) -> dict[str, float]:
        """Memory of the API process alone: resident, proportional and unique."""
        memory = self.process.memory_full_info()
        return {name: round(getattr(memory, name) / MIB, 1) for name in ("rss", "pss", "uss")}


def gemma_serve(
    profile: Path | str, port: int, environ: Mapping[str, str] | None = None
) -> Command:
    """Our server, with variables of the operator's."""
    words = [sys.executable, "-m", "gemma_serve", "serve", str(profile)]
    words += ["--set", f"server.port={port}"]
    return Command("gemma-serve", words, "/readyz", environ or {})


def vllm_server(profile: Path | str, port: int) -> Command:
    """
    vLLM's own server with the environment and the engine arguments that `gemma-serve check` shows.

    Its access log is off and uvicorn logs warnings only, as in ours; neither server logs requests
    unless asked to.
    """
    check = [sys.executable, "-m", "gemma_serve", "check", str(profile), "--json"]
    shown = json.loads(subprocess.run(check, check=True, capture_output=True, text=True).stdout)
    environ = {setting["key"]: setting["value"] for setting in shown["env"]}
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    words += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    for setting in shown["engine_args"] + shown["frontend_args"]:
        words += _flag(setting["key"], setting["value"])
    return Command("vllm", words, "/health", environ)


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if value is None or value == {}:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", json.dumps(value) if isinstance(value, dict | list) else str(value)]


@contextlib.contextmanager
def running(command: Command, port: int) -> Iterator[Running]:
    """
    Start a server, wait until it is ready, and end it and all below it afterwards.

    Raises:
        RuntimeError: it ended or was not ready in time; with the end of its output.
    """
    with tempfile.TemporaryFile() as log:
        environ = os.environ | command.environ
        began_s = time.perf_counter()
        process = subprocess.Popen(
            command.words, env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_ready(process, command, port, began_s, log)
            ready_s = time.perf_counter() - began_s
            yield Running(port, _listener(process.pid, port), round(ready_s, 2))
        finally:
            _stop(process)


@contextlib.contextmanager
def locked(lock: Path | None) -> Iterator[None]:
    """Hold a file's flock, for machines where others measure too; nothing without a file."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait_ready(
    process: subprocess.Popen[bytes], command: Command, port: int, began_s: float, log: Any
) -> None:
    url = f"http://127.0.0.1:{port}{command.ready_path}"
    while time.perf_counter() - began_s < START_TIMEOUT_S:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.25)
    log.seek(0)
    end = log.read().decode(errors="replace")[-3000:]
    raise RuntimeError(f"{command.name} was not ready (exit {process.poll()}):\n{end}")


def _listener(pid: int, port: int) -> psutil.Process:
    """The process that owns the port: the API process."""
    started = psutil.Process(pid)
    for process in (started, *started.children(recursive=True)):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return process
    raise RuntimeError(f"no process below {pid} listens on port {port}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process, and kill what is left of its session."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(below, timeout=STOP_TIMEOUT_S)


def get_json(port: int, path: str) -> Any:
    """The JSON that a GET answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return json.load(answer)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
