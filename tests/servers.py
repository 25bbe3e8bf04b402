"""Starts real servers for the tests: our command, a real engine, one at a time."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

START_S = 300
STOP_S = 60
LOG_S = 30
# Made once: to read the certificates takes a thread that has other clients beside it off its feet.
TLS = httpx.create_ssl_context()
READY_LINE = re.compile(r"Serving .* at (https?://\S+) ")
GRPC_LINE = re.compile(r"gRPC \(KServe v2\) at ([\w.:\[\]-]+)")


@dataclass
class Server:
    """A running `gemma-serve serve`."""

    process: subprocess.Popen[bytes]
    log: Path
    base_url: str = ""
    grpc_address: str = ""  # HOST:PORT, where the profile has server.grpc_port
    headers: dict[str, str] = field(default_factory=dict)

    def output(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        """Wait until it has printed this: its log is written by a thread, after the answer."""
        deadline_s = time.monotonic() + LOG_S
        while words not in self.output():
            assert time.monotonic() < deadline_s, f"no {words!r} in the log:\n{self.output()}"
            time.sleep(0.05)

    def client(self, **options: object) -> httpx.Client:
        """An HTTP client on its port."""
        settings = {"timeout": 120, "headers": self.headers, "verify": TLS} | options
        return httpx.Client(base_url=self.base_url, **settings)

    def processes(self) -> list[psutil.Process]:
        """The server's process and all below it."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def stop(self) -> int:
        """SIGTERM, and the exit code; nothing may be left running."""
        below = self.processes()[1:] if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S)
        # Python's resource tracker leaves by itself, a moment after its parent.
        _, left = psutil.wait_procs(below, timeout=5)
        assert not left, f"left running: {left}"
        return code


def start(
    profile: str | Path, overrides: Sequence[str], log: Path, environ: dict[str, str]
) -> Server:
    """Start a server and wait, with a bound, until it says that it is ready."""
    options = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "gemma_serve", "serve", str(profile), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
    server = Server(process, log)
    try:
        server.base_url = _wait_until_ready(server)
        if found := GRPC_LINE.search(server.output()):
            server.grpc_address = found[1]
    except BaseException:
        end(server)
        raise
    return server


def _wait_until_ready(server: Server) -> str:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        if found := READY_LINE.search(server.output()):
            return found[1]
        code = server.process.poll()
        assert code is None, f"exited with {code}:\n{server.output()}"
        time.sleep(0.1)
    raise TimeoutError(f"not ready after {START_S} s:\n{server.output()}")


def end(server: Server) -> None:
    """Whatever state it is in, end it and all below it."""
    with contextlib.suppress(psutil.Error):
        for process in reversed(server.processes()):
            process.kill()
    server.process.wait(STOP_S)


@contextlib.contextmanager
def serving(
    profile: str | Path, overrides: Sequence[str], log: Path, environ: dict[str, str]
) -> Iterator[Server]:
    """A server for the length of a with block, on a free port of the loopback."""
    server = start(profile, ["server.port=0", *overrides], log, environ)
    try:
        yield server
        if server.process.poll() is None:
            assert server.stop() == 0, server.output()
    finally:
        if server.process.poll() is None:
            end(server)
