"""workload.jsonl: bytes, SHA-256, and the way back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.records import Item
from benchmarks.workload import (
    WorkloadError,
    is_stored,
    materialise,
    parse_spec,
    read_workload,
    replay_stored,
    write_workload,
)
from benchmarks.workload.stored import encode

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=3)
FLOATS = st.floats(0, 1e9)
PROMPTS = st.one_of(
    st.fixed_dictionaries({"messages": MESSAGES}),
    st.fixed_dictionaries({"prompt": st.text()}),
    st.fixed_dictionaries({"prompt_token_ids": st.lists(st.integers(0, 2**31), min_size=1)}),
)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """Any request."""
    return Item(
        index=draw(st.integers(0, 10**6)),
        max_tokens=draw(st.integers(1, 10**6)),
        input_len_tokens=draw(st.none() | st.integers(1, 10**6)),
        at_s=draw(st.none() | FLOATS),
        conversation=draw(st.none() | st.text()),
        turn=draw(st.integers(0, 50)),
        think_s=draw(FLOATS),
        prefix_group=draw(st.none() | st.integers(-50, 50)),
        **draw(PROMPTS),
    )


@given(st.lists(items(), min_size=1, max_size=3), st.lists(items(), max_size=2))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, measured: list[Item], warm_up: list[Item]
) -> None:
    """Any requests come back from the file as they were, and give the same bytes again."""
    path = tmp_path_factory.mktemp("stored") / "workload.jsonl"
    path.write_bytes(encode(measured, warm_up))
    found = read_workload(path)

    assert (found.items, found.warm_up) == (measured, warm_up)
    assert encode(found.items, found.warm_up) == path.read_bytes()


def test_lines() -> None:
    """A line has sorted keys and no key without a value; warm-up comes last and is marked."""
    measured = Item(0, 4, prompt="é\u2028", at_s=0.5)
    warm = Item(0, 4, messages=[{"role": "assistant", "content": None}])

    assert encode([measured], [warm]).decode() == (
        '{"at_s":0.5,"index":0,"max_tokens":4,"prompt":"\\u00e9\\u2028","think_s":0.0,"turn":0}\n'
        '{"index":0,"max_tokens":4,"messages":[{"content":null,"role":"assistant"}],'
        '"think_s":0.0,"turn":0,"warm_up":true}\n'
    )


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    """Making, writing and reading agree on the SHA-256, which is that of the file's bytes."""
    spec = parse_spec({"kind": "synthetic", "input": "3-9", "output": 4})
    made = materialise(spec, 1, 4, 2)
    written = write_workload(made, tmp_path / "workload.jsonl")
    found = read_workload(tmp_path / "workload.jsonl")

    expected = hashlib.sha256((tmp_path / "workload.jsonl").read_bytes()).hexdigest()
    assert made.sha256 == written == found.sha256 == expected
    assert (found.items, found.warm_up) == (made.items, made.warm_up)
    assert found.description.startswith("replay of workload.jsonl; 4 requests, ")


@pytest.mark.parametrize("count", [None, 4])
def test_replay_of_all_has_the_same_sha256(tmp_path: Path, count: int | None) -> None:
    """A workload.jsonl given as a file is replayed to the byte."""
    made = materialise(parse_spec({"kind": "synthetic", "input": 9, "output": 4}), 1, 4, 2)
    write_workload(made, tmp_path / "workload.jsonl")
    spec = parse_spec({"kind": "file", "path": tmp_path / "workload.jsonl"})
    again = materialise(spec, 99, count, 2)

    assert again.sha256 == made.sha256
    assert again.description.startswith("replay of workload.jsonl; 4 requests, ")


