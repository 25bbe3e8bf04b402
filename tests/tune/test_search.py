"""The search, over comparisons that the harness really made: what it tries, keeps and remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.tune.harness import Method, TrialError
from gemma_serve.tune.outcome import Compared
from gemma_serve.tune.search import Found, Limits, Search, run
from gemma_serve.tune.space import Change
from gemma_serve.tune.state import State, read_state, write_state
from tests.tune.conftest import (
    EQUIVALENT,
    FASTER,
    INCONCLUSIVE,
    INVALID,
    OTHER_ANSWERS,
    recorded,
)

COMPILE = Change("compile", {"engine.enforce_eager": False}, "compiled kernels")
FP8_KV = Change("FP8 KV cache", {"kv_cache_dtype": "fp8"}, "half the bytes", lossy=True)
BIG = Change("max_num_seqs 256", {"engine.max_num_seqs": 256}, "more at once")
SMALL = Change("max_num_seqs 4", {"engine.max_num_seqs": 4}, "fewer at once")
CHANGES = (COMPILE, FP8_KV, BIG)
ABOUT = {"profile": "gemma-3-270m"}
BASE = "profile:gemma-3-270m"
COMPILED = f"{BASE},--set engine.enforce_eager=false"
ON_VLLM = 'vllm:gemma-3-270m,--set env.VLLM_CPU_OMP_THREADS_BIND="auto"'
MINUTE_S = 60.0


@dataclass
class Harness:
    """Plays recorded comparisons, one a call; an exception among them is raised."""

    plays: Iterator[str | BaseException]
    calls: list[tuple[str, str, str, bool]] = field(default_factory=list)
    now_s: float = 0.0
    each_s: float = 10 * MINUTE_S

    def compare(self, a: str, b: str, directory: Path, quality: bool) -> Compared:
        self.calls.append((a, b, directory.name, quality))
        self.now_s += self.each_s
        played = next(self.plays)
        if isinstance(played, BaseException):
            raise played
        return recorded(played)


def accept(_keys: Any) -> None:
    """Every profile can be served."""


def searching(
    directory: Path,
    plays: Sequence[str | BaseException],
    *,
    check: Callable[[Any], None] = accept,
    **given: Any,
) -> tuple[Search, Harness]:
    harness = Harness(iter(plays))
    search = Search(
        profile="gemma-3-270m",
        overrides=(),
        changes=CHANGES,
        method=Method(),
        limits=Limits(),
        directory=directory,
        required_attainment=None,
        against="vllm",
        vllm_defaults={"env.VLLM_CPU_OMP_THREADS_BIND": "auto"},
        save=lambda state: write_state(directory, state),
        compare=harness.compare,
        check=check,
        clock=lambda: harness.now_s,
    )
    return replace(search, **given), harness


def outcomes(found: Found) -> list[tuple[str, str]]:
    return [(trial.name, trial.outcome) for trial in found.state.trials]


def test_walk(tmp_path: Path) -> None:
    """Each setting is held against what was kept before it, and the whole against vLLM."""
    search, harness = searching(tmp_path, [FASTER, OTHER_ANSWERS, EQUIVALENT, FASTER])
    found = run(search, State(about=ABOUT))
    assert found.chosen == {"engine.enforce_eager": False}
    assert harness.calls == [
        (COMPILED, BASE, "trial-01", False),
        (f'{COMPILED},--set kv_cache_dtype="fp8"', COMPILED, "trial-02", True),
        (f"{COMPILED},--set engine.max_num_seqs=256", COMPILED, "trial-03", False),
        (COMPILED, ON_VLLM, "trial-04", True),
    ]
    assert outcomes(found) == [
        ("compile", "kept"),
        ("FP8 KV cache", "rejected"),
        ("max_num_seqs 256", "rejected"),
        ("final: against vLLM defaults", "measured"),
    ]


def test_options_of_the_user_go_with_every_target(tmp_path: Path) -> None:
    """--set of the user is part of the profile that is tuned, and of what it is held against."""
    search, harness = searching(
        tmp_path, [INCONCLUSIVE], changes=(COMPILE,), overrides=("max_model_len=2048",)
    )
    run(replace(search, against="none"), State(about=ABOUT))
    (call,) = harness.calls
    start = f"{BASE},--set max_model_len=2048"
    assert call[:2] == (f"{start},--set engine.enforce_eager=false", start)


def test_server_that_does_not_start_is_a_trial(tmp_path: Path) -> None:
    """A failed start is recorded with its reason, and the search goes on."""
    failure = TrialError("'fp8' is not supported by this CPU.", "a")
    search, _ = searching(tmp_path, [FASTER, failure, FASTER, FASTER])
    found = run(search, State(about=ABOUT))
    assert [trial.name for trial in found.kept] == ["compile", "max_num_seqs 256"]
    failed = found.state.trials[1]
    assert (failed.outcome, failed.reason) == ("failed", str(failure))


def test_profile_that_is_refused_starts_nothing(tmp_path: Path) -> None:
    """A setting that the profile's own checks refuse costs no start."""

    def check(keys: Any) -> None:
        if "kv_cache_dtype" in keys:
            raise ProfileError("no FP8 here.")

    search, harness = searching(tmp_path, [FASTER, FASTER, FASTER], check=check)
    found = run(search, State(about=ABOUT))
    assert outcomes(found)[1] == ("FP8 KV cache", "failed")
    assert len(harness.calls) == 3


