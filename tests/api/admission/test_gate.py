"""Who is taken, who waits and who runs next: the real queue and clock, no engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gemma_serve.api.admission import Admission, Capacity, Demand, Slot, tenants
from gemma_serve.api.admission.gate import LOOK_AGAIN_S
from gemma_serve.api.keys import Key, KeyRing
from gemma_serve.engine.deadline import Deadline
from gemma_serve.engine.step_times import StepTimes
from gemma_serve.errors import DeadlineError, RateLimitError, UnavailableError
from gemma_serve.profile.schema import Limits, Slo

ANN, BOB = Key("ann", "ann"), Key("bob", "bob")
TWO_KEYS = KeyRing(None, {"GEMMA_SERVE_API_KEYS": "a ann,b bob"})


@dataclass
class Work:
    """What the engine would say of one prompt."""

    num_prefill_tokens: int = 0
    num_answer_tokens: int = 0
    first_token_at_s: float | None = None


def gate(
    max_num_seqs: int = 8,
    *,
    prefill_tokens: Callable[[], int] = lambda: 0,
    num_waiting: Callable[[], int] = lambda: 0,
    keys: KeyRing | None = None,
    slo: Slo | None = None,
    prefill_tokens_per_s: float | None = None,
    step_times: StepTimes | None = None,
    **limits: Any,
) -> Admission:
    """An open gate before an engine of this size, of which one sequence more is taken."""
    made = Admission(Limits(**limits), slo or Slo(), keys)
    times = step_times or StepTimes()
    capacity = Capacity(max_num_seqs, 512, prefill_tokens, num_waiting, step_times=times)
    made.open(capacity, prefill_tokens_per_s)
    return made


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def running(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """A test that has an event loop."""

    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 30))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@running
async def test_a_batch_runs_two_wait_and_the_rest_is_refused() -> None:
    """By default a batch and an eighth runs, three batches are taken; 503 says when to retry."""
    admission = gate(8)
    entering = [asyncio.create_task(admission.enter(Demand())) for _ in range(30)]
    await settle()
    done = [task for task in entering if task.done()]
    refused = [task.exception() for task in done if task.exception()]
    assert (admission.num_running, admission.queue.num_sequences) == (9, 15)
    assert len(refused) == 6
    assert all(isinstance(error, UnavailableError) for error in refused)
    assert (refused[0].code, refused[0].retry_after_s) == ("engine_overloaded", 2)  # 15 x 1 s / 9
    assert refused[0].message == (
        "24 requests run or wait, and no more may; retry in 2 s, or on another instance."
    )
    assert admission.overloaded
    for task in entering:
        if task.done() and not task.exception():
            with task.result():
                pass
    await settle()
    assert admission.queue.num_sequences == 6
    for task in entering:
        task.cancel()


@running
async def test_the_end_of_a_drain() -> None:
    """Who waits is refused, and who still comes; a place that falls free then is nobody's."""
    admission = gate(1)
    slots = [await admission.enter(Demand()) for _ in range(2)]
    waiting = asyncio.create_task(admission.enter(Demand()))
    await settle()
    admission.close(lambda: UnavailableError("It is over.", code="draining"))
    for slot in slots:
        with slot:
            pass
    for entering in (waiting, admission.enter(Demand())):
        with pytest.raises(UnavailableError, match="It is over"):
            await entering
    assert (admission.num_running, admission.queue.num_sequences) == (0, 0)


@running
async def test_a_full_kv_cache() -> None:
    """Where the engine itself has requests waiting, the rest stays here, where turns are taken."""
    in_engine = 0
    admission = gate(16, num_waiting=lambda: in_engine)
    slots = [await admission.enter(Demand()) for _ in range(4)]
    in_engine = 3  # more than the two that are kept ahead
    entering = asyncio.create_task(admission.enter(Demand()))
    await settle()
    assert not entering.done()
    in_engine = 1
    with await asyncio.wait_for(entering, 1):
        assert admission.num_running == 5
    for slot in slots:
        with slot:
            pass


