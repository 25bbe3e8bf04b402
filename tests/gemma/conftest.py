"""What the tests of the embedded model share: it is built once, and served in float32 once."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from gemma_serve.gemma.embedded import prepare
from tests.servers import Server, serving

EMBEDDED = "gemma-3-270m"


class Built(NamedTuple):
    """A checkpoint made from nothing, and what was said meanwhile."""

    directory: Path
    lines: list[str]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The embedded model, freshly converted, in a cache of its own."""
    lines: list[str] = []
    return Built(prepare(cache_dir=tmp_path_factory.mktemp("cache"), say=lines.append), lines)


@pytest.fixture(scope="session")
def float32_server(
    engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """
    The embedded model in float32, where each token can be held against transformers.

    It runs until another test takes the engine's slot: the tests that use it follow one another.
    """
    log = tmp_path_factory.mktemp("log") / "float32.log"
    engine_slot.close()
    return engine_slot.enter_context(serving(EMBEDDED, ["dtype=fp32"], log, dict(os.environ)))
