"""
The program that compiles structured outputs apart from the server, where it may be killed.

xgrammar knows no bound of time or memory, and a schema of 20 bytes can take all of both. So each
is compiled in a fork of this process, which ends at its limits; the process itself has read the
vocabulary once, and lives on. It speaks JSON lines: a `Setup` first, then a `Job` a line and the
answer to it. Its argument is the server's process id: it ends with that one, and each fork with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any

from gemma_serve.engine.processes import die_with_parent

# What the compiler said of a specification that it can't read; longer ones quote it.
MAX_FAULT_CHARS = 300
# Of the CPU's seconds on an idle machine; on a busy one a fork gets its share later.
WALL_PER_CPU = 3.0
_READ_BYTES = 65536
# Tokens of a random answer that is followed: some grammars compile at once, and then take the
# engine's step seconds.
NUM_STEPS = 128
STEP_S = 0.002
_PLACE = re.compile(r"\[[\d:]+\] /\S+:\d+: ")

Answer = dict[str, str]  # {} is a good one; else `fault`, one of these, and perhaps `why`
INVALID = "invalid"  # it can't be read
SLOW = "slow"
LARGE = "large"
ENDLESS = "endless"  # no token may come next
EMPTY = "empty"  # JSON that ends before it begins
LAGGING = "lagging"  # it would hold up every step of the engine
CRASHED = "crashed"
BUSY = "busy"  # the machine had no time for it


@dataclass(frozen=True)
class Setup:
    """What holds for all jobs."""

    tokenizer_info: str  # xgrammar's own serialisation of the vocabulary
    vocab_size: int
    stop_token_ids: list[int]
    any_whitespace: bool
    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Job:
    """One structured output: a kind and its text, as vLLM's backend gives them to xgrammar."""

    kind: str  # json, json_object, regex, grammar, lark or structural_tag
    text: str

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> None:
    """Answer jobs until the server closes the pipe, or dies while one is compiled."""
    die_with_parent(int(sys.argv[1]))
    sent, answers = sys.stdin.buffer, sys.stdout.buffer
    setup = Setup(**json.loads(sent.readline()))
    compile_job = compiler(setup)
    _say(answers, {"ready": "yes"})
    for line in sent:
        job = Job(**json.loads(line))
        _say(answers, in_fork(partial(compile_job, job), setup))


def _say(answers: IO[bytes], answer: Answer) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def compiler(setup: Setup) -> Callable[[Job], Answer]:
    """The function that compiles a job as vLLM's engine will, and follows it a way."""
    import xgrammar

    info = xgrammar.TokenizerInfo.deserialize_json(setup.tokenizer_info)
    # One thread, so that seconds of CPU are seconds; no cache, as each fork ends after its job.
    made = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile_job(job: Job) -> Answer:
        try:
            compiled = _compiled(made, job, any_whitespace=setup.any_whitespace)
            matcher = xgrammar.GrammarMatcher(
                compiled, override_stop_tokens=setup.stop_token_ids or None
            )
            ends = setup.stop_token_ids if job.kind in ("json", "json_object") else ()
            return _followed(matcher, setup.vocab_size, ends)
        except Exception as error:
            return _fault(error)

    return compile_job


