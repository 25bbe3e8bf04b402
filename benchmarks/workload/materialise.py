"""From a spec and a seed to the requests themselves: the same seed, the same bytes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.records import Item
from benchmarks.workload import files, synthetic, trace
from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.spec import (
    File,
    Images,
    MultiTurn,
    Prefix,
    Synthetic,
    Trace,
    WorkloadSpec,
)
from benchmarks.workload.stored import Workload, is_stored, sha256, summary
from benchmarks.workload.streams import Streams
from benchmarks.workload.text import Text

Made = tuple[list[Item], list[Item], str]  # measured, warm-up, description


def materialise(
    spec: WorkloadSpec,
    seed: int,
    num_requests: int | None,
    num_warm_up: int,
    tokenizer: Path | None = None,
) -> Workload:
    """
    Make every request of a workload before the first is sent.

    Args:
        spec: What is asked for.
        seed: 0 or more.
        num_requests: Measured ones, each turn of a conversation one of them. None is all that a
            file or trace has, or num_conversations x turns.
        num_warm_up: Of the same shape, with other prompts, not measured.
        tokenizer: A tokenizer.json, or a checkpoint's directory: text is then exact to the token.

    Raises:
        WorkloadError: the spec, a file or the numbers do not work; nothing was made.
    """
    if num_warm_up < 0 or (num_requests is not None and num_requests < 1):
        raise WorkloadError(
            f"{num_requests} requests and {num_warm_up} for the warm-up were asked for; "
            "ask for at least 1, and at least 0"
        )
    if isinstance(spec, File) and is_stored(spec.path):
        return files.replay_file(spec, num_requests, num_warm_up)
    text = Text(tokenizer)
    items, warm_up, description = _make(spec, seed, num_requests, num_warm_up, text)
    return Workload(
        items=items,
        warm_up=warm_up,
        spec=spec,
        seed=seed,
        sha256=sha256(items, warm_up),
        description=f"{description}; {summary(items)}",
    )


def _make(
    spec: WorkloadSpec, seed: int, num_requests: int | None, num_warm_up: int, text: Text
) -> Made:
    if isinstance(spec, File):
        return _from_file(spec, seed, num_requests, num_warm_up, text)
    if isinstance(spec, Trace):
        return _from_trace(spec, seed, num_requests, num_warm_up, text)
    count = _count(spec, num_requests)
    measured = _generate(spec, Streams(seed, "measured"), count, text)
    warm_up = _generate(spec, Streams(seed, "warm_up"), num_warm_up, text)
    return measured, warm_up, _described(spec, text)


def _described(spec: WorkloadSpec, text: Text) -> str:
    return f"{spec.describe()}; {text.counted_by}" if spec.counts_text() else spec.describe()


def _generate(spec: WorkloadSpec, streams: Streams, count: int, text: Text) -> list[Item]:
    if isinstance(spec, Synthetic):
        return synthetic.synthetic_items(spec, streams, count, text)
    if isinstance(spec, Prefix):
        return synthetic.prefix_items(spec, streams, count, text)
    if isinstance(spec, MultiTurn):
        return synthetic.multi_turn_items(spec, streams, count, text)
    assert isinstance(spec, Images)
    return synthetic.image_items(spec, streams, count, text)


def _count(spec: WorkloadSpec, num_requests: int | None) -> int:
    if isinstance(spec, MultiTurn) and spec.num_conversations is not None:
        own = spec.num_conversations * spec.turns
        if num_requests not in (None, own):
            raise WorkloadError(
                f"{num_requests} requests were asked for, and {spec.num_conversations} "
                f"conversations of {spec.turns} turns are {own}; give one of the two"
            )
        return own
    if num_requests is None:
        raise WorkloadError(f"a workload of kind {spec.kind} needs a number of requests")
    return num_requests


def _from_file(
    spec: File, seed: int, num_requests: int | None, num_warm_up: int, text: Text
) -> Made:
    found = files.find(spec, seed, text)
    items, warm_up = files.file_items(spec, found, seed, num_requests, num_warm_up, text)
    left_out = f"; {found.num_left_out} left out" if found.num_left_out else ""
    return items, warm_up, f"{_described(spec, text)}{left_out}"


def _from_trace(
    spec: Trace, seed: int, num_requests: int | None, num_warm_up: int, text: Text
) -> Made:
    rows = trace.read_trace(spec)
    for asked, what in ((num_requests or 1, "requests"), (num_warm_up, "warm-up requests")):
        if asked > len(rows):
            raise WorkloadError(
                f"{asked} {what} were asked for, and {spec.path.name} has {len(rows)} that fit; "
                "ask for fewer"
            )
    measured = trace.trace_items(spec, rows[:num_requests], Streams(seed, "measured"), text)
    warm_up = trace.trace_items(spec, rows[:num_warm_up], Streams(seed, "warm_up"), text)
    return measured, warm_up, _described(spec, text)
