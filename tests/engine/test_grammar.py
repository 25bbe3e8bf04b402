"""The process that compiles structured outputs, asked without a server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psutil
import pytest
import xgrammar

from gemma_serve.engine.grammar import checker
from gemma_serve.engine.grammar.checker import GrammarChecker
from gemma_serve.engine.grammar.process import Job, Setup, setup_line
from gemma_serve.errors import GemmaServeError, RequestError, UnavailableError
from tests.commands import session_of

WAIT_S = 60
# What the compiler knows of a server: it asks.
SERVER = """
import asyncio, json, sys
from gemma_serve.engine.grammar.checker import GrammarChecker
from gemma_serve.engine.grammar.process import Job, Setup

setup = Setup(**json.loads(sys.stdin.readline()))
job = Job(**json.loads(sys.stdin.readline()))
asyncio.run(GrammarChecker(setup).check(job))
"""
VOCABULARY = ["<eos>", *map(chr, range(32, 127))]


def _doubled(levels: int) -> dict[str, object]:
    """Each level twice the one below it, written out."""
    schema: dict[str, object] = {"type": "string"}
    for _ in range(levels):
        schema = {"oneOf": [schema, {"type": "object", "properties": {"a": schema}}]}
    return schema


def _setup(memory_bytes: int = 256 << 20) -> Setup:
    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    return Setup(
        tokenizer_info=info.serialize_json(),
        vocab_size=len(VOCABULARY),
        stop_token_ids=[0],
        any_whitespace=True,
        cpu_s=0.3,
        memory_bytes=memory_bytes,
    )


def _run(work: Callable[[GrammarChecker], Awaitable[None]], setup: Setup | None = None) -> None:
    async def run() -> None:
        asked = GrammarChecker(setup or _setup())
        try:
            await work(asked)
        finally:
            await asked.aclose()

    asyncio.run(run())


def _json(schema: object) -> Job:
    return Job("json", json.dumps(schema))


async def _refusal(asked: GrammarChecker, job: Job) -> GemmaServeError:
    try:
        await asked.check(job)
    except GemmaServeError as error:
        return error
    raise AssertionError(f"not refused: {job}")


def test_verdicts() -> None:
    """Good ones pass; a bad one is the client's fault, and the next one is good."""

    async def work(asked: GrammarChecker) -> None:
        for job in (
            _json({"type": "object", "properties": {"a": {"type": "integer"}}}),
            Job("json_object", '{"type": "object"}'),
            Job("regex", "[0-9]{3}"),
            Job("regex", ""),
            Job("grammar", 'root ::= "a" | "b"'),
            Job("structural_tag", json.dumps({"format": {"type": "any_text"}})),
        ):
            await asked.check(job)
        for job, words in (
            (_json({"$ref": "#"}), "allows no answer"),
            (_json({"anyOf": []}), "allows no value at all"),
            (Job("regex", "[^\\s\\S]"), "allows no answer"),
            (Job("regex", "("), "is not valid"),
            (Job("grammar", "root ::="), "is not valid"),
            (Job("structural_tag", "{"), "is not valid"),
            (_json(_doubled(14)), "takes more than 0.3 s"),
        ):
            error = await _refusal(asked, job)
            assert isinstance(error, RequestError)
            assert words in error.message, (job, error.message)
            await asked.check(Job("regex", "a"))

    _run(work)


def test_too_much_memory() -> None:
    """What needs more memory than the bound is refused as too large."""

    async def work(asked: GrammarChecker) -> None:
        error = await _refusal(asked, _json({"enum": [f"value {i}" for i in range(20_000)]}))
        assert isinstance(error, RequestError)
        assert "memory" in error.message

    _run(work, _setup(memory_bytes=4 << 20))


def test_one_question_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is asked once; one too many is a 503; a process that has died is replaced."""
    monkeypatch.setattr(checker, "MAX_WAITING", 2)

    async def work(asked: GrammarChecker) -> None:
        same = [asked.check(Job("regex", "a")) for _ in range(20)]
        await asyncio.gather(*same)
        waiting = [asyncio.create_task(asked.check(Job("regex", word))) for word in ("b", "c")]
        await asyncio.sleep(0)
        error = await _refusal(asked, Job("regex", "d"))
        assert isinstance(error, UnavailableError)
        assert (error.code, error.retry_after_s) == ("engine_overloaded", 1)
        await asyncio.gather(*waiting)
        await asked.check(Job("regex", "d"))

        process = asked._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await asked.check(Job("regex", "e"))

    _run(work)


def test_killed_server() -> None:
    """A server that is killed takes the compiler along, and its fork, one that is stopped too."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        assert server.stdin is not None
        server.stdin.write(setup_line(replace(_setup(1 << 30), cpu_s=600.0)))
        server.stdin.write(_json(_doubled(16)).line())
        server.stdin.flush()
        _compiling(server.pid).suspend()  # it would end by itself at last

        server.kill()
        server.wait(WAIT_S)

        _await(lambda: not session_of(server.pid))
    finally:
        for left in session_of(server.pid):
            left.kill()


def _compiling(server_pid: int) -> psutil.Process:
    """The fork of the compiler, once it is at work."""

    def forks() -> list[psutil.Process]:
        compilers = psutil.Process(server_pid).children()
        found = [fork for compiler in compilers for fork in compiler.children()]
        return [fork for fork in found if fork.cpu_times().user > 0.1]

    _await(forks)
    return forks()[0]


def _await(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
