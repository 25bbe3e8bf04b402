"""A server of the tiny model for faults: whatever is left of it afterwards is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Serve


@pytest.fixture
def serve(tiny_profile: Path, tmp_path: Path, serve_profile: object) -> Serve:
    """Starts servers of the tiny model in a session of their own; no other engine runs beside."""
    return Serve(tiny_profile, tmp_path)
