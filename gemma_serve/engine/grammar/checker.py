"""Asks the compiling process about structured outputs, once each, and remembers what it said."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping

from gemma_serve.engine.grammar.process import (
    BUSY,
    CRASHED,
    EMPTY,
    ENDLESS,
    INVALID,
    LAGGING,
    LARGE,
    SLOW,
    STEP_S,
    WALL_PER_CPU,
    Job,
    Setup,
    as_answer,
    setup_line,
)
from gemma_serve.errors import RequestError, UnavailableError

MAX_REMEMBERED = 1024
# Waiting for the one process; each may take it for `limits.max_grammar_compile_s`.
MAX_WAITING = 32
# To import xgrammar and read the vocabulary.
START_S = 60.0
# On top of the bounds that the process keeps by itself.
GRACE_S = 5.0

# How a process that has died shows, to asyncio's loop and to uvloop.
DIED = (OSError, EOFError, RuntimeError, TimeoutError, ValueError)

Answer = Mapping[str, str]


class GrammarChecker:
    """
    The verdicts on structured outputs, and the process that finds them.

    The process starts with the first one: most servers never get any.
    """

    def __init__(self, setup: Setup) -> None:
        """
        Args:
            setup: What the process needs; written here and now, as the vocabulary is large.
        """
        self._setup, self._cpu_s = setup_line(setup), setup.cpu_s
        self._verdicts: OrderedDict[bytes, asyncio.Task[Answer]] = OrderedDict()
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def check(self, job: Job) -> None:
        """
        Refuse what can't be compiled within the bounds.

        Raises:
            RequestError: it can't be read, takes too much, or allows no answer.
            UnavailableError: there was no turn or no time for it; the client may try again.
        """
        key = hashlib.sha256(job.line()).digest()
        task = self._verdicts.get(key)
        if task is None:
            if self._waiting >= MAX_WAITING:
                raise _busy()
            self._waiting += 1
            task = self._verdicts[key] = asyncio.create_task(self._ask(job))
            task.add_done_callback(lambda done: self._settle(key, done))
            if len(self._verdicts) > MAX_REMEMBERED:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(key)
        # The task goes on if this client leaves: others may wait for the same.
        answer = await asyncio.shield(task)
        if fault := answer.get("fault"):
            raise _busy() if fault == BUSY else RequestError(self._sentence(fault, answer))

    def _settle(self, key: bytes, done: asyncio.Task[Answer]) -> None:
        """Forget what was no verdict."""
        self._waiting -= 1
        if done.cancelled() or done.exception() or done.result().get("fault") == BUSY:
            self._verdicts.pop(key, None)

    async def _ask(self, job: Job) -> Answer:
        async with self._turn:
            for _ in range(2):  # a process that has died since is replaced once
                try:
                    process = await self._running()
                    within_s = self._cpu_s * WALL_PER_CPU + GRACE_S
                    return await self._talk(process, job.line(), within_s)
                except DIED:
                    await self.aclose()
        return {"fault": BUSY}

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gemma_serve.engine.grammar.process", str(os.getpid())),
                stdin=pipe,
                stdout=pipe,
            )
            await self._talk(self._process, self._setup, START_S)
        return self._process

    async def _talk(
        self, process: asyncio.subprocess.Process, line: bytes, within_s: float
    ) -> Answer:
        if process.stdin is None or process.stdout is None:
            raise EOFError
        async with asyncio.timeout(within_s):
            process.stdin.write(line)
            await process.stdin.drain()
            said = await process.stdout.readline()
        if not said:
            raise EOFError
        return as_answer(said)

    async def aclose(self) -> None:
        """End the process; the next check would start another."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _sentence(self, fault: str, answer: Answer) -> str:
        took = (
            f"takes more than {self._cpu_s:g} s to compile (limits.max_grammar_compile_s); send a "
            "simpler one, with fewer alternatives, repetitions and references"
        )
        sentences = {
            INVALID: f"is not valid ({answer.get('why', '')}); mend it",
            SLOW: took,
            LARGE: "takes too much memory to compile; send a smaller one",
            CRASHED: "can't be compiled; send a simpler one",
            LAGGING: f"takes more than {STEP_S * 1e3:g} ms a token to follow; send a simpler one",
            ENDLESS: "allows no answer at all; let its recursion end",
            EMPTY: "allows no value at all; give it an alternative",
        }
        return f"The structured output of this request {sentences[fault]}."


def _busy() -> UnavailableError:
    return UnavailableError(
        "Too many structured outputs are being compiled; retry in a moment.",
        code="engine_overloaded",
        retry_after_s=1,
    )
