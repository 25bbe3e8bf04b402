"""A tree of processes: found, counted, stopped, woken, and ended whatever its state."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.servers import processes
from benchmarks.servers.processes import Tree
from benchmarks.servers.running import free_port
from tests.benchmarks.servers.family import family

START_S = 30


def begin(port: int, log: Path, *words: str) -> Tree:
    """The family, as soon as it answers."""
    tree = Tree(family(port, *words), log, {})
    deadline_s = time.monotonic() + START_S
    while tree.listener(port) is None:
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.02)
    return tree


@pytest.fixture
def port() -> int:
    """A free one."""
    return free_port()


@pytest.fixture
def tree(port: int, tmp_path: Path) -> Iterator[Tree]:
    """The family, running; ended after the test."""
    made = begin(port, tmp_path / "log")
    yield made
    made.end()


def test_tree_is_all_that_was_started(tree: Tree, port: int) -> None:
    """The leader and its child are both in it, and the one on the port is known."""
    names = {process.name() for process in tree.processes()}

    assert len(tree.processes()) == 2
    assert "sleep" in names
    assert tree.listener(port) == tree.leader
    assert 0 < processes.cpu_s(tree.leader) <= tree.cpu_s()


def test_paused_tree_does_not_answer_and_a_woken_one_does(tree: Tree, port: int) -> None:
    """While it is paused every process is stopped; a request sent then is answered on waking."""
    tree.pause()
    states = {process.status() for process in tree.processes()}
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=0.3)
    tree.wake()

    assert states == {psutil.STATUS_STOPPED}
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200


@pytest.mark.parametrize("paused", [False, True])
def test_end_leaves_nothing(port: int, tmp_path: Path, paused: bool) -> None:
    """Ending ends the child too, which its parent would leave behind, also from a pause."""
    tree = begin(port, tmp_path / "log")
    started = tree.processes()
    if paused:
        tree.pause()

    tree.end()

    assert len(started) == 2
    assert tree.processes() == []
    assert not [process for process in started if processes._is_alive(process)]
    assert tree.poll() is not None


def test_stubborn_server_is_killed(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ignores SIGTERM is killed when its time is up."""
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.2)
    tree = begin(port, tmp_path / "log", "stubborn")

    tree.end()

    assert tree.poll() == -9
    assert tree.processes() == []


def test_child_whose_parent_ended_is_still_found(tree: Tree) -> None:
    """What outlives the leader is in its process group, and is ended with it."""
    child = next(process for process in tree.processes() if process.name() == "sleep")

    tree.leader.kill()
    while tree.poll() is None:
        time.sleep(0.02)

    assert [process.pid for process in tree.processes()] == [child.pid]


def test_client_and_server_share_a_session(tree: Tree) -> None:
    """Else the kernel would share the cores among sessions, and the client's priority be void."""
    assert {os.getsid(process.pid) for process in tree.processes()} == {os.getsid(0)}
