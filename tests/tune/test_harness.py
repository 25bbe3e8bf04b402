"""The harness as a process: asked, watched, and ended with its servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_serve.errors import StartupError
from gemma_serve.tune import harness
from gemma_serve.tune.harness import (
    Method,
    TrialError,
    check_harness,
    compare,
    last_words,
    lengths,
)

PROFILE = "gemma-3-270m"
BROKEN = f"profile:{PROFILE},--set dtype=fp9"


def test_words_of_the_method() -> None:
    """The load and the pairs are the harness's own options; a profile's itl is its tpot."""
    method = Method(concurrency=16, requests=64, slo={"ttft_ms": 500.0, "itl_ms": 50.5})
    words = " ".join(method.words())
    assert words == (
        "--concurrency 16 --workload synthetic --input 128 --output 64 --looks 8 --aa-pairs 4 "
        "--requests 64 --slo ttft_ms=500,tpot_ms=50.5"
    )
    assert method.num_blocks == 24


def test_lengths_of_a_file_are_its_own(tmp_path: Path) -> None:
    """The harness refuses lengths that a file would not have; those that are given are passed."""
    file = tmp_path / "chat.jsonl"
    file.touch()

    assert lengths("synthetic", None, None) == ("128", "64")
    assert lengths("prefix", "64-256", None) == ("64-256", "64")
    assert lengths(str(file), None, "32") == (None, "32")
    words = Method(8, str(file), *lengths(str(file), None, None)).words()
    assert not {"--input", "--output"} & set(words)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            "benchmarks: profile:x ended with code 3 before it was ready; its last words:\n"
            "  start        1.0 s\ngemma-serve: The port 8000 is taken; use another.\n",
            "The port 8000 is taken; use another.",
        ),
        (
            "Offering c=8...\nbenchmarks: looks after [2] pairs were asked for; give more.\n",
            "looks after [2] pairs were asked for; give more.",
        ),
        ("Traceback\nValueError: no\n", "ValueError: no"),
        ("\n", "the harness said nothing"),
    ],
)
def test_last_words(log: str, line: str) -> None:
    """Of a log, the server's own sentence is the reason, else the harness's."""
    assert last_words(log) == line


@pytest.mark.parametrize(
    ("log", "side"),
    [
        ("Hi\nbenchmarks: profile:x,--set a=1 ended with code 3 before it was ready; its", "a"),
        ("benchmarks: profile:x,--set a=1 was not ready after 900 s; its last words:\n", "a"),
        ("benchmarks: profile:x ended with code -9 before it was ready; its last words:\n", "b"),
        ("benchmarks: profile:x ended with code 1 while it was needed; its last words:\n", None),
        ("benchmarks: profile:y ended with code 3 before it was ready; its last words:\n", None),
        ("Traceback\nValueError: no\n", None),
    ],
)
def test_who_did_not_start(log: str, side: str | None) -> None:
    """A server that ends later has started, and tells nothing of its settings."""
    assert harness._not_started(log, "profile:x,--set a=1", "profile:x") == side


def test_harness_is_here() -> None:
    """In a checkout the harness is found."""
    check_harness()


def test_no_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the package is installed, the search says where the harness comes from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness, "find_spec", lambda _name: None)
    with pytest.raises(StartupError) as caught:
        check_harness()
    assert caught.value.message == (
        "gemma-serve tune measures with the harness python -m benchmarks, which comes with the "
        "source and is not installed here; run it from a checkout, with 'pip install -e .[bench]'."
    )


def test_server_that_does_not_start(tmp_path: Path) -> None:
    """The real harness and a real server that refuses: its own sentence, and no old record."""
    directory = tmp_path / "trial-01"
    directory.mkdir()
    (directory / "compare.json").write_text("of an earlier run")
    with pytest.raises(TrialError) as caught:
        compare(BROKEN, f"profile:{PROFILE}", directory, Method(), quality=False)
    assert "dtype must be bf16, fp8 or fp32, not 'fp9'" in str(caught.value)
    assert caught.value.side == "a"


def test_what_it_is_held_against_does_not_start(tmp_path: Path) -> None:
    """That B's server did not start is known apart: the harness's null server as A does."""
    port = free_port()
    words = [sys.executable, "-m", "benchmarks", "nullserver", "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as null_server:
        assert null_server.stdout is not None
        null_server.stdout.readline()
        with pytest.raises(TrialError) as caught:
            compare(f"http://127.0.0.1:{port}", BROKEN, tmp_path / "t", Method(), quality=False)
        null_server.terminate()
    assert caught.value.side == "b"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
