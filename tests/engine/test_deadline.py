"""One budget a request: the shortest that anybody names, kept by a timer."""

from __future__ import annotations

import asyncio

import pytest

from gemma_serve.engine.deadline import Deadline
from gemma_serve.errors import DeadlineError, UnavailableError
from gemma_serve.profile.schema import Limits

SHORT = Limits(max_request_s=0.05, max_ttft_s=0.01)


def message(late: pytest.ExceptionInfo[DeadlineError]) -> str:
    """What the client reads."""
    assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
    return late.value.message


def test_the_shortest_budget_counts() -> None:
    """The client's where it is shorter, else the profile's; the sentence says whose it was."""

    async def run() -> None:
        for asked, limits, sentence in (
            (
                (None, 0.02),
                Limits(),
                "The request took more than its timeout of 0.02 s; send a longer one, or ask for "
                "fewer tokens.",
            ),
            ((3, 0.02, 1), Limits(), "The request took more than its timeout of 0.02 s; send a"),
            (
                (60, None),
                SHORT,
                "The request took more than 0.05 s (limits.max_request_s); ask for fewer tokens.",
            ),
        ):
            deadline = Deadline.of(limits, *asked)
            with pytest.raises(DeadlineError) as late:
                async with deadline.enforced():
                    await asyncio.sleep(10)
            assert message(late).startswith(sentence)

    asyncio.run(run())


def test_the_first_token_has_a_time_of_its_own() -> None:
    """Until it comes limits.max_ttft_s holds, or the whole budget if that is less."""

    async def run() -> None:
        with pytest.raises(DeadlineError) as late:
            async with Deadline.of(SHORT).enforced(first_token=True):
                await asyncio.sleep(10)
        assert message(late) == (
            "No token came within the time that the server allows for it (limits.max_ttft_s); "
            "retry later, or on another instance."
        )
        with pytest.raises(DeadlineError) as late:
            async with Deadline.of(SHORT, 0.005).enforced(first_token=True):
                await asyncio.sleep(10)
        assert "its timeout of 0.005 s" in message(late)

    asyncio.run(run())


def test_other_failures_are_what_they_are() -> None:
    """A TimeoutError of the work itself is none of the deadline's, nor is a client that leaves."""

    async def run() -> None:
        for error in (TimeoutError, asyncio.CancelledError, ValueError):
            with pytest.raises(error):
                async with Deadline.of(Limits()).enforced():
                    raise error
        with pytest.raises(UnavailableError), Deadline.of(Limits()).alarm(lambda: None):
            raise UnavailableError("The engine is dead.")

    asyncio.run(run())


def test_an_alarm_stops_what_it_can_not_cancel() -> None:
    """`stop` is called once, and what the block raises then is the deadline's error."""

    async def run() -> None:
        stopped = asyncio.Event()

        async def give_up() -> None:
            await stopped.wait()
            raise UnavailableError("The engine gave the request up.")

        with pytest.raises(DeadlineError) as late, Deadline.of(SHORT).alarm(stopped.set):
            await give_up()
        assert "0.05 s" in message(late)
        with Deadline().alarm(stopped.set):  # without an end there is no timer
            pass
        stopped.clear()
        with Deadline.of(SHORT).alarm(stopped.set):
            pass
        await asyncio.sleep(0.06)
        assert not stopped.is_set()

    asyncio.run(run())
