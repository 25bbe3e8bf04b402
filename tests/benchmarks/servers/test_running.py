"""`started`: ready or a sentence why not, and nothing left behind, whoever ends the harness."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.servers import ServerError, TargetSpec, parse_target, started
from tests.benchmarks.servers import family
from tests.commands import group_of

ROOT = Path(__file__).parents[3]
SPEC = TargetSpec("profile", "family", model="m")
HARNESS = """
import asyncio, signal, sys
# A shell that runs the tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from benchmarks.servers import TargetSpec, started
import benchmarks.servers.running as module
from tests.benchmarks.servers.family import family_command
module.command = family_command

async def main():
    async with started(TargetSpec("profile", "family", model="m")) as a:
        async with started(TargetSpec("profile", "family", model="m")) as b:
            if "pause" in sys.argv:
                b.pause()
            print("ready", a.tree.leader.pid, b.tree.leader.pid, flush=True)
            await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.fixture
def _family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.servers.running.command", family.family_command)


@pytest.mark.usefixtures("_family")
def test_started_server(tmp_path: Path) -> None:
    """A started server has an address that answers, figures of its processes, and then an end."""
    log = tmp_path / "server.log"

    async def use() -> None:
        async with started(SPEC, log=log) as server:
            answer = await asyncio.to_thread(httpx.get, server.url)
            assert answer.status_code == 200
            assert server.model == "m"
            assert 0 < (server.api_cpu_s() or 0) <= (server.tree_cpu_s() or 0)
            assert (server.api_rss_mib() or 0) > 1
            assert server.tree is not None
            kept.append(server.tree)

    kept: list[object] = []
    asyncio.run(use())

    assert kept[0].processes() == []  # type: ignore[attr-defined]
    assert "serving" in log.read_text()


@pytest.mark.usefixtures("_family")
def test_error_inside_ends_the_server() -> None:
    """An exception goes through as it is, and the server is ended."""

    async def use() -> None:
        async with started(SPEC) as server:
            kept.append(server.tree)
            raise LookupError("of the caller's")

    kept: list[object] = []
    with pytest.raises(LookupError, match="of the caller's"):
        asyncio.run(use())

    assert kept[0].processes() == []  # type: ignore[attr-defined]


async def _start(spec: TargetSpec, **how: float) -> None:
    async with started(spec, **how):  # type: ignore[arg-type]
        pass


def test_failed_start_shows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends before it is ready is an error with its code and its last words."""
    monkeypatch.setattr("benchmarks.servers.running.command", family.broken_command)

    with pytest.raises(ServerError, match=r"(?s)profile:family ended with code 3 .*such weights"):
        asyncio.run(_start(SPEC))


def test_start_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers is given up, and ended."""
    monkeypatch.setattr("benchmarks.servers.running.command", family.silent_command)

    with pytest.raises(ServerError, match=r"was not ready after 0\.3 s"):
        asyncio.run(_start(SPEC, ready_timeout_s=0.3))


def test_running_server_is_only_asked_for_its_model() -> None:
    """Without an answer one sentence says so; a model that is given is not asked for."""

    async def use() -> None:
        async with started(parse_target("http://127.0.0.1:9,model=m")) as server:
            server.pause()
            server.wake()
            assert (server.model, server.tree_cpu_s(), server.process) == ("m", None, None)

    asyncio.run(use())
    with pytest.raises(ServerError, match=r"no server answers at http://127.0.0.1:9 .*start one"):
        asyncio.run(_start(parse_target("http://127.0.0.1:9")))


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGINT, ["pause"])],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C while one is paused"],
)
def test_no_signal_leaves_a_server_behind(number: int, words: list[str], tmp_path: Path) -> None:
    """Both servers of a comparison are ended, with their children, when the harness is."""
    with (tmp_path / "log").open("w") as log:
        harness = subprocess.Popen(
            [sys.executable, "-c", HARNESS, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert harness.stdout is not None
    ready = re.fullmatch(r"ready (\d+) (\d+)\n", harness.stdout.readline())
    assert ready is not None, (tmp_path / "log").read_text()
    leaders = [int(pid) for pid in ready.groups()]
    assert [len(group_of(pid)) for pid in leaders] == [2, 2]

    harness.send_signal(number)
    harness.wait(60)

    deadline_s = time.monotonic() + 5
    while any(group_of(pid) for pid in leaders) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert [group_of(pid) for pid in leaders] == [[], []]
