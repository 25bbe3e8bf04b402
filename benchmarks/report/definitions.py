"""What each metric is: the docstrings of the functions that compute them, and nothing beside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics.distributions import certified_upper_bound
from benchmarks.metrics.goodput import goodput
from benchmarks.metrics.windows import MANY_A_REQUEST, ONE_A_REQUEST, full_run, steady
from benchmarks.report import words

WINDOW_DEFINITIONS: Sequence[tuple[str, Callable[..., Any]]] = (
    ("Whole run", full_run),
    ("Steady window", steady),
    ("Goodput and attainment", goodput),
    ("Certified percentile", certified_upper_bound),
)


@dataclass(frozen=True)
class Definition:
    """A metric, what it is, and from where the definition is."""

    name: str
    paragraphs: Sequence[str]
    source: str = ""
    key: str = ""


def definitions() -> list[Definition]:
    """The metrics as their functions define them: the docstrings are the only place."""
    metrics = [
        (key, function) for key, (function, _) in {**ONE_A_REQUEST, **MANY_A_REQUEST}.items()
    ]
    found = [_definition(words.metric_name(key), function, key) for key, function in metrics]
    return found + [_definition(name, function) for name, function in WINDOW_DEFINITIONS]


def _definition(name: str, function: Callable[..., Any], key: str = "") -> Definition:
    text = inspect.getdoc(function) or ""
    body, _, source = text.replace("`", "").partition("Source:")
    body = body.partition("Raises:")[0]
    paragraphs = [" ".join(part.split()) for part in body.split("\n\n") if part.strip()]
    return Definition(name, paragraphs, " ".join(source.split()), key)
