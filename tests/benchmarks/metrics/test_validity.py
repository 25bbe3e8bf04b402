"""What makes a run invalid, and what the check then says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from benchmarks.metrics.answer_checks import itl_shift
from benchmarks.metrics.validity import check_run
from benchmarks.records import Check, Load, RequestRecord, ServerSide
from tests.benchmarks.metrics.made import CLOSED, HEALTHY, OPEN, failed, request

SCHEDULE = ("send_lag", "offered_rate", "saturation")


def closed(count: int = 100, **fields: Any) -> list[RequestRecord]:
    """Requests of a good server, one after another."""
    return [request(send_s=0.3 * n, index=n, **fields) for n in range(count)]


def scheduled(count: int = 100, late_s: float = 0.0, **fields: Any) -> list[RequestRecord]:
    """Requests of a good server, ten a second, each sent `late_s` after it was due."""
    return [
        request(sched_s=0.1 * n, send_s=0.1 * n + late_s, index=n, **fields) for n in range(count)
    ]


def check(records: list[RequestRecord], name: str, load: Load = CLOSED, **given: Any) -> Check:
    """One check of a run; the verdict follows it."""
    client = given.pop("client", HEALTHY)
    found = check_run(records, load, client, **({"cold": False} | given))
    one = next(check for check in found.checks if check.name == name)
    if one.status == "red":
        assert found.verdict == "INVALID"
    return one


@pytest.mark.parametrize(
    ("records", "load"), [(closed(), CLOSED), (scheduled(), OPEN)], ids=["closed", "open"]
)
def test_a_good_run(records: list[RequestRecord], load: Load) -> None:
    """Nothing red is VALID, and every check could be made."""
    found = check_run(records, load, HEALTHY, cold=False)
    assert found.verdict == "VALID"
    assert {check.status for check in found.checks} == {"ok"}


def test_a_closed_loop_has_no_schedule_to_miss() -> None:
    """Checks of the schedule are left out, not passed."""
    names = {check.name for check in check_run(closed(), CLOSED, HEALTHY, cold=False).checks}
    assert not names & set(SCHEDULE)
    names = {check.name for check in check_run(scheduled(), OPEN, HEALTHY, cold=False).checks}
    assert names >= set(SCHEDULE)


def test_only_measured_requests_are_judged() -> None:
    """What failed while the server warmed up is no part of the measurement."""
    records = [*closed(), failed("connect", phase="warm_up")]
    assert check_run(records, CLOSED, HEALTHY, cold=False).verdict == "VALID"


def test_failed_share() -> None:
    """One time-out in a hundred passes, two do not, and both are named."""
    assert check([*closed(99), failed()], "failed_requests").status == "ok"
    found = check(
        [*closed(98), failed(), failed("stall", error_message="no byte")], "failed_requests"
    )
    assert (found.status, found.value, found.limit) == ("red", pytest.approx(0.02), 0.01)
    assert "2 of 100 requests failed (timeout 1, stall 1)" in found.message


@pytest.mark.parametrize("error", ["sse_error", "early_close", "bad_answer", "no_tokens"])
def test_a_broken_protocol_is_red_however_rare(error: str) -> None:
    """One such answer in a thousand is under 1 %, and yet the server cannot be believed."""
    found = check([*closed(999), failed(error, error_message="why")], "failed_requests")
    assert found.status == "red"
    assert f"({error} 1), the first: why" in found.message
    assert f"{error} is red however rare" in found.message


def test_nothing_measured() -> None:
    """A run without a measured request is invalid."""
    found = check_run([], CLOSED, None, cold=True)
    assert found.verdict == "INVALID"
    assert found.checks[0].message == "no request was measured; send some"


def test_output_length() -> None:
    """Answers that are a tenth shorter than asked are other work; without ignore_eos they may."""
    short = [request([0.1 * n for n in range(1, 10)], max_tokens=10)]
    # |9 - 10| / 10
    found = check(short, "output_length")
    assert (found.status, found.value) == ("red", pytest.approx(0.1))
    assert "9 output tokens where 10 were asked for; 1 of 1 answers differ" in found.message
    assert check(short, "output_length", ignore_eos=False).status == "not_measured"


def test_output_length_deviations_do_not_cancel() -> None:
    """One answer too long does not make up for one too short."""
    long, short = request([0.1] * 12, max_tokens=10), request([0.1] * 8, max_tokens=10)
    # (2 + 2) / 20
    assert check([long, short], "output_length").value == pytest.approx(0.2)


def test_usage_that_lies() -> None:
    """A usage of 4 where three ids came is off by a third."""
    found = check(closed(usage_output_tokens=4), "usage_tokens")
    assert (found.status, found.value) == ("red", pytest.approx(1 / 3))
    assert "the usage says 400 output tokens, the streams have 300 token ids" in found.message


def test_usage_below_the_events() -> None:
    """Without ids, three events with text and a usage of two cannot both be true."""
    records = closed(token_source="usage", usage_output_tokens=2, num_output_tokens=2)
    assert check(records, "usage_tokens").status == "red"


def test_usage_above_what_was_asked() -> None:
    """Without ids, a usage above max_tokens is false whatever an event holds."""
    records = closed(token_source="usage", usage_output_tokens=6, num_output_tokens=6)
    assert check(records, "usage_tokens").status == "red"


def test_usage_that_cannot_be_checked() -> None:
    """Without ids, two tokens an event are as likely as a lie: the check says it does not know."""
    records = closed(token_source="usage", usage_output_tokens=6, num_output_tokens=6, max_tokens=6)
    found = check(records, "usage_tokens")
    assert found.status == "not_measured"
    assert "several tokens an event, or a false usage" in found.message


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"usage_output_tokens": None},
            "the server sends no usage; the tokens are our own count",
        ),
        (
            {"usage_output_tokens": None, "token_source": "event_counts"},
            "the server sends no usage; the tokens are the server's count of each response",
        ),
        ({"token_source": "continuous_usage"}, "the tokens come from the usage itself"),
    ],
)
def test_no_second_count(fields: dict[str, Any], why: str) -> None:
    """One count has nothing to be checked against."""
    found = check(closed(**fields), "usage_tokens")
    assert found.status == "not_measured"
    assert found.message.startswith(why)


def test_an_answer_at_once_is_no_stream() -> None:
    """A buffered stream has no time per output token."""
    found = check([request((0.5, 0.5, 0.5))], "streaming")
    assert found.status == "red"
    assert found.message.startswith("1 of 1 answers came all at once")
    assert check([request((0.5,))], "streaming").status == "not_measured"


def test_coalesced_reads_that_distort() -> None:
    """Every second event read together with the one before: gaps of 0 and of twice the time."""
    record = request([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4], reads=[0, 0, 1, 1, 2, 2, 3, 3])
    # gaps by event: four of 0, three of .1: p50 0, p95 .1; by read six of .05: both are 100 % off
    found = check([record], "coalesced_reads")
    assert (found.status, found.value) == ("red", pytest.approx(4 / 7))
    assert itl_shift([record]) == pytest.approx(1.0)
    assert "ITL describes reads, not tokens" in found.message


def test_coalesced_reads_now_and_then() -> None:
    """One of twenty gaps is how a server at full speed writes: noted, not red."""
    at_s = [0.01 * n for n in range(1, 21)] + [0.20]
    found = check([request(at_s, reads=[*range(20), 19])], "coalesced_reads")
    assert (found.status, found.value) == ("ok", pytest.approx(1 / 20))


def test_several_tokens_an_event_are_not_coalesced() -> None:
    """A server that sends two tokens an event is not the client's reading."""
    pairs = request((0.1, 0.2, 0.3), (2, 2, 2))
    assert check([pairs], "coalesced_reads").value == 0
    assert itl_shift([pairs]) == 0