def test_profile_that_does_not_start_ends_the_search(tmp_path: Path) -> None:
    """Where the profile itself does not start, nothing can be compared."""
    search, _ = searching(tmp_path, [TrialError("the port is taken.", "b")])
    with pytest.raises(StartupError) as caught:
        run(search, State(about=ABOUT))
    assert caught.value.message == f"{BASE} does not start: the port is taken."


def test_interrupted_search_goes_on(tmp_path: Path) -> None:
    """What was measured before Ctrl-C is not measured again, and the rest is."""
    search, _ = searching(tmp_path, [FASTER, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        run(search, State(about=ABOUT))
    state = read_state(tmp_path, ABOUT)
    assert [trial.name for trial in state.trials] == ["compile"]

    search, harness = searching(tmp_path, [INCONCLUSIVE, EQUIVALENT, FASTER])
    found = run(search, state)
    assert [call[2] for call in harness.calls] == ["trial-02", "trial-03", "trial-04"]
    assert found.chosen == {"engine.enforce_eager": False}

    search, harness = searching(tmp_path, [])
    again = run(search, read_state(tmp_path, ABOUT))
    assert (again.chosen, again.final) == (found.chosen, found.final)
    assert harness.calls == []


def test_invalid_comparison_is_made_again(tmp_path: Path) -> None:
    """A disturbed comparison answers nothing: it is kept as a record, and repeated next time."""
    search, _ = searching(tmp_path, [INVALID], changes=(COMPILE,), against="none")
    assert outcomes(run(search, State(about=ABOUT))) == [("compile", "invalid")]
    search, harness = searching(tmp_path, [FASTER], changes=(COMPILE,), against="none")
    found = run(search, read_state(tmp_path, ABOUT))
    assert outcomes(found) == [("compile", "kept")]
    assert harness.calls[0][2] == "trial-02"


def test_comparison_that_broke_is_made_again(tmp_path: Path) -> None:
    """Only that a candidate does not start is known for good; all else may go right next time."""
    broke = TrialError("the harness said nothing")
    search, _ = searching(tmp_path, [broke], changes=(COMPILE,), against="none")
    assert outcomes(run(search, State(about=ABOUT))) == [("compile", "invalid")]
    search, _ = searching(tmp_path, [FASTER], changes=(COMPILE,), against="none")
    assert outcomes(run(search, read_state(tmp_path, ABOUT))) == [("compile", "kept")]

    no_start = TrialError("no FP8 here.", "a")
    search, _ = searching(tmp_path, [no_start], changes=(FP8_KV,), against="none")
    run(search, read_state(tmp_path, ABOUT))
    search, harness = searching(tmp_path, [], changes=(FP8_KV,), against="none")
    assert outcomes(run(search, read_state(tmp_path, ABOUT)))[-1] == ("FP8 KV cache", "failed")
    assert harness.calls == []


@pytest.mark.parametrize("side", ["a", "b", None])
def test_final_comparison_is_made_again(tmp_path: Path, side: Any) -> None:
    """Whoever did not start at the end, the next run has the final figure; no trial is lost."""
    failure = TrialError("no memory left.", side)
    search, _ = searching(tmp_path, [FASTER, failure], changes=(COMPILE,))
    found = run(search, State(about=ABOUT))
    assert found.final is not None
    assert (found.final.reason, found.final.compared) == ("no memory left.", None)

    search, harness = searching(tmp_path, [FASTER], changes=(COMPILE,))
    found = run(search, read_state(tmp_path, ABOUT))
    assert [call[:2] for call in harness.calls] == [(COMPILED, ON_VLLM)]
    assert outcomes(found) == [("compile", "kept"), ("final: against vLLM defaults", "measured")]


def test_profile_of_an_interrupted_search(tmp_path: Path) -> None:
    """As Ctrl-C says: --max-trials 1 --against none takes what was kept, and measures nothing."""
    search, _ = searching(tmp_path, [FASTER, INCONCLUSIVE, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        run(search, State(about=ABOUT))

    search, harness = searching(tmp_path, [], limits=Limits(max_trials=1), against="none")
    found = run(search, read_state(tmp_path, ABOUT))
    assert harness.calls == []
    assert found.chosen == {"engine.enforce_eager": False}
    assert found.left_out == ["max_num_seqs 256"]


def test_one_value_of_a_setting_is_enough(tmp_path: Path) -> None:
    """Once a value of a setting is kept, its others are not tried."""
    changes = (BIG, SMALL, COMPILE)
    search, harness = searching(tmp_path, [FASTER] * 3, changes=changes)
    found = run(search, State(about=ABOUT))
    assert found.chosen == {"engine.max_num_seqs": 256, "engine.enforce_eager": False}
    assert len(harness.calls) == 3


def test_trials_are_bounded(tmp_path: Path) -> None:
    """No more settings than --max-trials are tried; the final comparison is made all the same."""
    search, harness = searching(tmp_path, [FASTER, FASTER], limits=Limits(max_trials=1))
    found = run(search, State(about=ABOUT))
    assert found.left_out == ["FP8 KV cache", "max_num_seqs 256"]
    assert [call[2] for call in harness.calls] == ["trial-01", "trial-02"]
    assert found.final is not None


def test_minutes_are_bounded(tmp_path: Path) -> None:
    """A comparison begins only where it and the final one fit in, by what the first one took."""
    search, harness = searching(
        tmp_path,
        [FASTER, EQUIVALENT, FASTER],
        limits=Limits(max_minutes=35),
        changes=(COMPILE, BIG),
    )
    found = run(search, State(about=ABOUT))
    assert (found.left_out, harness.now_s) == ([], 30 * MINUTE_S)

    search, harness = searching(
        tmp_path, [FASTER, FASTER], limits=Limits(max_minutes=30), changes=(COMPILE, BIG)
    )
    found = run(search, State(about=ABOUT))
    assert (found.left_out, harness.now_s) == (["max_num_seqs 256"], 20 * MINUTE_S)


def test_nothing_kept(tmp_path: Path) -> None:
    """Against the profile itself there is nothing to hold it against where nothing was kept."""
    search, harness = searching(tmp_path, [EQUIVALENT] * 3, against="base")
    found = run(search, State(about=ABOUT))
    assert (found.kept, found.final, len(harness.calls)) == ([], None, 3)