@running
async def test_n_counts_n_times() -> None:
    """A request of four answers takes four places, and waits until there are four."""
    admission = gate(8)
    slots = [await admission.enter(Demand(num_sequences=3)) for _ in range(2)]
    four = asyncio.create_task(admission.enter(Demand(num_sequences=4)))
    one = asyncio.create_task(admission.enter(Demand()))
    await settle()
    # The one would fit, and the four would never run if it might go first.
    assert not four.done()
    assert not one.done()
    with slots[0]:
        pass
    await settle()
    assert four.done()
    assert one.done()
    assert admission.num_running == 8
    huge = gate(2)
    assert await asyncio.wait_for(huge.enter(Demand(num_sequences=500)), 1)


@running
async def test_keys_take_turns() -> None:
    """A key with a long line does not delay one with a short line; priorities count within one."""
    admission = gate(1, max_queued_requests=50)
    slots = [await admission.enter(Demand(key=ANN)) for _ in range(2)]
    order: list[str] = []

    async def one(name: str, demand: Demand) -> None:
        with await admission.enter(demand):
            order.append(name)
            await settle()

    async with asyncio.TaskGroup() as group:
        for at in range(4):
            group.create_task(one(f"ann {at}", Demand(key=ANN)))
        await settle()
        for at in range(2):
            group.create_task(one(f"bob {at}", Demand(key=BOB)))
        group.create_task(one("bob first", Demand(key=BOB, priority=-1)))
        await settle()
        assert order == []
        with slots[0]:
            pass
        # One at a time, so that the order of turns is the order of answers.
    assert order == ["ann 0", "bob first", "ann 1", "bob 0", "ann 2", "bob 1", "ann 3"]
    with slots[1]:
        pass
    assert admission.num_running == 0


@running
async def test_room_is_made_in_the_longest_line() -> None:
    """A full queue takes another key's request, and refuses the last of the key that fills it."""
    admission = gate(1, max_queued_requests=6)
    slots = [await admission.enter(Demand(key=ANN)) for _ in range(2)]
    anns = [asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(4)]
    await settle()
    with pytest.raises(UnavailableError):  # alone, she is told that the server is full
        await admission.enter(Demand(key=ANN))
    bob = asyncio.create_task(admission.enter(Demand(key=BOB)))
    await settle()
    assert [task.done() for task in (*anns, bob)] == [False, False, False, True, False]
    error = anns[3].exception()
    assert isinstance(error, RateLimitError)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    with slots[0]:
        pass
    for task in (*anns[:3], bob):
        task.cancel()


@running
async def test_one_of_several_keys_leaves_room_in_the_batch() -> None:
    """With two keys one has 0.9 of the batch at most, so that the other's starts at once."""
    alone, shared = gate(20), gate(20, keys=TWO_KEYS)
    for admission in (alone, shared):
        tasks = [asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(30)]
        await settle()
        expected = 22 if admission is alone else 18
        assert admission.num_running == expected
        bob = asyncio.create_task(admission.enter(Demand(key=BOB)))
        await settle()
        assert bob.done() == (admission is shared)
        for task in (*tasks, bob):
            task.cancel()


def steps_of(alone_ms: float, each_ms: float) -> StepTimes:
    """An engine whose step of one sequence takes so long, and so much longer with each more."""
    times = StepTimes()
    with times.round():
        for num_sequences in (1, 9) * 10:
            times.add(num_sequences, (alone_ms + (num_sequences - 1) * each_ms) / 1000)
    return times


def begin(task: asyncio.Task[Slot]) -> Slot:
    """The slot of a request whose turn has come, with its prompt computed."""
    slot = task.result()
    slot.begun(Work())
    return slot


@running
async def test_a_noisy_key_runs_less_while_another_sends() -> None:
    """It has no more than lengthens a step by a quarter, until nobody else has sent for a while."""
    admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 4))  # 12.5 ms more are three
    assert admission.as_dict()["max_running_requests_beside_others"] == 3
    with await admission.enter(Demand(key=BOB)):
        pass
    anns = [asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(30)]
    for num_begun in (1, 2, 3):  # one after the other, as `test_a_noisy_key_begins_one_by_one`
        await asyncio.sleep(2 * LOOK_AGAIN_S)
        await settle()
        assert admission.num_running == num_begun
        begin(anns[num_begun - 1])
    await asyncio.sleep(2 * LOOK_AGAIN_S)
    assert admission.num_running == 3
    with await asyncio.wait_for(admission.enter(Demand(key=BOB)), 0.01):  # at once
        assert admission.num_running == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tenants, "ACTIVE_S", 0.0)
        with anns[0].result():
            pass
        await settle()
        assert admission.num_running == 18  # all but the share that is kept for others
    for task in anns:
        task.cancel()


