"""A process and everything that it started: counted, stopped for a while, and ended for good."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MIB = 1024 * 1024
STOP_TIMEOUT_S = 30.0
KILL_TIMEOUT_S = 10.0
PAUSE_TIMEOUT_S = 10.0
POLL_S = 0.002


class Tree:
    """
    A process that leads a process group of its own, and all below it or in that group.

    The group finds those whose parent has ended; the parents find those with a group of their own.
    All stay in the harness's session: Linux shares the cores among sessions (autogroup), whatever
    their priorities, and on 6.18 vLLM's processes, which wait by sched_yield, keep another session
    from running for seconds.
    """

    def __init__(self, words: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | dict(environ),
                process_group=0,
            )
        self.leader = psutil.Process(self._popen.pid)
        self._paused = False

    def poll(self) -> int | None:
        """The leader's exit code, or None while it runs."""
        return self._popen.poll()

    def processes(self) -> list[psutil.Process]:
        """All that is alive, the leader first."""
        found = {self.leader.pid: self.leader} if self.poll() is None else {}
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {child.pid: child for child in self.leader.children(recursive=True)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid not in found and os.getpgid(process.pid) == self.leader.pid:
                    found[process.pid] = process
        return [process for process in found.values() if _is_alive(process)]

    def listener(self, port: int) -> psutil.Process | None:
        """The process that owns a port: the one that speaks HTTP."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return process
        return None

    def cpu_s(self) -> float:
        """CPU seconds of all of them, user and system."""
        return sum(cpu_s(process) for process in self.processes())

    def pause(self) -> None:
        """
        SIGSTOP to all, again until none runs: one may have started another meanwhile.

        Raises:
            TimeoutError: one still runs.
        """
        self._paused = True
        deadline_s = time.monotonic() + PAUSE_TIMEOUT_S
        while running := [one for one in self.processes() if not _is_stopped(one)]:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{running[0]} still runs {PAUSE_TIMEOUT_S:g} s after SIGSTOP")
            for process in running:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            time.sleep(POLL_S)

    def wake(self) -> None:
        """SIGCONT to all, children first, so that no parent misses one."""
        self._paused = False
        for process in reversed(self.processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def end(self) -> None:
        """
        SIGTERM to the leader and a bounded wait; then SIGKILL to whatever is left.

        A second Ctrl-C during the wait skips it, and leaves nothing running either.
        """
        started = self.processes()
        try:
            if self._paused:
                self.wake()
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT_S)
        finally:
            self._kill(started)

    def _kill(self, started: Sequence[psutil.Process]) -> None:
        left = {process.pid: process for process in (*started, *self.processes())}
        for process in left.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()
        deadline_s = time.monotonic() + KILL_TIMEOUT_S
        # Not until they are reaped: that is up to whoever is their parent now.
        while any(map(_is_alive, left.values())) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of one process, user and system; 0 when it is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
