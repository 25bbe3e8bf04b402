"""
Two replicas of the tiny model behind nginx and behind vllm-router, as deploy/replicas has them.

One is the server that the tests share; the other one is drained and killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.replicas import Proxy, Replica, nginx, router, wait_until
from tests.faults.ledger import End, Load, under_load
from tests.servers import Server, serving

# What vllm-router sends to another replica when the first one refuses.
RETRIED = ("/v1/chat/completions", "/v1/completions")
CHAT = {"messages": [{"role": "user", "content": "Name three rivers."}], "ignore_eos": True}
SHORT, LONG = CHAT | {"max_tokens": 1}, CHAT | {"max_tokens": 3500, "stream": True}
NAMES = ["nginx", "vllm-router"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where logs go."""
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def replicas(tiny_server: Server, tiny_profile: Path, folder: Path) -> Iterator[list[Replica]]:
    """The shared server, which stays, and one that a test may end."""
    overrides = ['env.VLLM_CPU_OMP_THREADS_BIND="0"', "limits.drain_s=120"]
    with serving(tiny_profile, overrides, folder / "server.log", dict(os.environ)) as server:
        yield [Replica.of(tiny_server), Replica.of(server)]


@pytest.fixture(scope="module")
def proxies(replicas: list[Replica], folder: Path) -> Iterator[dict[str, Proxy]]:
    """nginx and vllm-router, both in front of the same replicas."""
    with nginx(replicas, folder) as first, router(replicas, folder) as second:
        yield {"nginx": first, "vllm-router": second}


def ask(proxy: Proxy, body: dict[str, Any], **headers: str) -> None:
    """A chat by way of a proxy, which succeeds."""
    url = f"{proxy.url}/v1/chat/completions"
    httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()


def grown(replicas: Sequence[Replica], before: Sequence[float]) -> list[float]:
    """How many chats each has answered since."""
    return [replica.answered() - was for replica, was in zip(replicas, before, strict=True)]


def are_growing(*loads: Load) -> None:
    """Wait until each load has more requests completed."""
    for load in loads:
        enough = load.ledger.count(End.COMPLETED) + 6
        wait_until(lambda: load.ledger.count(End.COMPLETED) >= enough, "answers")  # noqa: B023


def assert_all_completed(*loads: Load) -> None:
    """Every request was answered in full: none was refused, failed or lost."""
    for load in loads:
        others = [entry for entry in load.ledger.entries if entry.end is not End.COMPLETED]
        assert not others, (load.ledger.summary(), others[:5])
        assert len(load.ledger.entries) == load.ledger.sent > 0


Stream = Iterator[dict[str, Any]]


def stream_of(proxy: Proxy, body: dict[str, Any], stack: ExitStack) -> Stream:
    """A chat's events, each when it comes."""
    url = f"{proxy.url}/v1/chat/completions"
    answer = stack.enter_context(httpx.stream("POST", url, json=body, timeout=60))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return (
        json.loads(line.removeprefix("data: "))
        for line in answer.iter_lines()
        if line.startswith("data: {")
    )


def stream_on(proxy: Proxy, replica: Replica, stack: ExitStack) -> Stream:
    """A long answer that this replica gives: the one after it, where another has the first."""
    for _ in range(3):
        before = replica.running()
        stream = stream_of(proxy, LONG, stack)
        next(stream)
        if replica.running() > before:
            return stream
    raise AssertionError(f"{replica.url} is never asked")


@pytest.mark.parametrize("name", NAMES)
def test_streams_and_least_load(
    replicas: list[Replica], proxies: dict[str, Proxy], name: str
) -> None:
    """
    A stream's first event is here while its replica still generates; what is asked meanwhile goes
    to the other one, and no event is missing at the end.
    """
    before = [replica.answered() for replica in replicas]
    body = LONG | {"max_tokens": 300, "stream_options": {"include_usage": True}}
    with ExitStack() as stack:
        stream = stream_of(proxies[name], body, stack)
        next(stream)
        busy = [replica.running() for replica in replicas]
        assert sorted(busy) == [0, 1]
        for _ in range(4):
            ask(proxies[name], SHORT)
        expected = [0, 4] if busy[0] else [4, 0]
        assert grown(replicas, before) == expected
        *_, last = stream
    assert last["usage"]["completion_tokens"] == 300


