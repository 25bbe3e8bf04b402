"""Closed and open loops against a scripted server: order, concurrency, warm-up, schedules."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.load.connection import Endpoint
from benchmarks.load.runner import Offered, Sending, offer
from benchmarks.records import Item, Load
from tests.benchmarks.scripted import Answer, Script, honest, scripted


def items(count: int, max_tokens: int = 3) -> list[Item]:
    """Requests that differ in nothing but their number."""
    return [Item(index, max_tokens, prompt=f"prompt {index}") for index in range(count)]


def run(
    script: Script, load: Load, todo: list[Item], warm_up: list[Item] | None = None, **how: Any
) -> Offered:
    """Offer the items to a server with this script."""

    async def offered() -> Offered:
        async with scripted(script) as url:
            protocol = how.pop("protocol", "openai-completions")
            sending = Sending(Endpoint(url), protocol, "scripted", **how)
            return await offer(sending, load, todo, warm_up or [])

    return asyncio.run(offered())


class Gauge:
    """Answers honestly, and remembers how many requests were open at once."""

    def __init__(self, hold_s: float = 0.0) -> None:
        self.now = self.most = 0
        self.hold_s = hold_s
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, answer: Answer, asked: dict[str, Any]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.asked.append(asked)
        await asyncio.sleep(self.hold_s)
        await honest(answer, asked)
        self.now -= 1


def test_closed_loop_keeps_its_concurrency() -> None:
    """A closed loop has exactly as many requests open as it has clients, and sends each once."""
    gauge = Gauge(hold_s=0.01)

    offered = run(gauge, Load(mode="closed", concurrency=4), items(20))

    assert gauge.most == 4
    assert [record.index for record in offered.records] == list(range(20))
    assert {record.error for record in offered.records} == {None}
    assert sum(record.num_output_tokens for record in offered.records) == 60


def test_warm_up_is_handed_over_without_draining() -> None:
    """The first measured request is sent while warm-up requests are still open."""
    gauge = Gauge(hold_s=0.02)

    offered = run(gauge, Load(mode="closed", concurrency=4), items(8), items(6))
    warm = [record for record in offered.records if record.phase == "warm_up"]
    first_s = min(record.send_s for record in offered.records if record.phase == "measured")

    assert len(warm) == 6
    assert first_s < max(record.end_s for record in warm)
    assert offered.phases["warm_up"][1] == pytest.approx(first_s)


def test_open_loop_sends_by_the_clock_whatever_the_server_does() -> None:
    """Requests are sent at their times although none of those before has been answered."""
    gauge = Gauge(hold_s=0.5)

    load = Load(mode="open", rate_rps=100, arrivals="constant")
    offered = run(gauge, load, items(10))

    assert gauge.most == 10
    assert [record.sched_s for record in offered.records] == pytest.approx(
        [number / 100 for number in range(10)], abs=1e-6
    )
    assert all(record.send_s >= (record.sched_s or 0) for record in offered.records)


def test_cap_queues_in_the_client_and_says_so() -> None:
    """With max_concurrency, what has to wait waits in the client, and its wait is recorded."""
    gauge = Gauge(hold_s=0.05)

    load = Load(mode="open", rate_rps=1000, arrivals="constant", max_concurrency=2)
    offered = run(gauge, load, items(6))

    assert gauge.most == 2
    assert max(record.queue_s for record in offered.records) > 0.05
    assert min(record.queue_s for record in offered.records) < 0.01


def test_trace_is_sent_at_its_own_times() -> None:
    """A trace's requests are due at the times that it carries."""
    todo = items(3)
    for item, at_s in zip(todo, (0.0, 0.01, 0.08), strict=True):
        item.at_s = at_s

    offered = run(honest, Load(mode="trace"), todo)

    assert [record.sched_s for record in offered.records] == pytest.approx(
        [0.0, 0.01, 0.08], abs=1e-6
    )


def test_trace_without_times_is_refused_before_anything_is_sent() -> None:
    """Times that are not there cannot be kept."""
    gauge = Gauge()

    with pytest.raises(ValueError, match="request 0 of the workload has no time of its own"):
        run(gauge, Load(mode="trace"), items(2))
    assert gauge.asked == []


def test_conversation_grows_by_the_servers_own_answers() -> None:
    """Each turn carries the turns before it and what the server answered to them."""
    gauge = Gauge()
    todo = [
        Item(n, 2, messages=[{"role": "user", "content": f"turn {n}"}], conversation="c", turn=n)
        for n in range(3)
    ]

    run(
        gauge,
        Load(mode="closed", concurrency=2),
        todo,
        protocol="openai-chat",
        token_source="usage",
    )
    roles = [[message["role"] for message in asked["messages"]] for asked in gauge.asked]

    assert roles == [
        ["user"],
        ["user", "assistant", "user"],
        ["user", "assistant", "user", "assistant", "user"],
    ]
    # The scripted answer is two tokens of " x" each.
    assert gauge.asked[1]["messages"][1]["content"] == " x x"
    assert gauge.most == 1


def test_salts_differ_between_requests_and_phases() -> None:
    """In a cold run no two requests may share prefix-cache blocks, warm-up's included."""
    gauge = Gauge()

    run(gauge, Load(mode="closed", concurrency=2), items(4), items(4), salt="run7")
    salts = [asked["cache_salt"] for asked in gauge.asked]

    assert len(set(salts)) == 8
    assert all(salt.startswith("run7-") for salt in salts)


def test_one_salt_for_a_run_that_shares() -> None:
    """Where prompts are made to share blocks, they do, and still not with another run's."""
    gauge = Gauge()

    run(gauge, Load(mode="closed", concurrency=2), items(4), salt="run7", salt_each=False)

    assert {asked["cache_salt"] for asked in gauge.asked} == {"run7"}


def test_no_server() -> None:
    """Where nobody listens, one sentence says so and what to do."""

    async def nobody() -> None:
        sending = Sending(Endpoint("http://127.0.0.1:9"), "openai-completions", "m")
        await offer(sending, Load(mode="closed", concurrency=1), items(1))

    with pytest.raises(ConnectionError, match=r"no server answers at http://127.0.0.1:9 .*--url"):
        asyncio.run(nobody())


def test_chat_protocol_refuses_token_ids() -> None:
    """A workload of token ids has no place in a chat; the message names what has."""
    todo = [Item(0, 2, prompt_token_ids=[1000, 1001])]

    with pytest.raises(
        ValueError, match="request 0 of the workload has token ids, and openai-chat"
    ):
        run(honest, Load(mode="closed", concurrency=1), todo, protocol="openai-chat")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "://"])
def test_addresses_that_are_none(url: str) -> None:
    """An address that is none is refused with an example."""
    with pytest.raises(ValueError, match=r"write it like http://127.0.0.1:8000"):
        Endpoint(url)
