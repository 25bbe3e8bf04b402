"""A tiny Gemma whose matrices blocks of 128 divide."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import pytest

from tests.quantize.checkpoints import SHAPE
from tests.tiny_gemma import make_tiny_gemma


@pytest.fixture(scope="session")
def blocky_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with matrices that FP8's blocks divide."""
    return make_tiny_gemma(tmp_path_factory.mktemp("blocky"), **SHAPE)


@pytest.fixture(scope="session")
def calibration_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few thousand tokens of English."""
    file = tmp_path_factory.mktemp("text") / "calibration.txt"
    file.write_text("\n".join(list(pydoc_data.topics.topics.values())[:4]), encoding="utf-8")
    return file
