"""One model over two nodes by vLLM's own start: here two sessions on one loopback, a core each."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.commands import Command, Serve
from tests.conftest import free_port

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two nodes need two cores"),
]
# Between real hosts vLLM and gloo find the network themselves.
LOOPBACK = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
# A bound, not an expectation.
TOLD_S = 30


@contextlib.contextmanager
def nodes(
    profile: Path, tmp_path: Path, of_follower: Mapping[str, str] | None = None
) -> Iterator[tuple[Command, Command]]:
    """Node 0 and node 1, just started; more environment for the latter."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        started = []
        for rank, core in zip((0, 1), sorted(os.sched_getaffinity(0)), strict=False):
            directory = tmp_path / str(rank)
            directory.mkdir()
            overrides = [
                "tensor_parallel_size=2",
                "engine.nnodes=2",
                f"engine.node_rank={rank}",
                f"engine.master_port={port}",
                *(f"env.{key}={value}" for key, value in LOOPBACK.items()),
            ]
            serve = Serve(profile, directory)
            environ = of_follower if rank else None
            started.append(stack.enter_context(serve(*overrides, environ=environ, cores={core})))
        yield started[0], started[1]


@pytest.mark.usefixtures("serve_profile")
def test_node_1_ends_with_node_0(tiny_profile: Path, tmp_path: Path) -> None:
    """Node 0 answers with the workers of both; when it ends, node 1 does, and leaves nothing."""
    with nodes(tiny_profile, tmp_path) as (leader, follower):
        url = ready(leader, follower)
        assert [len(node.processes("Worker")) for node in (leader, follower)] == [1, 1]
        body = {"model": "tiny", "prompt": "The river", "max_tokens": 16, "ignore_eos": True}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 16

        leader.process.terminate()
        assert (leader.ended(), follower.ended()) == (0, 1)
        assert follower.last_line().endswith(" is gone.")


@pytest.mark.usefixtures("serve_profile")
def test_node_0_ends_with_node_1(tiny_profile: Path, tmp_path: Path) -> None:
    """A half of a model is none, and node 0 notices without being asked anything."""
    manager = tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        nodes(tiny_profile, tmp_path, {"NOTIFY_SOCKET": str(manager)}) as (leader, follower),
    ):
        systemd.bind(str(manager))
        systemd.settimeout(TOLD_S)
        ready(leader, follower)
        # Else systemd would kill the node after half an hour.
        assert systemd.recv(1024) == b"READY=1\nSTATUS=Node 1 of 2 is ready"
        [worker] = follower.processes("Worker")
        worker.kill()

        assert (follower.ended(), leader.ended()) == (1, 1)
        assert follower.last_line() == "A worker of this node has ended."
        assert "A node of the model is gone. Shutting down." in leader.output()


def ready(leader: Command, follower: Command) -> str:
    """Wait until both nodes are; node 0's address."""
    url = leader.wait_for(r"Serving tiny at (http://\S+) ")
    follower.wait_for("Node 1 of 2 is ready")
    return url