@running
async def test_the_quieter_key_is_not_held() -> None:
    """What holds a noisy key holds no key beside it that asks for less."""
    admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 4))
    anns = [asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(30)]
    await settle()
    bobs = [await asyncio.wait_for(admission.enter(Demand(key=BOB)), 0.01) for _ in range(3)]
    assert admission.num_running == 18 + 3  # one more than the batch: the next waits in the engine
    with anns[0].result(), anns[1].result():
        pass
    await settle()
    assert admission.num_running == 16 + 3  # not refilled
    for bob in bobs:
        with bob:
            pass
    for task in anns:
        task.cancel()


@running
async def test_keys_that_ask_for_as_much_fill_the_batch() -> None:
    """Neither of two noisy keys is held for the other: both would wait in a batch that is empty."""
    admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 4))
    tasks = [
        asyncio.create_task(admission.enter(Demand(key=key)))
        for _ in range(20)
        for key in (ANN, BOB)
    ]
    await settle()
    assert admission.num_running == 22
    for task in tasks:
        task.cancel()


@running
async def test_a_noisy_key_begins_one_by_one() -> None:
    """Beside others a key's next prompt waits for the first token of a long one before."""
    admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 1))  # twelve tokens in a step
    with await admission.enter(Demand(key=BOB)):
        pass
    first, second = (asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(2))
    await settle()
    assert not second.done()  # nobody knows yet how long the first prompt is
    slot, work = first.result(), Work(num_prefill_tokens=12)
    slot.begun(work)
    await asyncio.sleep(2 * LOOK_AGAIN_S)
    assert not second.done()
    assert (await asyncio.wait_for(admission.enter(Demand(key=BOB)), 0.01)).is_open
    work.num_prefill_tokens = 0
    await asyncio.sleep(2 * LOOK_AGAIN_S)
    await settle()
    assert second.done()
    third = asyncio.create_task(admission.enter(Demand(key=ANN)))
    await asyncio.sleep(2 * LOOK_AGAIN_S)
    assert not third.done()
    with second.result():  # it ends without any token
        pass
    await settle()
    assert third.done()


@running
async def test_short_prompts_begin_together() -> None:
    """As many as one key may add tokens to a step, and the next as soon as one's are known."""
    admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 1))
    with await admission.enter(Demand(key=BOB)):
        pass
    anns = [asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(9)]
    for num_begun in (1, 2, 3):
        await settle()
        assert admission.num_running == num_begun
        anns[num_begun - 1].result().begun(Work(num_prefill_tokens=5))
    await asyncio.sleep(2 * LOOK_AGAIN_S)
    assert admission.num_running == 3  # of 15 tokens
    for task in anns:
        task.cancel()


@running
async def test_a_key_alone_has_the_batch() -> None:
    """Without other keys, or without a request of theirs, steps may take as long as they do."""
    for keys, expected in ((None, 22), (TWO_KEYS, 18)):
        admission = gate(20, keys=keys, step_times=steps_of(50, 50))
        tasks = [asyncio.create_task(admission.enter(Demand(key=ANN))) for _ in range(30)]
        await settle()
        assert admission.num_running == expected
        for task in tasks:
            task.cancel()


@running
async def test_a_request_of_many_answers_is_not_kept_waiting_for_ever() -> None:
    """One that is more than a key may run beside others runs alone."""
    admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 50))
    with await admission.enter(Demand(key=BOB)):
        pass
    one = await admission.enter(Demand(key=ANN))
    many = asyncio.create_task(admission.enter(Demand(key=ANN, num_sequences=4)))
    await settle()
    assert not many.done()
    with one:
        pass
    await settle()
    with many.result():
        assert admission.num_running == 4


@running
async def test_the_slowdown_is_the_profiles() -> None:
    """limits.max_key_slowdown says how much longer; a large one bounds nothing."""
    for slowdown, expected in ((1.5, 6), (1000.0, 18)):
        admission = gate(20, keys=TWO_KEYS, step_times=steps_of(50, 4), max_key_slowdown=slowdown)
        assert admission.bounds.num_running_beside_others == expected