def _followed(matcher: Any, vocab_size: int, ends: Collection[int]) -> Answer:
    """
    Let `NUM_STEPS` random tokens that it allows be the answer, and watch the time.

    Args:
        matcher: Of the compiled grammar.
        vocab_size: In tokens.
        ends: Ids that end an answer and can't be all of it.
    """
    import numpy as np

    picks = random.Random(0)  # noqa: S311  # the same answer each time, and no secret
    mask = np.empty((1, (vocab_size + 31) // 32), dtype=np.int32)
    spent_s = 0.0
    for step in range(NUM_STEPS):
        mask.fill(-1)  # where every token may come next, it is left as it is
        began_s = time.process_time()
        matcher.fill_next_token_bitmask(mask, 0)
        spent_s += time.process_time() - began_s
        bits = np.unpackbits(mask.view(np.uint8), count=vocab_size, bitorder="little")
        allowed = np.flatnonzero(bits)
        if not len(allowed):
            return {"fault": ENDLESS}
        if step == 0 and len(allowed) <= len(ends) and set(allowed.tolist()) <= set(ends):
            return {"fault": EMPTY}
        token_id = int(picks.choice(allowed))
        began_s = time.process_time()
        matcher.accept_token(token_id)
        spent_s += time.process_time() - began_s
        if matcher.is_terminated():
            matcher.reset()
    return {"fault": LAGGING} if spent_s > NUM_STEPS * STEP_S else {}


def _fault(error: Exception) -> Answer:
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return {"fault": LARGE}
    # xgrammar says where in its source it was: [time] /path/file.cc:line: what
    why = _PLACE.sub("", " ".join(str(error).split()))
    return {"fault": INVALID, "why": why[:MAX_FAULT_CHARS]}


def _compiled(made: Any, job: Job, *, any_whitespace: bool) -> Any:
    """As XgrammarBackend.compile_grammar does (vLLM 0.32)."""
    separators = None if any_whitespace else (",", ":")
    match job.kind:
        case "json" | "json_object":
            return made.compile_json_schema(
                job.text, any_whitespace=any_whitespace, separators=separators
            )
        case "regex":
            return made.compile_regex(job.text)
        case "lark":
            return made.compile_lark(job.text)
        case "grammar":
            return made.compile_grammar(job.text)
    tag = json.loads(job.text)
    if "structures" not in tag:
        return made.compile_structural_tag(job.text)
    import xgrammar

    items = [
        xgrammar.StructuralTagItem(
            begin=one["begin"], schema=json.dumps(one["schema"]), end=one["end"]
        )
        for one in tag["structures"]
    ]
    return made.compile_structural_tag(items, tag["triggers"])


def in_fork(work: Callable[[], Answer], setup: Setup) -> Answer:
    """
    The work's answer, or which limit ended it.

    Args:
        work: What the fork does.
        setup: With the seconds of CPU and the bytes of memory that it may take.
    """
    reading, writing = os.pipe()
    our_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work_and_exit(work, writing, setup, our_pid)
    os.close(writing)
    try:
        data = _read(reading, time.monotonic() + setup.cpu_s * WALL_PER_CPU)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if data is None:
        return {"fault": BUSY}
    if data:
        answer: Answer = json.loads(data)
        return answer
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    # Memory that is refused ends C++ by abort().
    reasons: dict[int, str] = {signal.SIGPROF: SLOW, signal.SIGABRT: LARGE}
    return {"fault": reasons.get(killed_by, CRASHED)}


def _work_and_exit(work: Callable[[], Answer], writing: int, setup: Setup, parent_pid: int) -> None:
    try:
        die_with_parent(parent_pid)
        # What xgrammar and the C++ runtime say of it may quote the client.
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        most_bytes = _address_space_bytes() + setup.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        signal.setitimer(signal.ITIMER_PROF, setup.cpu_s)  # ends the fork: nothing handles it
        os.write(writing, json.dumps(work()).encode())
    finally:
        os._exit(0)


def _address_space_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _read(descriptor: int, deadline_s: float) -> bytes | None:
    """All that the fork writes; None if it is not over at the deadline."""
    data = b""
    while True:
        left_s = max(deadline_s - time.monotonic(), 0)
        if not select.select([descriptor], [], [], left_s)[0]:
            return None
        chunk = os.read(descriptor, _READ_BYTES)
        if not chunk:
            return data
        data += chunk


def setup_line(setup: Setup) -> bytes:
    """The first line that the process reads."""
    return json.dumps(asdict(setup)).encode() + b"\n"


def as_answer(line: bytes) -> Mapping[str, str]:
    """A line that it has written."""
    answer: Answer = json.loads(line)
    return answer


if __name__ == "__main__":
    main()