def test_send_lag() -> None:
    """6 ms late is more than 5 ms and than 5 % of a TTFT of 100 ms."""
    found = check(scheduled(late_s=0.006), "send_lag", OPEN)
    assert (found.status, found.value) == ("red", pytest.approx(0.006))
    assert check(scheduled(late_s=0.004), "send_lag", OPEN).status == "ok"


def test_send_lag_against_a_long_ttft() -> None:
    """Of a TTFT of 200 ms, 6 ms are less than 5 %."""
    found = check(scheduled(late_s=0.006, at_s=(0.2, 0.3)), "send_lag", OPEN)
    # max(5 ms, 0.05 * 200 ms)
    assert (found.status, found.limit) == ("ok", pytest.approx(0.010))


def test_waiting_for_a_place_is_no_lag() -> None:
    """Time under max_concurrency is the load's, not the client's."""
    assert check(scheduled(late_s=0.5, queue_s=0.5), "send_lag", OPEN).status == "ok"


def test_offered_rate() -> None:
    """Sendings that fall behind by a little more each time are a lower rate."""
    slow = [
        dataclasses.replace(record, send_s=1.05 * (record.sched_s or 0.0)) for record in scheduled()
    ]
    found = check(slow, "offered_rate", OPEN)
    # 9.9 s of schedule in 9.9 * 1.05 s
    assert (found.status, found.value) == ("red", pytest.approx(1 / 1.05))
    capped = Load(mode="open", rate_rps=10, max_concurrency=4)
    assert "max_concurrency=4" in check(slow, "offered_rate", capped).message