@running
async def test_time_to_first_token() -> None:
    """It is there when a stream's answer begins, and else when the engine has its first token."""
    admission, work = gate(), Work()
    with await admission.enter(Demand()) as slot:
        slot.begun(work)
        assert slot.ttft_s is None
        work.first_token_at_s = time.time() + 2
        assert slot.ttft_s == pytest.approx(2, abs=0.1)
        slot.first_token()
        assert slot.ttft_s < 1


@running
async def test_who_waits_too_long_is_told() -> None:
    """503 after limits.max_wait_s; 504 where the request's own time is over first, or too short."""
    admission = gate(1, max_wait_s=0.05)
    slots = [await admission.enter(Demand()) for _ in range(2)]
    with pytest.raises(UnavailableError, match=r"has waited 0\.05 s \(limits\.max_wait_s\)"):
        await admission.enter(Demand())
    admission.estimates.service_s.value = 0.001
    with pytest.raises(DeadlineError, match=r"its timeout of 0\.02 s"):
        await admission.enter(Demand(deadline=Deadline.of(Limits(), 0.02)))
    admission.estimates.service_s.value = 60
    with pytest.raises(DeadlineError, match=r"takes about 30\.0 s and its time is 20\.0 s"):
        await admission.enter(Demand(deadline=Deadline.of(Limits(), 20.0)))
    assert admission.queue.num_sequences == 0
    with slots[0], slots[1]:
        pass
    over = Deadline.of(Limits(), 1e-9)
    await asyncio.sleep(0.001)
    with pytest.raises(DeadlineError):
        await admission.enter(Demand(deadline=over))


@running
async def test_a_leaver_gives_its_place_back() -> None:
    """A client that leaves the queue, even in the moment of its turn, blocks nobody."""
    admission = gate(1, max_queued_requests=10)
    slots = [await admission.enter(Demand()) for _ in range(2)]
    leaver = asyncio.create_task(admission.enter(Demand()))
    stayer = asyncio.create_task(admission.enter(Demand()))
    await settle()
    with slots[0]:
        pass
    leaver.cancel()  # its turn has come, and it has not run since
    await settle()
    assert leaver.cancelled()
    with slots[1], stayer.result():
        assert admission.num_running == 2
    assert admission.num_running == 0


@running
async def test_tokens_of_a_promise() -> None:
    """With slo.ttft_ms, as many prompt tokens are taken as prefill computes in that time."""
    queued = 0
    admission = gate(
        prefill_tokens=lambda: queued, slo=Slo(ttft_ms=500), prefill_tokens_per_s=10_000
    )
    assert admission.as_dict()["max_queued_tokens"] == 5_000
    with await admission.enter(Demand(num_tokens=4_000)) as slot:
        # The engine does not count it before it is tokenised.
        with await admission.enter(Demand(num_tokens=4_000)):
            with pytest.raises(UnavailableError, match="8000 prompt tokens are before this"):
                await admission.enter(Demand())
            slot.tokenised(4_000)
            with await admission.enter(Demand(num_tokens=1_000)):
                pass
        queued = 6_000
        with pytest.raises(UnavailableError, match="and at most 5000 may be"):
            await admission.enter(Demand())
    queued = 0


@running
async def test_one_keys_tokens_are_not_anothers() -> None:
    """Full of one key's tokens, a server takes another key's request, up to its share of them."""
    in_engine = [Work(), Work()]
    admission = gate(
        keys=TWO_KEYS,
        slo=Slo(ttft_ms=500),
        prefill_tokens_per_s=10_000,
        prefill_tokens=lambda: sum(work.num_prefill_tokens for work in in_engine),
    )
    ann, bob = ([Demand(key=key, num_tokens=n) for n in (4_000, 5)] for key in (ANN, BOB))
    slots = [await admission.enter(ann[0]) for _ in in_engine]
    for at_engine in (False, True):
        if at_engine:
            for slot, work in zip(slots, in_engine, strict=True):
                slot.tokenised(4_000)
                slot.begun(work)
                work.num_prefill_tokens = 4_000
        with pytest.raises(UnavailableError, match="8000 prompt tokens are before this"):
            await admission.enter(ann[1])
        with await admission.enter(bob[1]):
            # Hers count as many as his own: 5 and 5, and then 4,005 and 4,005.
            bobs = await admission.enter(bob[0])
            with bobs, pytest.raises(UnavailableError, match="8010 prompt tokens are before this"):
                await admission.enter(bob[1])
            with pytest.raises(UnavailableError, match="8005 prompt tokens are before this"):
                await admission.enter(ann[1])
    in_engine[0].num_prefill_tokens = 0  # its first token is there
    with await admission.enter(ann[1]), slots[0], slots[1]:
        pass


