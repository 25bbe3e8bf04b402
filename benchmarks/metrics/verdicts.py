"""How a check is written: a value against its limit, or why there is no value."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.records import Check

# Of a comparison, and never red.
CONDITIONS = ("prompts_by_protocol", "starts")
OF_METRIC = "metric "  # before the name of one that could not be compared


def judged(name: str, value: float, limit: float, seen: str, advice: str, unit: str = "") -> Check:
    """Red above the limit, with the advice; ok up to it, with what was seen."""
    red = value > limit
    return Check(
        name=name,
        status="red" if red else "ok",
        value=value,
        limit=limit,
        unit=unit,
        message=advice if red else seen,
    )


def judged_at_least(
    name: str, value: float, limit: float, seen: str, advice: str, unit: str = ""
) -> Check:
    """Red below the limit."""
    check = judged(name, -value, -limit, seen, advice, unit)
    return check.model_copy(update={"value": value, "limit": limit})


def not_measured(name: str, why: str) -> Check:
    """A check that could not be made."""
    return Check(name=name, status="not_measured", message=why)


def conditions(checks: Sequence[Check]) -> list[str]:
    """What a comparison's verdict does not cover, and is to be read with it."""
    return [
        check.message
        for check in checks
        if check.name in CONDITIONS or check.name.startswith(OF_METRIC)
    ]


def percent(share: float) -> str:
    """A share for a person: '0.4 %', '17 %'."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
