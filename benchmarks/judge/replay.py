"""What is replayed, and what every judging tool has to be able to do."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks import records
from benchmarks.machine import ahead_of_servers, on_cpus
from benchmarks.records import Load, RequestRecord
from benchmarks.servers import venvs
from benchmarks.servers.processes import Tree
from benchmarks.servers.venvs import Progress
from benchmarks.workload import Workload

# One run of a tool: metric -> value, by that tool's definitions.
Figures = dict[str, float]
RUN_TIMEOUT_S = 3600.0
POLL_S = 0.2
ROUTES: dict[records.Protocol, str] = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
}


class JudgeError(ValueError):
    """The workload cannot be judged, or a tool failed."""


def check_load(load: Load) -> None:
    """
    Only a closed loop is the same for all.

    Raises:
        JudgeError: another load.
    """
    if load.mode != "closed":
        raise JudgeError(
            f"load {load.label()} cannot be judged: each tool draws arrivals of its own; "
            "give a --concurrency"
        )
    if load.ramp_s is not None:
        raise JudgeError(
            f"--ramp-s {load.ramp_s:g} cannot be judged: the tools start all clients at once; "
            "leave it out"
        )


def check_protocol(protocol: records.Protocol) -> None:
    """
    The tools speak OpenAI's.

    Raises:
        JudgeError: another protocol.
    """
    if protocol not in ROUTES:
        raise JudgeError(
            f"protocol {protocol} cannot be judged: the tools speak OpenAI's; give "
            f"{' or '.join(ROUTES)}"
        )


@dataclass(frozen=True)
class Replay:
    """
    The same requests for every tool, and what each of them has to hold beside its prompt.

    Args:
        salted: Whether the server takes `cache_salt`; each run then has one of its own, so that no
            run finds the prefix cache of the one before.
        token_ids: Whether our client asks for `return_token_ids`; the others then do, as the server
            has more to write.
        client_cpus: Cores of our client alone, which are then those of the tools.
        begun: Part of all salts: a running server still has the blocks of the judging before.
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
    client_cpus: tuple[int, ...] | None = None
    begun: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        check_load(self.load)
        check_protocol(self.protocol)

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
            body["cache_salt"] = f"{self.begun}-{salt}"
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


async def run_tool(
    name: str,
    words: Sequence[str],
    log: Path,
    environ: Mapping[str, str],
    cpus: Collection[int] | None = None,
) -> None:
    """
    Run a tool to its end, its output in a log.

    It goes ahead of the servers, on the cores that are given, as our own client does, which it
    inherits; and stays in our session, as the kernel shares cores among sessions whatever their
    priorities.

    Raises:
        JudgeError: it failed, or took longer than an hour; with the end of the log.
    """
    deadline_s = time.monotonic() + RUN_TIMEOUT_S
    with on_cpus(cpus), ahead_of_servers():
        tree = Tree(words, log, environ)
    try:
        while (code := tree.poll()) is None:
            if time.monotonic() > deadline_s:
                raise JudgeError(f"{name} was not done after {RUN_TIMEOUT_S:g} s")
            await asyncio.sleep(POLL_S)
    finally:
        tree.end()
    if code != 0:
        raise JudgeError(f"{name} ended with code {code}; its last words:\n{venvs.log_end(log)}")
