"""The flight recorder: a ring of lines that the benchmarks replay, and that say nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from benchmarks.records import Run
from benchmarks.workload.spec import Trace
from benchmarks.workload.trace import read_trace
from gemma_serve.errors import StartupError
from gemma_serve.flight import BLOCK_TOKENS, Flight, FlightRecorder, open_recorder
from gemma_serve.profile.schema import Observability
from tests.conftest import ServeProfile

OUTCOME = {"method": "POST", "route": "/v1/completions", "status": "200"}
PROMPT = list(range(BLOCK_TOKENS + 10))


def test_hash_ids(tmp_path: Path) -> None:
    """Equal beginnings have equal ids, block by block; another start of the server has others."""
    recorder = FlightRecorder(str(tmp_path / "flight.jsonl"), 10_000)
    one, same = list(recorder.hashes(PROMPT)), list(recorder.hashes([*PROMPT[:-1], 7]))

    assert len(one) == 2
    assert (one[0] == same[0], one[1] == same[1]) == (True, False)
    assert list(recorder.hashes([7, *PROMPT[1:]]))[1] != one[1]
    assert list(FlightRecorder(str(tmp_path / "other.jsonl"), 10_000).hashes(PROMPT)) != one


def test_ring(tmp_path: Path) -> None:
    """The file and the one before it never hold more than the size; the newest are there."""
    path = tmp_path / "flight.jsonl"
    recorder = FlightRecorder(str(path), 20_000)
    for number in range(500):
        flight = Flight(recorder)
        flight.tokenised([1, 2, 3])
        recorder.keep(flight, OUTCOME, {"answer_tokens": number, "ttft_ms": 12.5})
    recorder.keep(Flight(recorder), OUTCOME)  # never tokenised

    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["flight.jsonl", "flight.jsonl.1"]
    assert 10_000 < sum(file.stat().st_size for file in files) <= 20_000
    rows = read_trace(Trace(path=path))
    assert rows[-1].output_length == 499
    assert rows[-1].input_length == 3
    assert _lines(path)[-1]["ttft_ms"] == 12.5


def test_refused_before_it_was_tokenised(tmp_path: Path) -> None:
    """What was refused is there with an estimate of its length; the replay plays what was load."""
    path = tmp_path / "flight.jsonl"
    recorder = FlightRecorder(str(path), 20_000)
    for status, num_bytes in (
        *(("429", 4000), ("503", 4000), ("413", 9_000_000), ("400", 80), ("499", 1)),
        *(("401", 80), ("404", 80), ("405", 80), ("200", 80), ("503", 0)),  # no load
    ):
        flight = Flight(recorder, lambda size: min(size // 4, 2048), num_bytes=num_bytes)
        recorder.keep(flight, {**OUTCOME, "status": status}, {"reason": f"reason {status}"})

    lines = _lines(path)
    assert [(line["status"], line["input_length"]) for line in lines] == [
        *(("429", 1000), ("503", 1000), ("413", 2048), ("400", 20), ("499", 1)),
    ]
    for line in lines:
        assert line["reason"] == f"reason {line['status']}"
        assert (line["estimated"], line["hash_ids"], line["ttft_ms"]) == (True, [], None)
    assert [row.status for row in read_trace(Trace(path=path))] == ["429", "503", "499"]


def test_no_such_directory() -> None:
    """A file that can't be written ends the start, with a sentence."""
    with pytest.raises(StartupError, match=r"flight_recorder '/no/such/file' can't be written"):
        open_recorder(Observability(flight_recorder="/no/such/file"))


def test_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """What a full disk does not take is counted; nobody's log is filled with it."""
    recorder = FlightRecorder("/dev/full", 20_000)
    flight = Flight(recorder)
    flight.tokenised([1, 2, 3])
    before = dropped_lines()

    recorder.keep(flight, OUTCOME)

    assert dropped_lines() == before + 1
    assert capsys.readouterr().err == ""


def dropped_lines() -> float:
    """As /metrics has it."""
    return REGISTRY.get_sample_value("gemma_serve_log_lines_dropped_total") or 0.0


def test_recorded_requests(serve_profile: ServeProfile, tiny_profile: Path, tmp_path: Path) -> None:
    """
    Requests of every API are there with the lengths of their usage, and without a word.

    Played back, they are the same requests in all that was recorded of them.
    """
    path, copy = tmp_path / "flight.jsonl", tmp_path / "before.jsonl"
    recorded = [f"observability.flight_recorder={path}"]
    with serve_profile(tiny_profile, recorded) as server, server.client() as client:
        chat = {"messages": [{"role": "user", "content": "xylophone"}], "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=chat)
        usage = answer.json()["usage"]
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
        inferred = client.post(
            "/v2/models/tiny/generate", json={"text_input": "xylophone", "max_new_tokens": 2}
        )
        assert inferred.status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={"prompt": "a", "max_tokens": 4000}, timeout=0.3)
        for ending in (300, 301):
            ids = {"prompt": [2, *[400] * 600, ending], "max_tokens": 3, "ignore_eos": True}
            assert client.post("/v1/completions", json=ids).status_code == 200
        assert client.post("/tokenize", json={"prompt": "a"}).status_code == 200
        assert client.post("/v1/completions", json={"prompt": "a", "n": 999}).status_code == 400
        assert client.post("/v1/nothing", json={"prompt": "a"}).status_code == 404
        client.get("/readyz")

        shutil.copy(path, copy)
        run = _replayed(copy, server.base_url)

    lines = _lines(copy)
    chats = [line for line in lines if line["route"] == "/v1/chat/completions"]
    assert [line["status"] for line in chats] == ["200", "200"]
    assert chats[0]["input_length"] == usage["prompt_tokens"]
    assert chats[0]["output_length"] == usage["completion_tokens"]
    assert chats[0]["hash_ids"] == chats[1]["hash_ids"]
    for line in chats:  # they are whole answers, whose first token nobody saw by itself
        assert 0 < line["ttft_ms"] < line["duration_ms"]
    (refused,) = [line for line in lines if line["status"] == "400"]
    assert (refused["route"], refused["estimated"]) == ("/v1/completions", True)
    assert not [line for line in lines if line["status"] == "404"]
    assert any("generate" in line["route"] for line in lines)
    assert "xylophone" not in path.read_text()

    played = [line for line in lines if line["route"] != "/tokenize" and line is not refused]
    assert (run.load.mode, run.metrics.full_run.num_ok) == ("trace", len(played))
    after = _lines(path)[len(lines) :]
    assert _shapes(played) <= _shapes(after)
    assert _num_blocks(after) == _num_blocks(played) == [1, 2]


def _replayed(flight: Path, url: str) -> Run:
    command = [sys.executable, "-m", "benchmarks", "replay", str(flight), url]
    options = ["--speed", "2", "--warm-up", "0", "--json", "--out", str(flight.with_suffix(""))]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return Run.model_validate_json(done.stdout)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _shapes(lines: list[dict[str, Any]]) -> Counter[tuple[int, int]]:
    return Counter((line["input_length"], max(1, line["output_length"])) for line in lines)


def _num_blocks(lines: list[dict[str, Any]]) -> list[int]:
    """How many different first and second blocks the prompts of two have."""
    prompts = [line["hash_ids"] for line in lines if len(line["hash_ids"]) == 2]
    return [len(set(blocks)) for blocks in zip(*prompts, strict=True)]
