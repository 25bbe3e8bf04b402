"""`gemma-serve triton-check` against our own server: recorded from it, and replayed to it."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.commands import running
from tests.servers import Server

MODEL = "/v2/models/tiny"
ASKED = {"text_input": "The Rhine and the", "max_new_tokens": 8}
GREEDY = ASKED | {"do_sample": False}


def tensor(name: str, datatype: str, value: Any) -> dict[str, Any]:
    """An input of one element."""
    return {"name": name, "datatype": datatype, "shape": [1], "data": [value]}


def binary_request() -> dict[str, Any]:
    """An infer request with its text in bytes, which asks for bytes."""
    text = b"The Rhine"
    data = struct.pack("<I", len(text)) + text
    size = {"binary_data_size": len(data)}
    inputs = [
        {"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": size},
        tensor("max_new_tokens", "INT32", 8),
        tensor("do_sample", "BOOL", False),
    ]
    sent = {"id": "b", "inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(sent).encode()
    return {
        "path": f"{MODEL}/infer",
        "headers": {"Inference-Header-Content-Length": str(len(head))},
        "body_base64": base64.b64encode(head + data).decode(),
    }


INFER = {
    "id": "7",
    "inputs": [
        tensor("text_input", "BYTES", "The Rhine"),
        tensor("max_new_tokens", "INT32", 8),
        tensor("do_sample", "BOOL", False),
    ],
}
REQUESTS: dict[str, dict[str, Any]] = {
    "generate": {"path": f"{MODEL}/generate", "body": GREEDY | {"id": "7"}},
    "stream": {"path": f"{MODEL}/generate_stream", "body": GREEDY | {"stream": True}},
    # Gemma's generation_config.json samples where a request leaves it open.
    "open": {"path": f"{MODEL}/generate", "body": ASKED},
    "sampled": {"path": f"{MODEL}/generate", "body": ASKED | {"do_sample": True}},
    "infer": {"path": f"{MODEL}/versions/1/infer", "body": INFER},
    "binary": binary_request(),
    "refused": {"path": f"{MODEL}/generate", "body": {"max_new_tokens": 8}},
    "unknown": {"path": "/v2/models/none/generate", "body": GREEDY},
    "metadata": {"method": "GET", "path": MODEL},
    "config": {"method": "GET", "path": f"{MODEL}/config"},
    "ready": {"method": "GET", "path": f"{MODEL}/ready"},
}


def check(server: Server, log: Path, *words: str | Path) -> tuple[int, str]:
    """`gemma-serve triton-check`, to its end: exit code and output."""
    command = ["triton-check", "--url", server.base_url, *words]
    with running(command, log) as run:
        return run.ended(), run.output()


@pytest.fixture(scope="module")
def golden(tiny_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server says, recorded."""
    place = tmp_path_factory.mktemp("golden")
    lines = [{"name": name, "request": request} for name, request in REQUESTS.items()]
    requests = place / "requests.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("--record", requests, "--golden", place / "golden.jsonl")
    code, output = check(tiny_server, place / "log", *words)
    assert code == 0, output
    return place / "golden.jsonl"


def pairs_of(golden: Path) -> dict[str, dict[str, Any]]:
    """The pairs by name."""
    said = [json.loads(line) for line in golden.read_text().splitlines()]
    return {pair["name"]: pair for pair in said}


def test_what_our_server_says(golden: Path) -> None:
    """The recorded answers are what their requests ask for."""
    pairs = pairs_of(golden)
    statuses = {name: pair["response"]["status"] for name, pair in pairs.items()}

    assert statuses == dict.fromkeys(REQUESTS, 200) | {"refused": 400, "unknown": 404}
    text = pairs["generate"]["response"]["body"]["text_output"]
    assert text
    events = pairs["stream"]["response"]["events"]
    assert "".join(event["text_output"] for event in events).strip() == text
    assert len(events) > 1
    assert "body_base64" in pairs["binary"]["response"]
    varying = {name for name, pair in pairs.items() if pair.get("varies")}
    assert varying == {"open", "sampled"}


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_the_same_server(
    tiny_server: Server, golden: Path, tmp_path: Path, concurrency: str
) -> None:
    """Replayed to the server that it was recorded from, nothing differs but a stream's cuts."""
    words = ("--golden", golden, "--concurrency", concurrency, "--json")
    code, output = check(tiny_server, tmp_path / "log", *words)

    report = json.loads(output)
    assert code == report["exit_code"] == 0
    assert {pair["name"] for pair in report["pairs"]} == set(REQUESTS)
    # Tokens that are ready at once share an event.
    cuts = [pair for pair in report["pairs"] if pair["verdict"] != "same"]
    assert {pair["name"] for pair in cuts} <= {"stream"}
    kinds = {found["where"] for pair in cuts for found in pair["differences"]}
    assert kinds <= {"number of events"}, output


def test_the_same_server_in_words(tiny_server: Server, golden: Path, tmp_path: Path) -> None:
    """The last line sums up."""
    pairs = pairs_of(golden)
    del pairs["stream"]
    whole = tmp_path / "whole.jsonl"
    whole.write_text("".join(json.dumps(pair) + "\n" for pair in pairs.values()))
    code, output = check(tiny_server, tmp_path / "log", "--golden", whole)

    assert code == 0, output
    assert output.splitlines()[-1] == (
        "10 pairs (--text exact): 10 the same, text not compared in 2."
    )


def test_a_changed_golden_file(tiny_server: Server, golden: Path, tmp_path: Path) -> None:
    """What another server would have said is found, and how grave it is."""
    pairs = pairs_of(golden)
    pairs["generate"]["response"]["body"]["text_output"] += "!"
    pairs["stream"]["response"]["events"][0]["text_output"] = "?"
    pairs["infer"]["response"]["body"]["outputs"][0]["datatype"] = "FP32"
    pairs["refused"]["response"]["body"]["error"] = "other words"
    pairs["unknown"]["response"]["status"] = 200
    pairs["metadata"]["response"]["body"]["inputs"].append(tensor("n", "INT32", 1))
    raw = base64.b64decode(pairs["binary"]["response"]["body_base64"])
    pairs["binary"]["response"]["body_base64"] = base64.b64encode(raw[:-1] + b"?").decode()
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(json.dumps(pair) + "\n" for pair in pairs.values()))

    code, output = check(tiny_server, tmp_path / "log", "--golden", changed, "--json")

    report = json.loads(output)
    assert code == report["exit_code"] == 1
    assert {pair["name"]: pair["verdict"] for pair in report["pairs"]} == dict.fromkeys(
        REQUESTS, "same"
    ) | {
        "generate": "text",
        "stream": "text",
        "infer": "breaks",
        "binary": "text",
        "refused": "harmless",
        "unknown": "breaks",
        "metadata": "breaks",
    }
