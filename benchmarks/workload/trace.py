"""
Items from a Mooncake trace: its times, lengths, and shared blocks of tokens.

A flight record of gemma-serve is one that says with each request how it ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.records import Item
from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.prompts import Part, writer
from benchmarks.workload.recorded import entries
from benchmarks.workload.spec import Trace
from benchmarks.workload.streams import Purpose, Streams
from benchmarks.workload.text import Text

# How a request with no token ends that would have had some: it was load all the same. HTTP's
# statuses, 499 for a client that left, and gRPC's.
CUT_SHORT = frozenset({"429", "499", "500", "503", "504", "529", "CANCELLED", "DEADLINE_EXCEEDED"})
CUT_SHORT |= {"INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}


class Row(BaseModel):
    """A line of the trace; keys that we do not use are left alone."""

    model_config = ConfigDict(frozen=True)

    timestamp: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # milliseconds
    input_length: Annotated[int, Field(ge=1)]
    output_length: Annotated[int, Field(ge=0)]
    hash_ids: list[Annotated[int, Field(ge=0)]] = []
    status: str | None = None  # of a flight record

    @property
    def generates(self) -> bool:
        """Whether it was more than a prompt that was counted, or refused for what it asked."""
        return self.output_length > 0 or self.status is None or self.status in CUT_SHORT


def read_trace(spec: Trace) -> list[Row]:
    """
    The trace's requests in the order of their times, without those too long or never generated.

    Raises:
        WorkloadError: a line is no request, or its hash ids do not fit block_tokens.
    """
    rows = [_row(entry, where, spec.block_tokens) for where, entry in entries(spec.path)]
    limit = spec.max_model_len or math.inf
    fitting = [
        row
        for row in rows
        if row.generates and row.input_length + max(1, row.output_length) <= limit
    ]
    if not fitting:
        raise WorkloadError(f"{spec.path.name} has no request that fits; raise max_model_len")
    return sorted(fitting, key=lambda row: row.timestamp)


def check_is_trace(path: Path) -> None:
    """
    Look at the first line of a file.

    Raises:
        WorkloadError: there is none, or it is no request of a trace.
    """
    try:
        _, first = next(entries(path), ("", {}))
    except WorkloadError:
        first = {}
    if not {"timestamp", "input_length", "output_length"} <= first.keys():
        raise WorkloadError(
            f"{path} is no flight record, whose lines have timestamp, input_length, output_length "
            "and hash_ids; give the file that observability.flight_recorder names in the profile "
            "of a server"
        )


def _row(entry: dict[str, Any], where: str, block_tokens: int) -> Row:
    try:
        row = Row.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise WorkloadError(
            f"{where}: {name}: {first['msg'].lower()}; a trace has timestamp (ms), input_length, "
            "output_length and hash_ids"
        ) from error
    blocks = math.ceil(row.input_length / block_tokens)
    if row.hash_ids and len(row.hash_ids) != blocks:
        raise WorkloadError(
            f"{where}: input_length={row.input_length} is {blocks} blocks of {block_tokens} "
            f"tokens, and there are {len(row.hash_ids)} hash_ids; set block_tokens to the trace's"
        )
    return row


def trace_items(spec: Trace, rows: Sequence[Row], streams: Streams, text: Text) -> list[Item]:
    """
    An item a row.

    Warm-up has the same lengths and the same sharing, other tokens, and no times of its own.
    """
    write = writer(spec.style, text, (spec.id_low, spec.id_high), streams.seed)
    first = [] if spec.bos_id is None else [spec.bos_id]
    began_ms = rows[0].timestamp if rows else 0.0
    items = []
    for index, row in enumerate(rows):
        at_s = (row.timestamp - began_ms) / 1000 / spec.speedup
        item = Item(
            index,
            max(1, row.output_length),
            input_len_tokens=row.input_length,
            at_s=at_s if streams.phase == "measured" else None,
            **write(_parts(row, index, spec.block_tokens, streams)),
        )
        if item.prompt_token_ids:
            item.prompt_token_ids[: len(first)] = first
        items.append(item)
    return items


def _parts(row: Row, index: int, block_tokens: int, streams: Streams) -> list[Part]:
    """A block a hash id, the last one cut to the prompt's length; without ids, one part alone."""
    if not row.hash_ids:
        rng = streams.get(Purpose.PROMPT, index)
        return [Part(rng, row.input_length, streams.number(index))]
    return [
        Part(
            streams.get(Purpose.BLOCK, hash_id),
            min(block_tokens, row.input_length - place * block_tokens),
            streams.number(hash_id),
        )
        for place, hash_id in enumerate(row.hash_ids)
    ]
