"""Several workers and several engines, on the two cores that every machine of ours has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import ServeProfile
from tests.faults.ledger import under_load
from tests.listening import listeners
from tests.servers import Server

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores"
)


def titles(server: Server, word: str) -> list[str]:
    """The titles of the server's processes that hold this word, sorted."""
    lines = (title_of(process) for process in server.processes())
    return sorted(line for line in lines if word in line)


def title_of(process: psutil.Process) -> str:
    """A process's title."""
    return " ".join(process.cmdline()).strip()


def assert_chats(server: Server, count: int = 1) -> None:
    """Chats get whole answers, as long as they asked for."""
    with server.client() as client:
        for _ in range(count):
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": "What is a haiku?"}],
                "max_tokens": 16,
                "ignore_eos": True,
            }
            answer = client.post("/v1/chat/completions", json=body)

            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 16


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait, with a bound."""
    deadline_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def shared_memory() -> set[str]:
    """Names of the machine's shared memory that vLLM's workers make."""
    return {file.name for file in Path("/dev/shm").glob("*") if "vllm" in file.name}


def test_tensor_parallel(serve_profile: ServeProfile, tiny_profile: Path) -> None:
    """
    Two workers share each layer and answer a chat; where one is killed the server says so, exits
    with 1, and nothing is left behind.
    """
    before = shared_memory()
    with serve_profile(tiny_profile, ["tensor_parallel_size=2"]) as server:
        assert len(titles(server, "Worker")) == 2
        assert_chats(server)
        # Over torch.distributed the workers find one another, and nobody else finds them.
        listening = listeners(server)
        assert any("Worker" in listener.process for listener in listening), listening
        assert all(listener.is_on_loopback for listener in listening), listening
        with server.client() as client:
            info = client.get("/v1/info").json()
        assert info["tensor_parallel_size"] == 2
        assert all(seconds >= 0 for seconds in info["startup_seconds"].values())

        with under_load(server.base_url, num_clients=10) as load:
            _, *below = server.processes()
            wait_until(lambda: load.open == 10)
            next(process for process in below if "Worker" in title_of(process)).kill()
            assert server.process.wait(10) == 1
        assert load.ledger.lost() == []
        assert "The engine died" in server.output()
        assert psutil.wait_procs(below, timeout=5)[1] == []

    assert shared_memory() <= before


def test_data_parallel(serve_profile: ServeProfile, tiny_profile: Path) -> None:
    """
    Two replicas of the engine share the requests of one port. When one is told to end it gives its
    requests up: none of them looks finished, and the server exits with 1.
    """
    with serve_profile(tiny_profile, ["data_parallel_size=2"]) as server:
        assert len(titles(server, "EngineCore")) == 2
        assert_chats(server, count=8)
        with server.client() as client:
            served = [
                float(line.rpartition(" ")[2])
                for line in client.get("/metrics").text.splitlines()
                if line.startswith("vllm:generation_tokens_total{")
            ]
        assert len(served) == 2
        assert sum(served) >= 8 * 16

        with under_load(server.base_url, num_clients=20) as load:
            _, *below = server.processes()
            wait_until(lambda: load.open == 20)
            next(process for process in below if "EngineCore" in title_of(process)).terminate()
            assert server.process.wait(30) == 1
        assert load.ledger.lost() == []
        assert psutil.wait_procs(below, timeout=5)[1] == []
