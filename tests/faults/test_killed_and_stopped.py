"""
F3 and F4 of the faults: the server's own process is killed; its engine core is stopped (SIGSTOP).

One test, so that the start after the kill is the one in which the engine is stopped.
"""

from __future__ import annotations

import json
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.commands import Command, Serve
from tests.conftest import free_port
from tests.faults.ledger import End, under_load

SERVING = r"Serving tiny at (http://\S+) "
# Promised.
GONE_S = 5.0
SATURATED_S = 4.0


def test_killed_server_and_stopped_engine(serve: Serve, tmp_path: Path) -> None:
    """
    Saturated, a server is never called stalled. Killed, its engine and workers are gone within 5 s,
    and the next start serves on the same port. There the engine is stopped: /readyz sees it, and no
    request is lost when it goes on; stopped for good, it is wedged: an incident is kept, every open
    request is told, and the server exits with 1.
    """
    port, incidents = free_port(), tmp_path / "incidents"
    with serve(f"server.port={port}", "limits.stall_s=1") as command:
        command.wait_for(SERVING)
        saturate_and_kill(command, f"http://127.0.0.1:{port}")
    settings = ("limits.stall_s=1.5", "limits.wedge_s=4", f"observability.incident_dir={incidents}")
    with serve(f"server.port={port}", *settings) as command:
        command.wait_for(SERVING)
        stop_for_a_while_and_for_good(command, f"http://127.0.0.1:{port}")
    (incident,) = incidents.iterdir()
    assert_tells(incident)


# --- F3


def saturate_and_kill(command: Command, url: str) -> None:
    """Look at the probes under full load, then kill the server in the middle of it."""
    with under_load(url, num_clients=64) as load:
        command.until(lambda: load.open == 64, "64 requests at once")
        assert_never_stalled(url)
        command.until(lambda: bool(load.ledger.entries), "answers")
        assert load.ledger.count(End.COMPLETED) == len(load.ledger.entries)
        assert len(command.processes("Worker")) == 1

        command.process.kill()
        assert_gone(command)
    assert "has stalled" not in command.output()


def assert_never_stalled(url: str) -> None:
    """For some seconds of full load /readyz and /livez are 200."""
    deadline_s = time.monotonic() + SATURATED_S
    while time.monotonic() < deadline_s:
        for probe in ("/readyz", "/livez"):
            answer = httpx.get(f"{url}{probe}", timeout=30)
            assert answer.status_code == 200, answer.text
        time.sleep(0.2)


def assert_gone(command: Command) -> None:
    """No process of the session is left in the time that is promised."""
    deadline_s = time.monotonic() + GONE_S
    while left := command.processes():
        assert time.monotonic() < deadline_s, f"left running: {left}"
        time.sleep(0.05)


# --- F4


def stop_for_a_while_and_for_good(command: Command, url: str) -> None:
    """Stop the engine core under load, let it go on, and stop it again."""
    engine = command.wait_for_process("EngineCore")
    with under_load(url, num_clients=10) as load:
        command.until(lambda: load.open == 10, "10 requests at once")
        engine.send_signal(signal.SIGSTOP)
        command.until(lambda: status_of(url) == (503, "stalled"), "a stall")
        assert httpx.get(f"{url}/livez").json()["engine"]["progress"] == "stalled"
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        engine.send_signal(signal.SIGCONT)
        command.until(lambda: status_of(url) == (200, "ready"), "the end of the stall")
        assert load.ledger.lost() == []
        assert load.ledger.count(End.FAILED) == 0

        command.until(is_growing(lambda: load.ledger.count(End.COMPLETED)), "answers")
        engine.send_signal(signal.SIGSTOP)
        assert command.ended() == 1
    assert "The engine is wedged: no sign of life for" in command.output()
    assert "Traceback" not in command.output()
    assert load.ledger.lost() == []
    assert load.ledger.count(End.FAILED) + load.ledger.count(End.REFUSED) >= 10


def status_of(url: str) -> tuple[int, str]:
    """The status and the word of /readyz."""
    answer = httpx.get(f"{url}/readyz", timeout=30)
    return answer.status_code, answer.json()["status"]


def is_growing(count: Callable[[], int]) -> Callable[[], bool]:
    """Whether there are more than at first."""
    before = count()
    return lambda: count() > before


def assert_tells(incident: Path) -> None:
    """It says what happened, how the requests looked, where the processes were; never a word."""
    told = json.loads((incident / "incident.json").read_text())
    assert told["reason"].startswith("no sign of life from the engine for")
    assert len(told["requests"]) >= 5
    assert {"prompt_tokens", "generated_tokens", "age_s"} <= told["requests"][0].keys()
    # As of the last step, which may have ended all that ran.
    assert {"running", "waiting"} <= told["schedulers"][0].keys()
    assert "stopped" in {process["status"] for process in told["processes"]}
    assert "max_model_len" in {setting["key"] for setting in told["settings"]}
    stacks = (incident / "stacks.txt").read_text()
    assert "incident.py" in stacks  # ours
    assert "It is stopped" in stacks  # the engine core
    assert "multiproc_executor.py" in stacks  # the worker, which waits for it
    assert "vllm:num_requests_running" in (incident / "metrics.txt").read_text()
    for file in incident.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "long story" not in file.read_text()
