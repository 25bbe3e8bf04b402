"""The same requests in the files that other tools read, so that they can judge ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.records import Item
from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.stored import Workload


def write_vllm_custom(workload: Workload, path: Path) -> None:
    """
    The measured requests for `vllm bench serve --dataset-name custom`.

    They keep their order and lengths only with `--disable-shuffle --custom-output-len -1`, and
    their text only with `--skip-chat-template` (a chat server applies its own). vLLM reads the file
    with pandas.

    Source: vLLM 0.32 benchmarks/datasets/datasets.py, CustomDataset.

    Raises:
        WorkloadError: the name does not end in .jsonl, or a request is not one text.
    """
    if path.suffix != ".jsonl":
        raise WorkloadError(f"vllm bench reads only .jsonl, and {path.name!r} is not")
    _write(path, [{"prompt": _text(i), "output_tokens": i.max_tokens} for i in workload.items])


def write_guidellm(workload: Workload, path: Path) -> None:
    """
    The measured requests for guidellm, with the columns that its mapper knows by default.

    Source: guidellm 0.8.1 data/preprocessors/mappers.py, GenerativeColumnMapper.

    Raises:
        WorkloadError: a request is not one text.
    """
    _write(path, [_guidellm_row(item) for item in workload.items])


def check_texts(workload: Workload) -> None:
    """
    Find out beforehand whether other tools can replay it.

    Raises:
        WorkloadError: a request is not one text.
    """
    for item in workload.items:
        _text(item)


def _guidellm_row(item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": _text(item), "output_tokens_count": item.max_tokens}
    if item.input_len_tokens is not None:
        row["prompt_tokens_count"] = item.input_len_tokens
    return row


def _text(item: Item) -> str:
    """The request's one text; other tools would send anything else differently."""
    if item.turn == 0 and item.conversation is None:
        if item.prompt is not None:
            return item.prompt
        messages = item.messages or []
        content = messages[0].get("content") if len(messages) == 1 else None
        if isinstance(content, str) and messages[0]["role"] == "user":
            return content
    raise WorkloadError(
        f"request {item.index} is not one text, which is all that other tools replay; "
        "use a workload of style text or text-completion"
    )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
