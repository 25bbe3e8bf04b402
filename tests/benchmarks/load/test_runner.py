"""Closed and open loops against a scripted server: order, concurrency, warm-up, schedules."""

from __future__ import annotations

import asyncio
import errno
import re
from typing import Any

import pytest

from benchmarks.load.connection import Endpoint, unreachable
from benchmarks.load.runner import Offered, Sending, offer
from benchmarks.metrics.timeline import timeseries
from benchmarks.metrics.windows import full_run
from benchmarks.records import Item, Load, Slo
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
            on_progress = how.pop("on_progress", None)
            sending = Sending(Endpoint(url), protocol, "scripted", **how)
            return await offer(sending, load, todo, warm_up or [], on_progress=on_progress)

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


def test_clients_of_a_ramp_start_one_after_another() -> None:
    """Four clients over 0.4 s: a first request every 0.1 s, and all of them busy after it."""
    gauge = Gauge(hold_s=0.5)

    offered = run(gauge, Load(mode="closed", concurrency=4, ramp_s=0.4), items(8))
    sends_s = sorted(record.send_s for record in offered.records)

    # Timers ring late on a busy machine, and never early.
    assert all(sent >= 0.1 * n - 0.005 for n, sent in enumerate(sends_s[:4]))
    assert gauge.most == 4
    assert len(offered.records) == 8


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


def test_conversation_of_a_completion_is_one_text() -> None:
    """Without messages, each turn's prompt is all that was said before it, line by line."""
    gauge = Gauge()
    todo = [
        Item(0, 2, messages=[{"role": "user", "content": "turn 0"}], conversation="c", turn=0),
        Item(1, 2, prompt="turn 1", conversation="c", turn=1),
        Item(2, 2, messages=[{"role": "user", "content": "turn 2"}], conversation="c", turn=2),
    ]

    run(gauge, Load(mode="closed", concurrency=1), todo)

    # The scripted answer is two tokens of " x" each.
    assert [asked["prompt"] for asked in gauge.asked] == [
        "turn 0",
        "turn 0\n x x\nturn 1",
        "turn 0\n x x\nturn 1\n x x\nturn 2",
    ]


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

    said = r"no server answers at http://127.0.0.1:9 .*; start one, or give its address as the tar"
    with pytest.raises(ConnectionError, match=said):
        asyncio.run(nobody())


def test_no_more_files_is_no_fault_of_the_server() -> None:
    """Where this process may open no more files, the next step is another one."""
    endpoint = Endpoint("http://[::1]:8000")

    said = str(unreachable(endpoint, OSError(errno.EMFILE, "Too many open files")))

    assert re.search(r"has the \d+ open files that it may have; raise that with ulimit -n", said)
    assert "no server" not in said


def test_turns_that_were_not_sent_have_failed() -> None:
    """After a turn without an answer its conversation ends, and nothing of it is lost."""

    async def fails_once(answer: Answer, asked: dict[str, Any]) -> None:
        if asked["messages"][-1]["content"] == "c1 turn 1":
            answer.writer.close()
            return
        await honest(answer, asked)

    todo = [
        Item(
            10 * c + turn,
            2,
            messages=[{"role": "user", "content": f"c{c} turn {turn}"}],
            conversation=f"c{c}",
            turn=turn,
        )
        for c in range(2)
        for turn in range(4)
    ]
    done: list[tuple[int, int]] = []
    offered = run(
        fails_once,
        Load(mode="closed", concurrency=2),
        todo,
        protocol="openai-chat",
        token_source="usage",
        on_progress=lambda *at: done.append(at),
    )
    ended = {record.index: (record.error, record.error_message) for record in offered.records}

    assert len(offered.records) == len(todo)
    assert {index: error for index, (error, _) in ended.items() if error} == {
        11: "connect",
        12: "not_sent",
        13: "not_sent",
    }
    assert ended[13][1] == "not sent: turn 1 of its conversation failed"
    assert sum(second.sent for second in timeseries(offered.records)) == 6
    assert done[-1] == (8, 8)
    window = full_run(offered.records, Slo(ttft_ms=60_000))
    assert (window.num_ok, window.num_failed) == (5, 3)
    assert window.goodput is not None
    assert window.goodput.attainment == pytest.approx(5 / 8)


def test_host_of_an_ipv6_address_has_brackets() -> None:
    """Without them its port would be one more part of it."""
    endpoint = Endpoint("http://[::1]:8000/base")

    assert (endpoint.host, endpoint.port, endpoint.authority) == ("::1", 8000, "[::1]:8000")
    assert b"\r\nHost: [::1]:8000\r\n" in endpoint.request("/v1/completions", b"{}")
    assert Endpoint("http://h:1").authority == "h:1"


def test_chat_protocol_refuses_token_ids() -> None:
    """A workload of token ids has no place in a chat; the message names what has."""
    todo = [Item(0, 2, prompt_token_ids=[1000, 1001])]

    with pytest.raises(
        ValueError, match="request 0 of the workload has token ids, and openai-chat"
    ):
        run(honest, Load(mode="closed", concurrency=1), todo, protocol="openai-chat")


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "://", "http://[::1", "http://h:99999", "http://h:x"]
)
def test_addresses_that_are_none(url: str) -> None:
    """An address that is none is refused with an example."""
    with pytest.raises(ValueError, match=r"write it like http://127.0.0.1:8000"):
        Endpoint(url)
