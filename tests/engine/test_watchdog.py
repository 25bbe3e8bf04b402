"""What the watchdog calls idle, running, saturated, stalled and wedged: no engine, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gemma_serve.engine.watchdog import Progress, Sight, Watchdog

LOOK_S = 0.2


@dataclass
class Engine:
    """The engine as the watchdog sees it, five looks a second."""

    watchdog: Watchdog = field(default_factory=lambda: Watchdog(stall_s=15, wedge_s=60))
    now_s: float = 1000.0
    last_sign_s: float = 1000.0

    def goes(
        self,
        seconds: float,
        *,
        sign_every_s: float = 0,
        requests: int = 0,
        waiting: int = 0,
        computing: bool = False,
        stopped: bool = False,
    ) -> list[Progress]:
        """The verdicts of so many seconds; no sign of life where `sign_every_s` is 0."""
        verdicts = []
        for _ in range(round(seconds / LOOK_S)):
            self.now_s += LOOK_S
            if sign_every_s and self.now_s - self.last_sign_s >= sign_every_s - 1e-6:
                self.last_sign_s = self.now_s
            sight = Sight(self.now_s, self.last_sign_s, requests, waiting, computing, stopped)
            verdicts.append(self.watchdog.look(sight))
        return verdicts


def test_idle() -> None:
    """Without requests an engine is idle as long as it answers pings."""
    assert set(Engine().goes(600, sign_every_s=3)) == {Progress.IDLE}


@pytest.mark.parametrize(("waiting", "verdict"), [(0, Progress.RUNNING), (500, Progress.SATURATED)])
def test_load_is_never_a_hang(waiting: int, verdict: Progress) -> None:
    """However many requests wait, and however long: steps are signs of life."""
    assert set(Engine().goes(3600, sign_every_s=12, requests=600, waiting=waiting)) == {verdict}


@pytest.mark.parametrize("requests", [0, 8])
def test_stalled_then_wedged(requests: int) -> None:
    """An engine that was stopped is stalled after 15 s and wedged after 60 s, busy or not."""
    engine = Engine()
    engine.goes(60, sign_every_s=3, requests=requests)

    verdicts = engine.goes(70, requests=requests)

    assert verdicts.index(Progress.STALLED) * LOOK_S == pytest.approx(15, abs=3.5)
    assert verdicts.index(Progress.WEDGED) * LOOK_S == pytest.approx(60, abs=3.5)


def test_it_recovers() -> None:
    """A sign of life ends a stall, and the next one takes its whole time again."""
    engine = Engine()
    engine.goes(1, sign_every_s=0.2)
    assert engine.goes(40)[-1] is Progress.STALLED

    assert engine.goes(1, sign_every_s=0.2)[-1] is Progress.IDLE
    assert Progress.STALLED not in engine.goes(14)


def test_long_steps_are_known() -> None:
    """Where steps take 10 s, one of 39 s is no stall: it may be four times the slowest."""
    engine = Engine()
    engine.goes(10, sign_every_s=10, requests=1)
    engine.watchdog.answered(10)

    assert set(engine.goes(39, requests=1)) == {Progress.RUNNING}
    assert engine.goes(2, requests=1)[-1] is Progress.STALLED


def test_a_stall_is_no_measure_of_a_step() -> None:
    """The answer that ends a stall does not make the watchdog wait longer for the next."""
    engine = Engine()
    engine.goes(1, sign_every_s=0.2)
    engine.goes(40)
    engine.watchdog.answered(40)
    engine.goes(1, sign_every_s=0.2)

    assert engine.goes(16)[-1] is Progress.STALLED


def test_a_stop_is_no_measure_of_a_step() -> None:
    """After one that was too short for a stall, the next one is seen as soon as any."""
    engine = Engine()
    engine.goes(60, sign_every_s=3)
    engine.goes(3)
    engine.watchdog.asked()
    engine.goes(7, stopped=True)
    engine.goes(LOOK_S, sign_every_s=LOOK_S)  # the step ends, and then the ping
    engine.watchdog.answered(7)

    verdicts = engine.goes(20, stopped=True)
    assert verdicts.index(Progress.STALLED) * LOOK_S == pytest.approx(15, abs=0.5)


def test_after_a_stall_long_steps_are_known_again() -> None:
    """A ping that is sent later measures a step, and what that takes is no hang."""
    engine = Engine()
    engine.goes(40, stopped=True)
    engine.goes(1, sign_every_s=0.2, requests=1)
    engine.watchdog.answered(38)
    for _ in range(3):
        engine.watchdog.asked()
        assert set(engine.goes(12, sign_every_s=12, requests=600, waiting=500)) == {
            Progress.SATURATED
        }
        engine.watchdog.answered(9)

    assert set(engine.goes(35, requests=600, waiting=500)) == {Progress.SATURATED}
    assert engine.goes(2, requests=600, waiting=500)[-1] is Progress.STALLED


def test_workers_that_compute_are_left_alone() -> None:
    """On a CPU a prefill of minutes is work: the kernel sees the workers compute."""
    assert set(Engine().goes(600, requests=1, computing=True)) == {Progress.RUNNING}


def test_a_pause_of_our_own_is_no_silence() -> None:
    """After an hour of the whole machine's sleep an engine has its time to answer."""
    engine = Engine()
    engine.goes(1, sign_every_s=0.2)
    engine.now_s += 3600

    assert set(engine.goes(13)) == {Progress.IDLE}
