"""What a comparison looks like on a terminal."""

from __future__ import annotations

from rich.console import Console

from benchmarks.compare.quality import compare_answers, with_quality
from benchmarks.compare.table import opening, print_comparison
from benchmarks.records import Comparison
from tests.benchmarks.compare.made_up import record
from tests.benchmarks.compare.test_run import Script, wobbling


def printed(comparison: Comparison) -> str:
    """The comparison on a terminal of 140 columns."""
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(comparison, console)
    return console.export_text()


def test_opens_with_validity_and_verdict() -> None:
    """Validity comes first, then who is who, then the verdict with its interval."""
    found = Script(wobbling(1.05)).compare()
    assert opening(found).startswith("VALID. A is a, B is b. faster: A gives 1.050 times B's")
    text = printed(found)
    assert text.startswith("VALID. A is a")
    assert "output_tps (tokens/s)" in text
    assert "10 pairs" in text


def test_invalid_opens_with_it() -> None:
    """An invalid comparison opens with INVALID and lists each red check."""
    text = printed(Script(wobbling(1.05), red={8: ["failed_share"]}).compare())
    assert text.startswith("INVALID. ")
    assert "red: failed_share (B): 1 of 10 blocks" in text


def test_conditions_of_the_verdict() -> None:
    """What the verdict does not cover is said beside it: one start, and metrics left out."""
    text = " ".join(printed(Script(wobbling(1.05)).compare()).split())
    assert "each server was started once: the luck of a start" in text
    assert "goodput_rps is not compared: there is no SLO" in text


def test_another_output_is_tagged() -> None:
    """Where the answers differ, the speed claim is tagged so; where they agree, it is not."""
    found = Script(wobbling(1.05)).compare()
    a, b = [record(0, token_ids=[1, 2])], [record(0, token_ids=[3, 4])]
    tagged = with_quality(found, compare_answers(a, b))
    assert tagged.message == f"[output differs] {found.message}"
    assert "output differs: 0 % of 1 greedy answers are identical" in printed(tagged)
    assert with_quality(found, compare_answers(a, a)).message == found.message


def test_json_round_trip() -> None:
    """compare.json holds everything: read again it is the same comparison."""
    found = Script(wobbling(1.05)).compare()
    assert Comparison.model_validate_json(found.model_dump_json(by_alias=True)) == found
