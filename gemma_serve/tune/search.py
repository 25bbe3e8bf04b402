"""
The search: one setting at a time on top of those that were kept, each measured in pairs.

Coordinate search: the order is fixed (`space.py`), so that a search which is begun again walks the
same way, and takes from its state what it knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gemma_serve.errors import GemmaServeError, StartupError
from gemma_serve.tune.harness import Method, TrialError
from gemma_serve.tune.outcome import Compared, judge
from gemma_serve.tune.space import Change, options
from gemma_serve.tune.state import Outcome, State, Trial

# Before one is measured: a CPU server is ready after a minute, a block of the default load on the
# 270M takes about 20 s, and the answers to 48 questions two minutes a side (2 cores).
START_S = 60.0
BLOCK_S = 20.0
QUALITY_S = 240.0
FINAL = "final"
Against = Literal["vllm", "base", "none"]
# (a, b, directory, quality) -> what the harness found.
Compare = Callable[[str, str, Path, bool], Compared]
OnTrial = Callable[["Doing"], None]
CheckSettings = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Doing:
    """What is measured now."""

    name: str
    number: int
    num_trials: int


@dataclass(frozen=True)
class Limits:
    """When to stop, whatever is left to try."""

    max_minutes: float = 120.0
    max_trials: int = 12


@dataclass(frozen=True)
class Search:
    """Everything that a search is given."""

    profile: str  # a packaged name or a path
    overrides: tuple[str, ...]  # --set of the user's
    changes: tuple[Change, ...]
    method: Method
    limits: Limits
    directory: Path
    required_attainment: float | None  # None: no SLO
    against: Against
    vllm_defaults: Mapping[str, Any]
    save: Callable[[State], None]
    compare: Compare
    check: CheckSettings  # raises GemmaServeError where a profile with these keys can't be served
    on_trial: OnTrial = lambda _doing: None
    clock: Callable[[], float] = time.monotonic

    def target(self, keys: Mapping[str, Any], kind: str = "profile") -> str:
        """A target of the harness: the profile with the user's options and these keys."""
        settings = [*self.overrides, *options(keys)]
        return ",--set ".join([f"{kind}:{self.profile}", *settings])

    def estimate_s(self, *, lossy: bool, state: State) -> float:
        """Seconds of a comparison; of those that were made, once there are any."""
        made = [trial.seconds for trial in state.trials if trial.compared and not _lossy(trial)]
        base = sum(made) / len(made) if made else 2 * START_S + self.method.num_blocks * BLOCK_S
        return base + (QUALITY_S if lossy else 0.0)


@dataclass
class Found:
    """What a search came to."""

    state: State
    chosen: dict[str, Any] = field(default_factory=dict)
    kept: list[Trial] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # not tried, as a limit was reached
    final: Trial | None = None

    @property
    def attainment(self) -> float | None:
        """Part of the requests that kept the SLO with all that was kept, when last measured."""
        last = [trial for trial in (self.final, *reversed(self.kept)) if trial is not None]
        measured = [trial.compared for trial in last if trial.outcome in ("measured", "kept")]
        parts = (compared.attainment for compared in measured if compared is not None)
        return next((part for part in parts if part is not None), None)

    @property
    def missed_slo(self) -> str | None:
        """That the SLO is not kept, in words; None where it is, or where there is none."""
        required, kept = (self.state.about.get("slo") or {}).get("attainment"), self.attainment
        if required is None or kept is None or kept >= required:
            return None
        return f"the SLO is kept by {kept:.1%} of the requests, not by {required:.1%}"


def _lossy(trial: Trial) -> bool:
    return trial.compared is not None and trial.compared.agreement is not None


