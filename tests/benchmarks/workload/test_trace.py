"""A Mooncake trace: times, lengths, and what is shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import Item
from benchmarks.workload import Workload, WorkloadError, materialise, parse_spec

BLOCK = 4
ROWS = [
    # input_length 10 is blocks of 4, 4 and 2 tokens
    {"timestamp": 1000, "input_length": 10, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 3000, "input_length": 7, "output_length": 0, "hash_ids": [0, 3]},
    {"timestamp": 2000, "input_length": 11, "output_length": 6, "hash_ids": [0, 1, 2]},
]


def replay(
    tmp_path: Path, rows: list[Any], count: int | None = None, num_warm_up: int = 0, **fields: Any
) -> Workload:
    """The workload of a trace."""
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = parse_spec({"kind": "trace", "path": path, "block_tokens": BLOCK, **fields})
    return materialise(spec, 1, count, num_warm_up)


def tokens(item: Item) -> list[Any]:
    """The prompt's tokens, or words."""
    if item.messages:
        return list(item.messages[0]["content"].split())
    return list(item.prompt_token_ids or [])


def test_times_and_lengths(tmp_path: Path) -> None:
    """Requests come in the order of their times, in seconds after the first."""
    items = replay(tmp_path, ROWS).items

    assert [i.at_s for i in items] == [0.0, 1.0, 2.0]
    assert [len(tokens(i)) for i in items] == [i.input_len_tokens for i in items] == [10, 11, 7]
    assert [i.max_tokens for i in items] == [5, 6, 1]


def test_speedup(tmp_path: Path) -> None:
    """Twice the speed is half the time."""
    assert [i.at_s for i in replay(tmp_path, ROWS, speedup=2).items] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("style", ["ids", "text"])
def test_equal_hash_ids_are_equal_blocks(tmp_path: Path, style: str) -> None:
    """Blocks of one hash id are equal as far as they reach, and of another id different."""
    first, second, third = (tokens(item) for item in replay(tmp_path, ROWS, style=style).items)

    # Blocks 0 and 1 are whole in the first two; block 2 has 2 tokens in one and 3 in the other.
    assert first == second[:10]
    assert third[:4] == first[:4]
    assert third[4:] != first[4:7]


def test_ids_of_blocks_differ_from_the_first(tmp_path: Path) -> None:
    """Blocks of different hash ids differ in their first token."""
    rows = [
        {"timestamp": n, "input_length": 3, "output_length": 1, "hash_ids": [n]} for n in range(50)
    ]

    assert len({tokens(item)[0] for item in replay(tmp_path, rows).items}) == 50


def test_without_hash_ids(tmp_path: Path) -> None:
    """Rows without hash ids share nothing."""
    row = {"timestamp": 0, "input_length": 9, "output_length": 1}
    first, second = replay(tmp_path, [row, row]).items

    assert tokens(first)[0] != tokens(second)[0]
    assert len(tokens(first)) == 9


def test_warm_up(tmp_path: Path) -> None:
    """Warm-up has the trace's lengths and sharing, other tokens, and no times."""
    workload = replay(tmp_path, ROWS, 3, 2)
    warm = workload.warm_up

    assert [item.at_s for item in warm] == [None, None]
    assert [len(tokens(item)) for item in warm] == [10, 11]
    assert tokens(warm[0]) == tokens(warm[1])[:10]
    assert tokens(warm[0])[0] != tokens(workload.items[0])[0]


def test_max_model_len(tmp_path: Path) -> None:
    """Requests longer than the model takes are left out; the first that stays is at 0."""
    # 10 + 5 = 15, 11 + 6 = 17, 7 + 1 = 8
    items = replay(tmp_path, ROWS, max_model_len=14).items

    assert [(i.at_s, i.input_len_tokens) for i in items] == [(0.0, 7)]


def test_number_of_requests(tmp_path: Path) -> None:
    """Fewer requests are the trace's first ones; more are refused."""
    assert replay(tmp_path, ROWS, 2).items == replay(tmp_path, ROWS).items[:2]
    with pytest.raises(WorkloadError, match=r"4 requests were asked for, and trace.jsonl has 3"):
        replay(tmp_path, ROWS, 4)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            ROWS[0] | {"hash_ids": [0, 1]},
            "trace.jsonl line 1: input_length=10 is 3 blocks of 4 tokens, and there are 2 "
            "hash_ids; set block_tokens to the trace's",
        ),
        (
            {"timestamp": 0, "input_length": 3},
            "trace.jsonl line 1: output_length: field required; ",
        ),
        (ROWS[0] | {"input_length": 0}, "trace.jsonl line 1: input_length: input should be "),
        (ROWS[0] | {"hash_ids": [-1, 0, 1]}, "trace.jsonl line 1: hash_ids.0: input should be "),
    ],
)
def test_wrong_rows(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    """A row that is no request of a trace is named by its line, with what is wrong."""
    with pytest.raises(WorkloadError) as caught:
        replay(tmp_path, [row])

    assert str(caught.value).startswith(sentence)
