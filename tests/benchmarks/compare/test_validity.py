"""What makes a comparison invalid."""

from __future__ import annotations

from typing import Any

from benchmarks.compare.validity import DISTURBANCES, RunPair, is_disturbed, merge
from benchmarks.compare.verdict import MeasuredPair
from benchmarks.metrics.client_checks import client_checks
from benchmarks.records import ClientHealth, Load, Validity
from tests.benchmarks.compare.made_up import made_up_run, record


def pair(
    number: int = 0, *, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None
) -> RunPair:
    """A pair of made-up runs."""
    return MeasuredPair(
        "AB",
        made_up_run(**(a or {})),
        made_up_run(**(b or {})),
        f"a_b-{number:02d}-a",
        f"a_b-{number:02d}-b",
    )


def message(validity: Validity, name: str) -> str:
    """What a check says."""
    (found,) = [check.message for check in validity.checks if check.name == name]
    return found


def test_prompts_by_protocol() -> None:
    """Two protocols' prompts are told by their tokens a request; one protocol's are no question."""
    two = pair(
        a={"protocol": "triton-grpc", "prompt_tokens": 720},
        b={"protocol": "openai-chat", "prompt_tokens": 640},
    )
    found = merge([], [two])

    assert found.verdict == "VALID"
    assert message(found, "prompts_by_protocol") == (
        "the same prompts are 72.0 tokens in A and 64.0 in B, by openai-chat and triton-grpc"
    )
    assert "prompts_by_protocol" not in {check.name for check in merge([], [pair()]).checks}


def test_valid() -> None:
    """Where every block is valid, so is the comparison; each arm has each check once."""
    found = merge([pair()], [pair(1), pair(2)])
    assert found.verdict == "VALID"
    names = [check.name for check in found.checks]
    assert names.count("failed_share (A)") == names.count("failed_share (B)") == 1
    # A: both halves of the A/A pair and two of its own.
    assert message(found, "failed_share (A)") == "kept in all 4 blocks"
    assert message(found, "failed_share (B)") == "kept in all 2 blocks"
    assert message(found, "noise_floor") == "A was measured against itself in 1 pairs"


def test_red_names_arm_and_block() -> None:
    """A red check of one block makes the comparison invalid, and names the arm and the block."""
    found = merge([], [pair(1), pair(2, b={"red": ["failed_share"]})])
    assert found.verdict == "INVALID"
    (red,) = [check for check in found.checks if check.status == "red"]
    assert red.name == "failed_share (B)"
    assert red.message == "1 of 2 blocks, first a_b-02-b: failed_share was looked at"


def test_different_work() -> None:
    """Two of a pair that sent different workloads are no pair."""
    found = merge([], [pair(1, b={"sha256": "1"})])
    assert found.verdict == "INVALID"
    assert message(found, "same_work") == (
        "a_b-01-a and a_b-01-b sent different workloads; give both of a pair the same seed"
    )


def test_repeated_pairs_are_told_and_not_counted() -> None:
    """A pair that was measured again is named, and its red check does not count."""
    found = merge([], [pair(2)], [pair(1, a={"red": ["cpu_steal"]})])
    assert found.verdict == "VALID"
    assert message(found, "repeated_pairs").endswith("not counted: a_b-01-a and a_b-01-b")


def test_what_is_missing_is_told() -> None:
    """No A/A, and a metric that is not everywhere, are said, and are not red."""
    found = merge([], [pair()], missing=["goodput_rps"])
    assert found.verdict == "VALID"
    assert message(found, "noise_floor").startswith("A was not measured against itself")
    assert message(found, "metric goodput_rps").startswith("goodput_rps is not compared")


def test_what_is_left_out_is_told_with_its_reason() -> None:
    """A declared metric that could not be compared says what it would take."""
    found = merge([], [pair()], left_out={"itl_p95_s": "it needs 130 requests a side"})
    assert found.verdict == "VALID"
    assert message(found, "metric itl_p95_s") == (
        "itl_p95_s is not compared: it needs 130 requests a side"
    )


def test_disturbed() -> None:
    """A busy machine or client disturbs a pair; a failed request does not."""
    assert is_disturbed(pair(a={"red": ["cpu_steal"]}))
    assert is_disturbed(pair(b={"red": ["foreign_cpu", "failed_share"]}))
    assert not is_disturbed(pair(b={"red": ["failed_share"]}))


def test_disturbances_are_checks_of_a_run() -> None:
    """What disturbs a pair is named as the checks of a run name it."""
    health = ClientHealth(wall_s=10, cpu_s=1, loop_lag_s=[1.0], foreign_cpu=0.5, steal=0.5)
    checks = client_checks([record()], Load(mode="closed", concurrency=1), health)
    assert {check.name for check in checks if check.status == "red"} == DISTURBANCES
