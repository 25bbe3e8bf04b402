"""The same requests in the files of the tools that judge ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workload import (
    Workload,
    WorkloadError,
    materialise,
    parse_spec,
    write_guidellm,
    write_vllm_custom,
)


def made(**fields: Any) -> Workload:
    """Three requests and a warm-up."""
    fields = {"kind": "synthetic", "input": 5, "output": "2-9"} | fields
    return materialise(parse_spec(fields), 1, 3, 1)


def rows(path: Path) -> list[dict[str, Any]]:
    """What was written."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_vllm_custom(tmp_path: Path) -> None:
    """vllm bench's file has the measured prompts in order, with their output lengths."""
    workload = made(style="text-completion")
    write_vllm_custom(workload, tmp_path / "judge.jsonl")

    assert rows(tmp_path / "judge.jsonl") == [
        {"prompt": item.prompt, "output_tokens": item.max_tokens} for item in workload.items
    ]


def test_guidellm(tmp_path: Path) -> None:
    """guidellm's file has the text of a chat's one message, and both lengths."""
    workload = made()
    write_guidellm(workload, tmp_path / "judge.jsonl")

    texts = [item.messages[0]["content"] for item in workload.items if item.messages]
    assert rows(tmp_path / "judge.jsonl") == [
        {"prompt": text, "output_tokens_count": item.max_tokens, "prompt_tokens_count": 5}
        for text, item in zip(texts, workload.items, strict=True)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"style": "ids"},
        {"kind": "multi_turn", "turns": 2},
        {"kind": "images", "width": 8, "height": 8},
    ],
)
def test_what_is_not_one_text(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Ids, conversations and images are refused: another tool would send something else."""
    for write in (write_vllm_custom, write_guidellm):
        with pytest.raises(WorkloadError, match="request 0 is not one text, which is all that"):
            write(made(**fields), tmp_path / "judge.jsonl")
    assert not (tmp_path / "judge.jsonl").exists()


def test_name_that_vllm_does_not_read(tmp_path: Path) -> None:
    """vllm bench takes a file by its name, so another name is refused."""
    with pytest.raises(WorkloadError, match=r"reads only .jsonl, and 'judge.json' is not"):
        write_vllm_custom(made(), tmp_path / "judge.json")
