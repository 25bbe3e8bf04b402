"""The state of a search: whose it is, and whether it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_serve.errors import StartupError
from gemma_serve.tune.state import FILE, State, Trial, read_state, write_state
from tests.tune.conftest import FASTER, recorded

ABOUT = {"profile": "gemma-3-270m", "load": {"concurrency": 8}, "machine": "CPU, 2 cores"}
TRIAL = Trial(
    name="compile",
    before={},
    keys={"engine.enforce_eager": False},
    outcome="kept",
    reason="faster",
    compared=recorded(FASTER),
    directory="trial-01",
    seconds=420.5,
)


def test_new_search(tmp_path: Path) -> None:
    """Where there is no file, a search begins anew."""
    assert read_state(tmp_path / "none", ABOUT) == State(about=ABOUT)


def test_round_trip(tmp_path: Path) -> None:
    """What was found is read back as it was."""
    state = State(about=ABOUT).with_trial(TRIAL)
    write_state(tmp_path, state)
    assert read_state(tmp_path, ABOUT) == state


def test_state_of_another_search(tmp_path: Path) -> None:
    """Trials of another load or machine are not taken over; what differs is named."""
    write_state(tmp_path, State(about=ABOUT).with_trial(TRIAL))
    with pytest.raises(StartupError) as caught:
        read_state(tmp_path, ABOUT | {"load": {"concurrency": 16}, "machine": "CPU, 4 cores"})
    assert caught.value.message == (
        f"{tmp_path} holds another search (different: load, machine); begin anew with --restart, "
        "or write to another file with --out."
    )


def test_broken_state(tmp_path: Path) -> None:
    """A file that is no state is refused with what helps."""
    (tmp_path / FILE).write_text('{"trials": 3')
    with pytest.raises(StartupError) as caught:
        read_state(tmp_path, ABOUT)
    assert caught.value.message == (
        f"The state of the search in {tmp_path / FILE} can't be read; begin anew with --restart."
    )
