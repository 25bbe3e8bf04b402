"""What the tests of the embedded model share: it is built once, in a cache of its own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from gemma_serve.gemma.embedded import prepare


class Built(NamedTuple):
    """A checkpoint made from nothing, and what was said meanwhile."""

    directory: Path
    lines: list[str]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The embedded model, freshly converted."""
    lines: list[str] = []
    return Built(prepare(cache_dir=tmp_path_factory.mktemp("cache"), say=lines.append), lines)