@pytest.mark.parametrize(
    ("name", "changed", "value"),
    [
        ("event_loop_lag", {"loop_lag_s": [0.02] * 100}, 0.02),
        ("client_cpu", {"cpu_s": 8.0}, 0.8),
        ("cpu_steal", {"steal": 0.03}, 0.03),
        ("foreign_cpu", {"foreign_cpu": 0.2}, 0.2),
    ],
)
def test_a_client_that_cannot_keep_up(name: str, changed: dict[str, Any], value: float) -> None:
    """Each sign of a client or a machine that is in the way is red, with its value."""
    found = check(closed(), name, client=dataclasses.replace(HEALTHY, **changed))
    assert (found.status, found.value) == ("red", pytest.approx(value))


def test_what_was_not_sampled() -> None:
    """No sample is no proof, and no fault."""
    found = check_run(closed(), CLOSED, None, cold=False)
    missing = {check.name for check in found.checks if check.status == "not_measured"}
    assert missing == {"event_loop_lag", "client_cpu", "cpu_steal", "foreign_cpu"}
    assert found.verdict == "VALID"


def test_prefix_cache_by_the_server() -> None:
    """2 % of hits make a cold cell a warm one."""
    server = ServerSide(prefix_cache_queries=1000, prefix_cache_hits=20)
    found = check(closed(), "prefix_cache_hits", cold=True, server=server)
    assert (found.status, found.value) == ("red", pytest.approx(0.02))
    assert "2 % of the prompt tokens came from the prefix cache" in found.message


def test_prefix_cache_by_the_answers() -> None:
    """Where the counters see nothing, the answers' cached_tokens still count."""
    server = ServerSide(prefix_cache_queries=1000, prefix_cache_hits=0)
    found = check(closed(cached_tokens=5), "prefix_cache_hits", cold=True, server=server)
    # 5 of 10 prompt tokens
    assert (found.status, found.value) == ("red", pytest.approx(0.5))


def test_prefix_cache_unknown() -> None:
    """A server that tells nothing leaves a cold cell unproven."""
    assert check(closed(), "prefix_cache_hits", cold=True).status == "not_measured"


def test_saturation() -> None:
    """Latencies that grow by the request are a backlog without end."""
    growing = [
        request((0.1 + 0.06 * n,), sched_s=0.1 * n, send_s=0.1 * n, index=n) for n in range(200)
    ]
    found = check(growing, "saturation", OPEN)
    assert found.status == "red"
    assert found.message.startswith("saturated: the backlog grew by")


def test_saturation_from_the_first_request() -> None:
    """A server that is slow for everyone is found by its drain."""
    late = [request((9.0,), sched_s=0.1 * n, send_s=0.1 * n, index=n) for n in range(50)]
    found = check(late, "saturation", OPEN)
    # 9 s of drain after 4.9 s of schedule
    assert (found.status, found.value) == ("red", pytest.approx(9.0 / 4.9))


def test_a_schedule_too_short() -> None:
    """Ten requests tell nothing of a backlog."""
    assert check(scheduled(10), "saturation", OPEN).status == "not_measured"
