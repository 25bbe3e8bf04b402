"""Runs our command in a session of its own, so that whatever it leaves behind is found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

# Bounds, not expectations: a test that reaches one fails.
END_S = 120
WAIT_S = 120
TRACKER_S = 5
# As at a person's shell: it outlives the command and keeps the terminal, so that what the command
# leaves to clean up is not hung up.
SHELL = 'trap : INT; "$@"; code=$?; sleep 1; exit $code'
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Command:
    """A running `gemma-serve ...`, its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path
    terminal: int | None = None

    def type(self, keys: str) -> None:
        """Type at its terminal."""
        assert self.terminal is not None
        os.write(self.terminal, keys.encode())

    def output(self) -> str:
        """What it has printed so far, stderr and stdout."""
        return self.log.read_text(errors="replace")

    def last_line(self) -> str:
        """The last line that it has printed."""
        return self.output().rstrip("\n").rpartition("\n")[2]

    def wait_for(self, pattern: str) -> str:
        """Wait until the output matches; return the pattern's group, or the match."""
        self.until(lambda: re.search(pattern, self.output()) is not None, pattern)
        found = re.search(pattern, self.output())
        assert found is not None
        return found[found.lastindex or 0]

    def wait_for_process(self, title: str) -> psutil.Process:
        """Wait until a process with this word in its title runs in the session."""
        self.until(lambda: bool(self.processes(title)), f"a process {title!r}")
        return self.processes(title)[0]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait, with a bound, while the command runs."""
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline_s, f"no {what} in time:\n{self.output()}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.output()}"
            time.sleep(0.05)

    def processes(self, title: str = "") -> list[psutil.Process]:
        """The processes of the session, parents gone or not, with this word in their title."""
        return [process for process in session_of(self.process.pid) if title in _title(process)]

    def ended(self) -> int:
        """Wait for its end and return the exit code; nothing may be left of it."""
        code = self.process.wait(END_S)
        deadline_s = time.monotonic() + TRACKER_S
        # Python's resource tracker leaves by itself, a moment after its parent.
        while (left := self.processes()) and time.monotonic() < deadline_s:
            assert all(
                "from multiprocessing.resource_tracker" in _title(process) or _is_ending(process)
                for process in left
            ), left
            time.sleep(0.05)
        assert not left, f"left running: {left}"
        return code


def _is_ending(process: psutil.Process) -> bool:
    """Whether it has ended since it was listed, or is about to: its command line goes first."""
    try:
        return not process.cmdline() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.ZombieProcess:
        return True
    except psutil.NoSuchProcess:
        return True


def session_of(leader_pid: int) -> list[psutil.Process]:
    """What runs in a session, zombies left out: their parent is gone, or busy ending."""
    return _alive_where(os.getsid, leader_pid)


def group_of(leader_pid: int) -> list[psutil.Process]:
    """What runs in a process group, zombies left out."""
    return _alive_where(os.getpgid, leader_pid)


def _alive_where(leader_of: Callable[[int], int], leader_pid: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if leader_of(process.pid) == leader_pid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Serve:
    """`gemma-serve serve` of a profile on a free port, changed by --set."""

    def __init__(self, profile: Path, directory: Path) -> None:
        self.profile, self.directory = profile, directory

    def __call__(
        self,
        *overrides: str,
        environ: Mapping[str, str] | None = None,
        cores: set[int] | None = None,
    ) -> contextlib.AbstractContextManager[Command]:
        """Start it; the caller waits for what it wants to see."""
        options = [f"--set={override}" for override in ("server.port=0", *overrides)]
        log = self.directory / "serve.log"
        return running(["serve", self.profile, *options], log, environ, cores)


@contextlib.contextmanager
def running(
    words: Sequence[str | Path],
    log: Path,
    environ: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
) -> Iterator[Command]:
    """Start `gemma-serve` with these words; whatever still runs at the end is killed."""
    limit = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    with log.open("wb") as output, running_into(output, words, log, environ, limit) as command:
        yield command


@contextlib.contextmanager
def running_into(
    output: IO[bytes],
    words: Sequence[str | Path],
    log: Path,
    environ: Mapping[str, str] | None = None,
    prepare: Callable[[], object] | None = None,
) -> Iterator[Command]:
    """
    As `running`, with its output to a file that the caller has, who sees that `log` gets it.

    Args:
        prepare: Called in the child before it becomes the command, such as to limit it.
    """
    process = _start(words, output, environ, prepare)
    with _ended_at_last(Command(process, log)) as command:
        yield command


@contextlib.contextmanager
def at_terminal(
    words: Sequence[str | Path], log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """As `running`, at a terminal of its own: `type` is its keyboard, and Ctrl-C is a signal."""
    ours, theirs = os.openpty()
    # In the child, which leads a session by now, the first terminal becomes the controlling one.
    process = _start(
        words,
        theirs,
        {"TERM": "xterm", "COLUMNS": "200"} | dict(environ or {}),
        lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
        stdin=theirs,
        below=("sh", "-c", SHELL, "sh"),
    )
    os.close(theirs)
    log.touch()
    screen = threading.Thread(target=_copy, args=(ours, log), daemon=True)
    screen.start()
    with _ended_at_last(Command(process, log, ours)) as command:
        yield command
    screen.join(WAIT_S)
    os.close(ours)


def _start(
    words: Sequence[str | Path],
    output: Any,
    environ: Mapping[str, str] | None,
    prepare: Callable[[], object] | None,
    stdin: int = subprocess.DEVNULL,
    below: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*below, sys.executable, "-m", "gemma_serve", *map(str, words)],
        stdin=stdin,
        stdout=output,
        stderr=output,
        env=dict(os.environ) | dict(environ or {}),
        start_new_session=True,
        preexec_fn=prepare,
    )


@contextlib.contextmanager
def _ended_at_last(command: Command) -> Iterator[Command]:
    try:
        yield command
    finally:
        for left in command.processes():
            with contextlib.suppress(psutil.Error):
                left.kill()
        command.process.wait(END_S)


def _copy(terminal: int, log: Path) -> None:
    """Write what appears on a terminal to a file, without colours and cursor movements."""
    with log.open("a", encoding="utf-8") as file, contextlib.suppress(OSError):
        while shown := os.read(terminal, 65536):
            file.write(CONTROL.sub("", shown.decode(errors="replace")).replace("\r", ""))
            file.flush()
