"""`started`: a target's server for the length of a with block, ready, measurable and pausable."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.servers.commands import Command, ProfileSlo, command
from benchmarks.servers.errors import ServerError
from benchmarks.servers.processes import MIB, Tree, cpu_s
from benchmarks.servers.targets import TargetSpec
from benchmarks.servers.venvs import Progress, log_end

READY_TIMEOUT_S = 600.0
POLL_S = 0.25
TICK_S = 1.0
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Server:
    """
    A server that answers.

    One that was running before (`process` is None) has no CPU time or memory to be read, and
    pausing it does nothing: only what the harness started is stopped.
    """

    spec: TargetSpec
    url: str
    model: str
    process: psutil.Process | None = None  # the one that speaks HTTP
    ready_s: float | None = None
    log: Path | None = None
    tree: Tree | None = None
    slo: ProfileSlo = field(default_factory=dict)  # of its profile, unless it publishes that

    def api_cpu_s(self) -> float | None:
        """CPU seconds so far of the process that speaks HTTP."""
        return None if self.process is None else cpu_s(self.process)

    def tree_cpu_s(self) -> float | None:
        """CPU seconds so far of all its processes."""
        return None if self.tree is None else self.tree.cpu_s()

    def api_rss_mib(self) -> float | None:
        """Resident memory of the process that speaks HTTP, while there is one."""
        if self.process is None:
            return None
        try:
            return float(self.process.memory_info().rss / MIB)
        except psutil.NoSuchProcess:
            return None

    def ended(self) -> str | None:
        """That it has ended by itself, with its last words; None while it runs."""
        code = None if self.tree is None else self.tree.poll()
        if code is None or self.log is None:
            return None
        return (
            f"{self.spec.label} ended with code {code} while it was needed; its last words:\n"
            f"{log_end(self.log)}"
        )

    def pause(self) -> None:
        """Stop all its processes (SIGSTOP), so that they take nothing from another server."""
        if self.tree is not None:
            self.tree.pause()

    def wake(self) -> None:
        """Let them go on (SIGCONT)."""
        if self.tree is not None:
            self.tree.wake()


@contextlib.asynccontextmanager
async def started(
    spec: TargetSpec,
    *,
    log: Path | None = None,
    on_progress: Progress | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> AsyncIterator[Server]:
    """
    Start the target's server on a free port of the loopback, wait for it, and end it afterwards.

    Ended with all below it whatever happens: error, Ctrl-C, SIGTERM, paused or not. A running
    server is only asked for its model.

    Args:
        log: Its output; a file that is deleted afterwards by default.
        on_progress: Called about once a second with what is being done, and for how long.
        ready_timeout_s: Bound on the start, without what is installed on first use.

    Raises:
        ServerError: it did not start; with the end of its output.
    """
    if spec.kind == "url":
        yield Server(spec, spec.what, spec.model or await _first_model(spec.what, spec.api_key))
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_cancelled_by_signals())
        if log is None:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory()), "server.log")
        port = free_port()
        if spec.protocol == "triton-grpc":
            spec = dataclasses.replace(spec, grpc=f"127.0.0.1:{free_port()}")
        how = await command(spec, port, on_progress)
        began_s = time.monotonic()
        tree = Tree(how.words, log, how.environ)
        stack.callback(tree.end)
        start = _Start(spec, how, port, tree, log, began_s)
        await start.wait_ready(on_progress, ready_timeout_s)
        yield await start.server()


@dataclass(frozen=True)
class _Start:
    """A server that is on its way."""

    spec: TargetSpec
    how: Command
    port: int
    tree: Tree
    log: Path
    began_s: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_ready(self, on_progress: Progress | None, timeout_s: float) -> None:
        """Ask until it is ready, it ends or the time is up."""
        told_s = 0.0
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            while not await self._is_ready(client):
                elapsed_s = time.monotonic() - self.began_s
                if (code := self.tree.poll()) is not None:
                    raise self._failed(f"ended with code {code} before it was ready")
                if elapsed_s > timeout_s:
                    raise self._failed(f"was not ready after {timeout_s:g} s")
                if on_progress is not None and elapsed_s >= told_s + TICK_S:
                    told_s = elapsed_s
                    on_progress(f"starting {self.spec.label}", elapsed_s)
                await asyncio.sleep(POLL_S)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(f"{self.url}{self.how.ready_path}")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def _failed(self, what: str) -> ServerError:
        return ServerError(f"{self.spec.label} {what}; its last words:\n{log_end(self.log)}")

    async def server(self) -> Server:
        """It is ready: find out what it serves, and which process answers."""
        return Server(
            spec=self.spec,
            url=self.url,
            model=self.spec.model or await _first_model(self.url, self.spec.api_key),
            process=self.tree.listener(self.port) or self.tree.leader,
            ready_s=time.monotonic() - self.began_s,
            log=self.log,
            tree=self.tree,
            slo=self.how.slo,
        )


async def _first_model(url: str, api_key: str | None) -> str:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            answer = await client.get(f"{url}/v1/models", headers=headers)
        return str(answer.json()["data"][0]["id"])
    except httpx.TransportError as error:
        raise ServerError(
            f"no server answers at {url} ({type(error).__name__}); start one, or give its address "
            "as the target"
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(
            f"{url}/v1/models names no model (status {answer.status_code}); "
            "give --model NAME, or write ,model=NAME behind the target, and ,key=API_KEY if it "
            "wants one"
        ) from error


_waiting_tasks: list[asyncio.Task[object]] = []


@contextlib.contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP cancel the task, as Ctrl-C does: alone they would leave servers behind."""
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    _waiting_tasks.append(task)
    for number in END_SIGNALS:
        loop.add_signal_handler(number, _cancel_all)
    try:
        yield
    finally:
        _waiting_tasks.remove(task)
        for number in END_SIGNALS if not _waiting_tasks else ():
            loop.remove_signal_handler(number)


def _cancel_all() -> None:
    for task in set(_waiting_tasks):
        task.cancel()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