@running
async def test_one_keys_tokens_in_the_queue_are_not_anothers() -> None:
    """So it does where they wait for a place; hers are refused."""
    slo = Slo(ttft_ms=500)
    admission = gate(1, slo=slo, prefill_tokens_per_s=10_000, max_queued_requests=10)
    slots = [await admission.enter(Demand(key=ANN)) for _ in range(2)]
    ann = asyncio.create_task(admission.enter(Demand(key=ANN, num_tokens=9_000)))
    await settle()
    with pytest.raises(UnavailableError, match="9000 prompt tokens are before this"):
        await admission.enter(Demand(key=ANN))
    bob = asyncio.create_task(admission.enter(Demand(key=BOB, num_tokens=5)))
    await settle()
    assert not bob.done()
    with slots[0]:
        pass
    await settle()
    assert ann.done()  # she came first
    for task in (ann, bob):
        task.cancel()
    with slots[1]:
        pass


@running
async def test_characters_are_counted_before_tokens_are_known() -> None:
    """Text counts by the ratio of the last prompts, from four characters a token on."""
    admission = gate(slo=Slo(ttft_ms=1000), prefill_tokens_per_s=1_000)
    with await admission.enter(Demand(num_chars=4_000)) as slot:
        with pytest.raises(UnavailableError, match="1000 prompt tokens are before this"):
            await admission.enter(Demand())
        slot.tokenised(2_000)
    for _ in range(100):
        with await admission.enter(Demand(num_chars=1_000)) as slot:
            slot.tokenised(500)
    with (
        await admission.enter(Demand(num_chars=4_000)),
        pytest.raises(UnavailableError, match=r"(19|20)\d\d prompt tokens"),
    ):
        await admission.enter(Demand())


@running
async def test_the_prefill_rate_is_corrected() -> None:
    """Streams that wait longer for their first token than predicted lower the limit."""
    admission = gate(slo=Slo(ttft_ms=500), prefill_tokens_per_s=1_000_000)
    before = admission.bounds.num_tokens
    for _ in range(10):
        with await admission.enter(Demand(num_tokens=1_000, stream=True)) as slot:
            slot.tokenised(1_000)
            await asyncio.sleep(0.002)
            slot.first_token()
    assert 512 <= admission.bounds.num_tokens < 0.8 * before
    admission.estimates.prefill_tokens_per_s.value = 1
    assert admission.bounds.num_tokens == 512  # one step's tokens always may


@running
async def test_a_keys_tokens_a_minute() -> None:
    """A key that has used its tokens gets 429 and when it has some again; others go on."""
    admission = gate(keys=TWO_KEYS, key_tokens_per_minute=600)
    with await admission.enter(Demand(key=ANN)) as slot:
        slot.tokenised(500)
        # All that the engine has made: 300 more than there were, 30 s at 10 tokens a second.
        slot.begun(Work(num_answer_tokens=150))
        slot.begun(Work(num_answer_tokens=250))
    with pytest.raises(RateLimitError, match="600 tokens a minute") as caught:
        await admission.enter(Demand(key=ANN))
    assert 30 <= (caught.value.retry_after_s or 0) <= 31
    with await admission.enter(Demand(key=BOB)):
        pass


@running
async def test_until_it_is_open_everything_passes() -> None:
    """The warm-up comes before the limits."""
    admission = Admission(Limits(max_queued_requests=1), Slo())
    slots = [await admission.enter(Demand()) for _ in range(100)]
    assert not admission.overloaded
    for slot in slots:
        with slot:
            pass
    assert admission.estimates.service_s.value is None


@running
async def test_it_costs_microseconds() -> None:
    """Entering and leaving an idle server is no noticeable part of a request."""
    admission = gate(keys=TWO_KEYS, slo=Slo(ttft_ms=500), prefill_tokens_per_s=1e6)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for _ in range(1000):
        with await admission.enter(Demand(num_chars=4000, key=ANN)):
            pass
    assert (loop.time() - began_s) / 1000 < 0.001  # some 10 microseconds on a quiet machine