def test_replay_of_a_part(tmp_path: Path) -> None:
    """Fewer requests than a workload.jsonl has are its first ones; more are refused."""
    made = materialise(parse_spec({"kind": "synthetic", "input": 9, "output": 4}), 1, 4, 2)
    write_workload(made, tmp_path / "workload.jsonl")
    spec = parse_spec({"kind": "file", "path": tmp_path / "workload.jsonl"})

    assert materialise(spec, 1, 3, 1).items == made.items[:3]
    assert materialise(spec, 1, 3, 1).warm_up == made.warm_up[:1]
    with pytest.raises(WorkloadError, match="3 warm-up requests were asked for, and workload"):
        materialise(spec, 1, 3, 3)
    with pytest.raises(WorkloadError, match="which is replayed as it is; leave out output"):
        materialise(spec.model_copy(update={"shuffle": True}), 1, 3, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "prefix", "num_groups": 2, "prefix_tokens": 3},
        {"kind": "multi_turn", "turns": 2},
    ],
)
def test_kind_is_kept(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Whatever its file is called, a stored workload is known by its lines, and is what it was."""
    made = materialise(parse_spec(fields | {"input": 9, "output": 4}), 1, 4, 2)
    path = tmp_path / "chat.jsonl"
    write_workload(made, path)

    assert is_stored(path)
    assert replay_stored(path).spec.kind == made.spec.kind
    # A beginning has the same kind, and its own SHA-256.
    part = replay_stored(path, 2, 0)
    assert (part.spec.kind, part.items, part.warm_up) == (made.spec.kind, made.items[:2], [])
    assert part.sha256 == write_workload(part, tmp_path / "part.jsonl") != made.sha256


def test_kind_by_what_requests_have(tmp_path: Path) -> None:
    """A trace is known by its times; requests that have nothing in common are a file's."""
    for more, kind in (({}, "file"), ({"at_s": 0.5}, "trace")):
        (tmp_path / "w.jsonl").write_text(json.dumps(GOOD | more) + "\n")
        assert read_workload(tmp_path / "w.jsonl").spec.kind == kind


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"prompt": "a", "index": 4}', "\x00"])
def test_what_is_no_stored_workload(tmp_path: Path, content: str) -> None:
    """Other files are told from it by their first line, and none raises."""
    path = tmp_path / "workload.jsonl"
    path.write_text(content)

    assert not is_stored(path)
    assert not is_stored(tmp_path)


GOOD = {"index": 0, "max_tokens": 4, "prompt": "a"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "w.jsonl line 2 is no JSON: "),
        ("[]", "w.jsonl line 2 is no JSON object"),
        (json.dumps(GOOD | {"colour": 1}), "w.jsonl line 2 has 'colour', which no request has"),
        (json.dumps({"index": 0, "prompt": "a"}), "w.jsonl line 2: max_tokens: "),
        (json.dumps(GOOD | {"max_tokens": 0}), "w.jsonl line 2: max_tokens=0 is below 1"),
        (
            json.dumps({"index": 0, "max_tokens": 1}),
            "w.jsonl line 2 has no prompt; give exactly one of messages, prompt and prompt_tok",
        ),
        (
            json.dumps(GOOD | {"prompt_token_ids": [1]}),
            "w.jsonl line 2 has prompt and prompt_token_ids; give exactly one of",
        ),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, sentence: str) -> None:
    """A line that is no request is named by its number, with what is wrong."""
    path = tmp_path / "w.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")

    with pytest.raises(WorkloadError) as caught:
        read_workload(path)

    assert str(caught.value).startswith(sentence)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there, or has no requests, is one sentence."""
    with pytest.raises(WorkloadError, match=r"w\.jsonl' cannot be read: No such file"):
        read_workload(tmp_path / "w.jsonl")
    (tmp_path / "w.jsonl").write_text("\n")
    with pytest.raises(WorkloadError, match=r"w\.jsonl has no measured requests"):
        read_workload(tmp_path / "w.jsonl")


def test_number_that_json_does_not_have() -> None:
    """Infinity, which Python's parser reads out of 1e999, is refused and not written."""
    with pytest.raises(WorkloadError, match=r"^request 3 cannot be written as JSON: "):
        encode([Item(3, 1, messages=[{"role": "user", "content": float("inf")}])], [])
