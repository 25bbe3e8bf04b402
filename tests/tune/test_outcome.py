"""Recorded comparisons of the harness, read and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_serve.errors import StartupError
from gemma_serve.tune.outcome import judge, read_comparison
from tests.tune.conftest import (
    EQUIVALENT,
    FASTER,
    INCONCLUSIVE,
    INVALID,
    OTHER_ANSWERS,
    RESULTS,
    SLOWER,
    TRADE,
    recorded,
    recorded_with_slo,
)


def test_ratio_with_its_interval() -> None:
    """The throughput's ratio, its interval and its pairs are those of the record."""
    through = recorded(EQUIVALENT).throughput
    assert through is not None
    assert str(through) == "1.006 (95 % 0.980 to 1.032, 8 pairs)"
    assert through.verdict == "equivalent"


def test_agreement_of_answers() -> None:
    """The greedy answers' agreement is told with what it was judged to be."""
    assert str(recorded(OTHER_ANSWERS).agreement) == (
        "output differs: 46% of 48 greedy answers are identical, 55% of an answer agrees"
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (FASTER, True),
        (EQUIVALENT, False),
        (INCONCLUSIVE, False),
        (SLOWER, False),
        (INVALID, False),
        (TRADE, False),
    ],
)
def test_without_slo_only_faster_is_kept(name: str, kept: bool) -> None:
    """Without an SLO, a setting is kept where the harness calls it faster, and not for a trade."""
    found = recorded(name)
    assert judge(found, None) == (kept, found.message)


@pytest.mark.parametrize(
    ("name", "a", "b", "kept"),
    [
        (TRADE, (32, 32), (32, 32), True),  # more tokens/s, and the SLO says that it may
        (TRADE, (28, 32), (32, 32), False),
        (FASTER, (29, 32), (32, 32), True),
        (FASTER, (28, 32), (32, 32), False),
        (FASTER, (10, 32), (8, 32), True),  # nearer to an SLO that neither keeps
        (FASTER, (8, 32), (10, 32), False),
        (EQUIVALENT, (32, 32), (32, 32), False),
        (SLOWER, (32, 32), (8, 32), False),
        (INVALID, (32, 32), (32, 32), False),
    ],
)
def test_within_an_slo(
    tmp_path: Path, name: str, a: tuple[int, int], b: tuple[int, int], kept: bool
) -> None:
    """With an SLO of 90 % of the requests, gains count where it is kept, or comes nearer."""
    found = read_comparison(recorded_with_slo(tmp_path, name, a, b))
    assert (found.attainment, found.attainment_before) == (a[0] / a[1], b[0] / b[1])
    assert judge(found, 0.9)[0] is kept


def test_slo_that_is_not_kept_is_told() -> None:
    """The reason names the part of the requests that kept it; none was counted here."""
    assert judge(recorded(FASTER), 0.9) == (
        False,
        "the SLO is kept by an unknown part of the requests",
    )


def test_other_files_are_refused() -> None:
    """A record of another kind is not read as a comparison."""
    file = RESULTS / "judge-c8.json"
    with pytest.raises(StartupError) as caught:
        read_comparison(file)
    assert caught.value.message.startswith(
        f"{file} is no record of 'python -m benchmarks compare' ("
    )
