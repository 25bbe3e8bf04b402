"""
`python -m benchmarks compare` as a process: started, watched, and ended with all below it.

The harness is a program of its own, which knows servers by the network alone; so is this to it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

from gemma_serve.errors import StartupError
from gemma_serve.tune.outcome import Compared, read_comparison

POLL_S = 0.5
# The harness ends two servers, each within 30 s.
END_S = 90.0
_MARK = Path("schemas", "compare.schema.json")
# As benchmarks/servers/running.py says it; a server that ends later has started.
_NOT_STARTED = re.compile(
    r"^benchmarks: (.+) (?:ended with code -?\d+ before it was ready|was not ready after .+ s);",
    re.MULTILINE,
)
OnBlocks = Callable[[int], None]


class TrialError(Exception):
    """A comparison came to no record; the message is one line."""

    def __init__(self, message: str, side: Literal["a", "b"] | None = None) -> None:
        super().__init__(message)
        self.side = side  # whose server did not start, where that is known


@dataclass(frozen=True)
class Method:
    """The load, and how many pairs are measured of it; the harness's own words."""

    concurrency: int = 8
    workload: str = "synthetic"
    input: str | None = "128"  # None of a file's workload: its own
    output: str | None = "64"
    requests: int | None = None
    looks: str = "8"
    aa_pairs: int = 4
    quality_prompts: int = 48
    slo: Mapping[str, float] = field(default_factory=dict)  # ttft_ms, itl_ms

    @property
    def num_blocks(self) -> int:
        """Measured blocks of a comparison whose last look decides."""
        return 2 * (self.aa_pairs + int(self.looks.split(",")[-1]))

    def words(self) -> list[str]:
        """Options of `compare`. Its tpot is what a profile's slo calls itl: of one request."""
        words = ["--concurrency", str(self.concurrency), "--workload", self.workload]
        for option, length in (("--input", self.input), ("--output", self.output)):
            words += [option, length] if length is not None else []
        words += ["--looks", self.looks, "--aa-pairs", str(self.aa_pairs)]
        if self.requests is not None:
            words += ["--requests", str(self.requests)]
        names = {"ttft_ms": "ttft_ms", "itl_ms": "tpot_ms"}
        if self.slo:
            limits = [f"{names[key]}={value:g}" for key, value in self.slo.items()]
            words += ["--slo", ",".join(limits)]
        return words

    def about(self) -> dict[str, Any]:
        """For the state and the evidence."""
        return asdict(self)


def lengths(workload: str, input_: str | None, output: str | None) -> tuple[str | None, str | None]:
    """Of prompts and answers: what was given, else the harness's defaults; a file has its own."""
    if Path(workload).is_file():
        return input_, output
    return input_ or "128", output or "64"


def check_harness() -> None:
    """
    Refuse to search without the harness.

    Raises:
        StartupError: There is no package `benchmarks`, or it is somebody else's.
    """
    spec = find_spec("benchmarks")
    origin = [Path(spec.origin).parent] if spec and spec.origin else []
    if not any((place / _MARK).is_file() for place in (*origin, Path.cwd() / "benchmarks")):
        raise StartupError(
            "gemma-serve tune measures with the harness python -m benchmarks, which comes with the "
            "source and is not installed here; run it from a checkout, with "
            "'pip install -e .[bench]'."
        )


def compare(
    a: str,
    b: str,
    directory: Path,
    method: Method,
    *,
    quality: bool,
    on_blocks: OnBlocks = lambda _done: None,
) -> Compared:
    """
    Measure target A against target B.

    Args:
        directory: Of the harness's files; emptied first, so that no old record is taken for new.
        on_blocks: Called with the number of blocks that are measured.

    Raises:
        TrialError: A server did not start, or the harness failed.
        KeyboardInterrupt: Passed on once the servers are ended.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    words = [sys.executable, "-m", "benchmarks", "compare", a, b, "--out", str(directory)]
    words += method.words()
    if quality:
        words += ["--quality", "--quality-prompts", str(method.quality_prompts)]
    log = directory / "harness.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches it through us alone, and once.
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        with _ended(process):
            while process.poll() is None:
                on_blocks(len(list(directory.glob("a_?-*/run.json"))))
                time.sleep(POLL_S)
    record = directory / "compare.json"
    if not record.exists():
        said = log.read_text(encoding="utf-8", errors="replace")
        raise TrialError(last_words(said), _not_started(said, a, b))
    return read_comparison(record)


def _not_started(log: str, a: str, b: str) -> Literal["a", "b"] | None:
    """Whose server did not start, where that is why the harness gave up."""
    found = _NOT_STARTED.search(log)
    if found is None or found[1] not in (a, b):
        return None
    return "a" if found[1] == a else "b"


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """
    Whatever happens, no server is left: the harness is asked to end them; what stays is killed.

    A second Ctrl-C skips the wait.
    """
    try:
        yield
    finally:
        below = _below(process)
        try:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
        finally:
            for left in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
            process.kill()
            process.wait()


def _below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def last_words(log: str) -> str:
    """
    Why the harness gave up, in one line.

    A server's own sentence where one did not start, else the harness's.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for mark in ("gemma-serve: ", "benchmarks: "):
        for line in reversed(lines):
            if line.startswith(mark):
                return line.removeprefix(mark)
    return lines[-1] if lines else "the harness said nothing"
