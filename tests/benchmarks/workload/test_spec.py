"""What can be asked of a workload, and the sentence when it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.workload import WorkloadError, WorkloadSpec, parse_spec
from benchmarks.workload.lengths import Fixed, Normal, Uniform
from benchmarks.workload.spec import Prefix, Synthetic

KINDS = "synthetic, prefix, multi_turn, images, file or trace"


def test_kind_chooses_the_model() -> None:
    """A spec is the model of its kind, with lengths as numbers, text or fields."""
    normal = {"distribution": "normal", "mean": 9, "std": 2}
    spec = parse_spec({"kind": "synthetic", "input": 5, "output": "6-7"})
    other = parse_spec(
        {"kind": "prefix", "num_groups": 2, "prefix_tokens": 9, "input": normal, "output": "8"}
    )

    assert spec == Synthetic(input=Fixed(tokens=5), output=Uniform(low=6, high=7))
    assert isinstance(other, Prefix)
    assert other.input == Normal(mean=9, std=2)
    assert isinstance(other, WorkloadSpec)


def test_round_trip() -> None:
    """A spec's own fields give the spec again."""
    spec = parse_spec({"kind": "synthetic", "input": "lognormal:5,1", "output": "6-7"})

    assert parse_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, f"workload kind None is unknown; use {KINDS}"),
        ({"kind": "sonnet"}, f"workload kind 'sonnet' is unknown; use {KINDS}"),
        ({"kind": "synthetic", "output": 1}, "a workload of kind synthetic needs input"),
        (
            {"kind": "synthetic", "input": 1, "output": 1, "turns": 2},
            "a workload of kind synthetic has no turns",
        ),
        (
            {"kind": "synthetic", "input": 1, "output": 1, "id_low": 5000},
            "workload of kind synthetic: id_low=5000 is not below id_high=4000",
        ),
        (
            {"kind": "images", "input": 1, "output": 1, "width": 0},
            "workload of kind images: width=0: input should be greater than or equal to 1",
        ),
    ],
)
def test_wrong_specs(fields: dict[str, Any], sentence: str) -> None:
    """What is unknown, missing or out of range is named in one sentence."""
    with pytest.raises(WorkloadError) as caught:
        parse_spec(fields)

    assert str(caught.value) == sentence


def test_wrong_lengths_in_a_spec() -> None:
    """Wrong lengths keep their own sentence and say whose they are."""
    with pytest.raises(
        WorkloadError, match=r"^workload of kind synthetic: output: lengths '3-1': "
    ):
        parse_spec({"kind": "synthetic", "input": 1, "output": "3-1"})
