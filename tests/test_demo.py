"""make demo: a server, a real Prometheus with our rules beside it, and one Ctrl-C for both."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scripts import demo
from tests.conftest import free_port
from tests.docs.pages import ROOT

START_S = 300
END_S = 60


def until(holds: Callable[[], Any], log: Path) -> Any:
    """Wait, with a bound, until it holds; what it gave."""
    deadline_s = time.monotonic() + START_S
    while not (found := holds()):
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.2)
    return found


@pytest.mark.engine
def test_demo(tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path: Path) -> None:
    """The addresses that it prints answer, Prometheus has scraped and has the rules, all end."""
    engine_slot.close()
    port, metrics, watcher = free_port(), free_port(), free_port()
    log = tmp_path / "demo.log"
    ports = [f"--port={port}", f"--metrics-port={metrics}", f"--prometheus-port={watcher}"]
    command = [sys.executable, "-m", "scripts.demo", str(tiny_profile), *ports]
    with log.open("wb") as output:
        running = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        until(lambda: running.poll() is not None or "Ctrl-C ends" in log.read_text(), log)
        assert f"Prometheus  http://127.0.0.1:{watcher}" in log.read_text()
        assert httpx.get(f"http://127.0.0.1:{port}/playground").status_code == 200
        api = f"http://127.0.0.1:{watcher}/api/v1"
        up = {"query": 'up{job="gemma-serve"} == 1'}
        until(lambda: httpx.get(f"{api}/query", params=up).json()["data"]["result"], log)
        rules = httpx.get(f"{api}/rules").json()["data"]["groups"]
        assert any(rule["name"] == "GemmaServeDown" for group in rules for rule in group["rules"])
    finally:
        below = []
        if running.poll() is None:
            below = psutil.Process(running.pid).children(recursive=True)
            running.send_signal(signal.SIGINT)
        code = running.wait(END_S)
    assert code == 0, log.read_text()
    _, left = psutil.wait_procs(below, timeout=5)
    assert not left
    for each in (port, metrics, watcher):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", each)) != 0


def test_without_prometheus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Prometheus is not installed, the demo says how to get it and goes on."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with demo.watching(tmp_path, 9090, 8002) as prometheus:
        assert prometheus is None
    assert capsys.readouterr().out == (
        "Prometheus is not installed (apt-get install prometheus); serving without it.\n"
    )