def run(search: Search, state: State) -> Found:
    """
    Try each change, keep what is faster within the SLO, then hold the whole against the base.

    The state is saved after each trial. Ends early at a limit, with time left for the final
    comparison.
    """
    found, began_s = Found(state), search.clock()
    # One of several values of a setting is enough.
    settled: set[frozenset[str]] = set()
    for change in search.changes:
        if frozenset(change.keys) in settled:
            continue
        known = found.state.known(change.name, found.chosen, dict(change.keys))
        if known is None and not _has_room(search, found.state, change, search.clock() - began_s):
            found.left_out.append(change.name)
            continue
        trial = known or _try(search, found, change)
        if trial.outcome == "kept":
            found.kept.append(trial)
            found.chosen = change.joined(found.chosen)
            settled.add(frozenset(change.keys))
    if search.against != "none" and (found.chosen or search.against == "vllm"):
        found.final = _final(search, found)
    return found


def _has_room(search: Search, state: State, change: Change, elapsed_s: float) -> bool:
    trials = [trial for trial in state.trials if not trial.name.startswith(FINAL)]
    if len(trials) >= search.limits.max_trials:
        return False
    needed_s = search.estimate_s(lossy=change.lossy, state=state)
    if search.against != "none":
        needed_s += search.estimate_s(lossy=True, state=state)
    return elapsed_s + needed_s <= search.limits.max_minutes * 60


@dataclass(frozen=True)
class _Question:
    """A comparison that is to be made."""

    name: str
    why: str
    before: dict[str, Any]
    keys: dict[str, Any]
    a: dict[str, Any]  # all keys of the candidate
    b: str  # the target that it is held against
    quality: bool


def _try(search: Search, found: Found, change: Change) -> Trial:
    keys, before = dict(change.keys), found.chosen
    search.on_trial(Doing(change.name, len(found.state.trials) + 1, len(search.changes)))
    b = search.target(before)
    question = _Question(
        change.name, change.why, before, keys, change.joined(before), b, change.lossy
    )
    return _measured(search, found, question)


def _final(search: Search, found: Found) -> Trial:
    """All that was kept against the base, with its answers: the figure to be told."""
    on_vllm = search.against == "vllm"
    name = f"{FINAL}: against {'vLLM defaults' if on_vllm else 'the profile'}"
    keys = dict(search.vllm_defaults) if on_vllm else {}
    known = found.state.known(name, found.chosen, keys)
    if known is not None and known.outcome == "measured":  # a failed start may have been vLLM's
        return known
    search.on_trial(Doing(name, len(found.state.trials) + 1, len(search.changes)))
    b = search.target(keys, "vllm" if on_vllm else "profile")
    why = "all that was kept, together"
    question = _Question(name, why, found.chosen, keys, found.chosen, b, quality=True)
    return _measured(search, found, question)


def _outcome(question: _Question, compared: Compared, *, keep: bool) -> Outcome:
    if compared.verdict == "invalid":
        return "invalid"
    if question.name.startswith(FINAL):
        return "measured"  # nothing hangs on it any more
    return "kept" if keep else "rejected"


def _measured(search: Search, found: Found, question: _Question) -> Trial:
    """
    Measure, judge, and save; a candidate that can't be started is an outcome too.

    All else that comes to no record is invalid, and made again.

    Raises:
        StartupError: what it is held against does not start, so that nothing could be compared.
    """
    began_s, directory = search.clock(), found.state.next_directory()
    compared: Compared | None = None
    outcome: Outcome = "failed"
    try:
        search.check(question.a)
        outcome = "invalid"  # until there is a record: what disturbed one may not disturb the next
        target = search.target(question.a)
        compared = search.compare(
            target, question.b, search.directory / directory, question.quality
        )
        keep, reason = judge(compared, search.required_attainment)
        outcome = _outcome(question, compared, keep=keep)
    except TrialError as error:
        if error.side == "b" and not question.name.startswith(FINAL):
            raise StartupError(f"{question.b} does not start: {error}") from None
        if error.side == "a":
            outcome = "failed"
        reason = str(error)
    except GemmaServeError as error:
        reason = error.message
    trial = Trial(
        name=question.name,
        why=question.why,
        before=question.before,
        keys=question.keys,
        outcome=outcome,
        reason=reason,
        compared=compared,
        directory=directory,
        seconds=search.clock() - began_s,
    )
    found.state = found.state.with_trial(trial)
    search.save(found.state)
    return trial
