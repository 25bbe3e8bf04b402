"""Servers for faults: whatever is left of one afterwards is found."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.faults.site import make_profile


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of a tiny model in float32."""
    return make_profile(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def no_other(engine_slot: contextlib.ExitStack) -> None:
    """No other engine runs beside those of the test."""
    engine_slot.close()
