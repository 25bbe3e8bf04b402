"""F1 of the faults: an engine core is killed under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.figures import broken
from tests.faults.killed import engine_is_killed
from tests.faults.site import Scale

pytestmark = pytest.mark.engine


@pytest.mark.usefixtures("no_other")
def test_killed_engine(profile: Path, tmp_path: Path) -> None:
    """
    Every open request of every API ends with an error that says so, none with a success; the server
    exits with 1 within 10 s and leaves nothing.
    """
    found = engine_is_killed(profile, tmp_path, Scale())
    print(found)  # for `pytest -rP`
    assert not broken(found)
