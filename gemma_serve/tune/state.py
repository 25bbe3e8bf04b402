"""What a search has found so far, in a file that an interrupted one goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from gemma_serve.errors import StartupError
from gemma_serve.tune.outcome import Compared, Part

SCHEMA = "gemma-serve-tune/1"
FILE = "state.json"
Outcome = Literal["kept", "rejected", "measured", "invalid", "failed"]


class Trial(Part):
    """One setting, held against the profile as it was before."""

    name: str
    before: dict[str, Any]  # dotted keys on top of the profile that was tuned
    keys: dict[str, Any]  # what this trial changes in them
    outcome: Outcome
    reason: str
    why: str = ""
    compared: Compared | None = None  # None where a server did not start
    directory: str
    seconds: float

    def is_of(self, name: str, before: dict[str, Any], keys: dict[str, Any]) -> bool:
        """Whether it answers this question."""
        return (self.name, self.before, self.keys) == (name, before, keys)


class State(Part):
    """A search: what it is about, and its trials in order."""

    schema_version: str = SCHEMA
    about: dict[str, Any]  # profile, load, SLO, vLLM and machine: what makes trials comparable
    trials: tuple[Trial, ...] = ()

    def known(self, name: str, before: dict[str, Any], keys: dict[str, Any]) -> Trial | None:
        """
        The trial that answers a question; an invalid one answers none, and is made again.

        A candidate that did not start would not start again: that is an answer.
        """
        fitting = (trial for trial in self.trials if trial.is_of(name, before, keys))
        return next((trial for trial in fitting if trial.outcome != "invalid"), None)

    def next_directory(self) -> str:
        """Where the next comparison's files go; no earlier one's are overwritten."""
        numbers = [int(trial.directory.removeprefix("trial-")) for trial in self.trials]
        return f"trial-{max(numbers, default=0) + 1:02d}"

    def with_trial(self, trial: Trial) -> State:
        """The state after one more."""
        others = [
            other for other in self.trials if not other.is_of(trial.name, trial.before, trial.keys)
        ]
        return self.model_copy(update={"trials": (*others, trial)})


def read_state(directory: Path, about: dict[str, Any]) -> State:
    """
    The state of this search, new where there is none.

    Raises:
        StartupError: The file is of another search, or can't be read.
    """
    file = directory / FILE
    if not file.exists():
        return State(about=about)
    try:
        state = State.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        raise StartupError(
            f"The state of the search in {file} can't be read; begin anew with --restart."
        ) from None
    # As JSON has them: tuples are lists there.
    now: dict[str, Any] = json.loads(json.dumps(about))
    if state.about != now:
        changed = [key for key in now | state.about if now.get(key) != state.about.get(key)]
        raise StartupError(
            f"{directory} holds another search (different: {', '.join(changed)}); begin anew with "
            "--restart, or write to another file with --out."
        )
    return state


def write_state(directory: Path, state: State) -> None:
    """Write it whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".{FILE}.{os.getpid()}.tmp"
    unfinished.write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.replace(directory / FILE)