def test_nginx_keeps_a_session_on_its_replica(
    replicas: list[Replica], proxies: dict[str, Proxy]
) -> None:
    """The requests of one x-session-id go to one replica, and sessions to both."""
    where = []
    for session in range(12):
        before = [replica.answered() for replica in replicas]
        for _ in range(2):
            ask(proxies["nginx"], SHORT, **{"x-session-id": f"session-{session}"})
        where.append(grown(replicas, before))
    assert [0, 2] in where
    assert [2, 0] in where
    assert all(counts in ([0, 2], [2, 0]) for counts in where)


def test_router_finds_the_prefix(replicas: list[Replica], folder: Path) -> None:
    """With cache_aware, a conversation's turns go where the turns before are in the cache."""
    with router(replicas, folder, "--policy", "cache_aware") as proxy:
        for number in range(4):
            before = [replica.answered() for replica in replicas]
            messages = [{"role": "user", "content": f"{number} {'river ' * 200}"}]
            for turn in range(4):
                ask(proxy, {"messages": messages, "max_tokens": 1})
                messages += [
                    {"role": "assistant", "content": "Yes."},
                    {"role": "user", "content": f"And {turn}?"},
                ]
            assert sorted(grown(replicas, before)) == [0, 4]


def test_router_is_told(replicas: list[Replica], proxies: dict[str, Proxy]) -> None:
    """A replica that is taken out gets nothing, and it is asked again once it is back."""
    proxy, out = proxies["vllm-router"], replicas[1]
    where, before = {"url": out.url}, out.answered()
    httpx.post(f"{proxy.url}/remove_worker", params=where).raise_for_status()
    with under_load(proxy.url, 4, num_tokens=5) as load:
        are_growing(load)
    assert_all_completed(load)
    assert out.answered() == before
    httpx.post(f"{proxy.url}/add_worker", params=where, timeout=60).raise_for_status()
    with under_load(proxy.url, 4, num_tokens=5) as load:
        wait_until(lambda: out.answered() > before, "the replica is asked again")
    assert_all_completed(load)


def test_drained_and_killed(replicas: list[Replica], proxies: dict[str, Proxy]) -> None:
    """
    Under load a replica gets SIGTERM, answers what it has, and is killed while it still has two
    streams: no request of the load fails, those two break off without an end, and both proxies
    name the dead replica.
    """
    alive, dead = replicas
    first, second = proxies["nginx"], proxies["vllm-router"]
    with ExitStack() as stack:
        streams = [stream_on(proxy, dead, stack) for proxy in (first, second)]
        with (
            under_load(first.url, 4, num_tokens=20) as by_nginx,
            under_load(second.url, 4, num_tokens=20, kinds=RETRIED) as by_router,
        ):
            are_growing(by_nginx, by_router)
            wait_until(lambda: dead.running() > 2, "the load on both")
            dead.drain()
            wait_until(lambda: dead.running() == 2, "the end of what the load had there")
            are_growing(by_nginx, by_router)
            dead.kill()
            are_growing(by_nginx, by_router)
        assert_all_completed(by_nginx, by_router)
        for stream in streams:
            with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
                list(stream)

    wait_until(lambda: not second.is_healthy(), "vllm-router sees it")
    with (
        under_load(first.url, 4, num_tokens=20) as by_nginx,
        under_load(second.url, 4, num_tokens=20) as by_router,
    ):
        are_growing(by_nginx, by_router)
    assert_all_completed(by_nginx, by_router)

    said = first.output()
    assert "connect() failed (111: Connection refused) while connecting to upstream" in said
    assert f'upstream: "{dead.url}/v1/' in said
    health = httpx.get(f"{second.url}/health")
    assert (health.status_code, health.text) == (503, f'Unhealthy servers: ["{dead.url}"]')
    series = httpx.get(f"{second.metrics_url}/metrics").text.splitlines()
    assert f'vllm_router_worker_health{{worker="{dead.url}"}} 0' in series
    assert f'vllm_router_worker_health{{worker="{alive.url}"}} 1' in series
