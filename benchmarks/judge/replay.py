"""What is replayed, and what every judging tool has to be able to do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import records
from benchmarks.records import Load, RequestRecord
from benchmarks.servers import venvs
from benchmarks.servers.venvs import Progress
from benchmarks.workload import Workload

# One run of a tool: metric -> value, by that tool's definitions.
Figures = dict[str, float]
RUN_TIMEOUT_S = 3600.0
ROUTES: dict[records.Protocol, str] = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
}


class JudgeError(Exception):
    """The workload cannot be judged, or a tool failed."""


@dataclass(frozen=True)
class Replay:
    """
    The same requests for every tool, and what each of them has to hold beside its prompt.

    Args:
        salted: Whether the server takes `cache_salt`; each run then has one of its own, so that no
            run finds the prefix cache of the one before.
        token_ids: Whether our client asks for `return_token_ids`; the others then do, as the server
            has more to write.
    """

    url: str
    model: str
    protocol: records.Protocol
    workload: Workload
    load: Load
    ignore_eos: bool = True
    salted: bool = True
    token_ids: bool = True
    api_key: str | None = None

    def __post_init__(self) -> None:
        if self.load.mode != "closed":
            raise JudgeError(
                f"load {self.load.label()} cannot be judged: each tool draws arrivals of its own; "
                "give a --concurrency"
            )
        if self.protocol not in ROUTES:
            raise JudgeError(
                f"protocol {self.protocol} cannot be judged: the tools speak OpenAI's; give "
                f"{' or '.join(ROUTES)}"
            )

    @property
    def route(self) -> str:
        """Where requests go."""
        return ROUTES[self.protocol]

    @property
    def concurrency(self) -> int:
        """Open requests at once."""
        return self.load.concurrency or 1

    @property
    def num_requests(self) -> int:
        """Measured ones; the tools send no others."""
        return len(self.workload.items)

    def extra_body(self, salt: str) -> dict[str, Any]:
        """Fields that a tool does not send by itself."""
        body: dict[str, Any] = {"temperature": 0}
        if self.token_ids:
            body["return_token_ids"] = True
        if self.salted:
            body["cache_salt"] = salt
        return body


class Tool(Protocol):
    """A tool that judges."""

    name: str
    # metric -> what it means in this tool
    definitions: Mapping[str, str]

    async def prepare(self, on_progress: Progress | None) -> str:
        """Install it if need be; its version."""

    async def run(self, replay: Replay, directory: Path, salt: str) -> Figures:
        """Send the workload once; its result file stays in the directory."""

    def ours(self, sent: Sequence[RequestRecord]) -> Figures:
        """Our requests by its definitions."""


async def run_tool(name: str, words: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
    """
    Run a tool to its end, at our own priority, its output in a log.

    Raises:
        JudgeError: it failed, or took longer than an hour; with the end of the log.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | dict(environ),
            start_new_session=True,
        )
    try:
        await asyncio.wait_for(process.wait(), RUN_TIMEOUT_S)
    except TimeoutError as error:
        raise JudgeError(f"{name} was not done after {RUN_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        raise JudgeError(
            f"{name} ended with code {process.returncode}; its last words:\n{venvs.log_end(log)}"
        )
