"""What is written behind an option: read, or refused in one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, get_args

from benchmarks.workload import WorkloadError


def refuse(given: Mapping[str, Any], why: str, advice: str = "leave it out") -> None:
    """
    What was given and would be ignored is a mistake.

    Raises:
        WorkloadError: the first of these options that has a value.
    """
    for option, value in given.items():
        if value is not None:
            raise WorkloadError(f"{option} {value} was given, and {why}; {advice}")


def numbers(option: str, text: str, example: str, *, whole: bool = True) -> list[float]:
    """
    A list of numbers, each of them once.

    Raises:
        WorkloadError: it is none.
    """
    found = [_number(part.strip(), whole=whole) for part in text.split(",")]
    if any(one is None for one in found):
        kind = "whole numbers from 1 on" if whole else "numbers from 0.001 on"
        raise WorkloadError(f"{option} {text} is no list of {kind}; write it like {example}")
    listed = [one for one in found if one is not None]
    names = [f"{one:g}" for one in listed]  # as in the directories of what is measured
    for name in names:
        if names.count(name) > 1:
            raise WorkloadError(f"{option} {text} has {name} twice; give each number once")
    return listed


def _number(text: str, *, whole: bool) -> float | None:
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        return None
    # As little as --rate takes, and no infinity.
    return value if 0.001 <= value < float("inf") else None


def cores(text: str) -> tuple[int, ...]:
    """
    The cores of a list as taskset takes it.

    Raises:
        ValueError: it is none, or names a core that this process may not use.
    """
    allowed, named = os.sched_getaffinity(0), set[int]()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        asked = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else ()
        if not asked or not allowed.issuperset(asked):
            raise ValueError(
                f"--client-cpus {text} is no list of cores that this process may use, which are "
                f"{','.join(map(str, sorted(allowed)))}; write it like 1 or 2,4-5"
            )
        named.update(asked)
    return tuple(sorted(named))


def one_of(option: str, value: str | None, literal: Any) -> str | None:
    """
    A word of a Literal.

    Raises:
        ValueError: it is none of those allowed.
    """
    allowed = get_args(literal)
    if value is not None and value not in allowed:
        raise ValueError(f"{option} {value} is unknown; use {', '.join(allowed)}")
    return value
