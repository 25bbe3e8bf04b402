"""What is tried, by platform, profile and load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.profile.load import load_profile
from gemma_serve.tune.space import BINDING, NGRAM, Demand, Permitted, changes_to_try, options
from gemma_serve.tune.space import vllm_defaults as defaults_of
from tests.engine.derive import TWO_CORES
from tests.tune.conftest import plan_of

EMBEDDED = "embedded/gemma-3-270m"
EIGHT_CLIENTS = Demand(concurrency=8, prompt_tokens=128)
EAGER = {"enforce_eager": True}


def names(directory: Path, platform: Any, demand: Demand, **keys: Any) -> list[str]:
    permitted = keys.pop("permitted", Permitted())
    plan = plan_of(directory, platform, **({"model": EMBEDDED} | keys))
    return [change.name for change in changes_to_try(plan, demand, permitted)]


def test_order_on_cpu(tmp_path: Path) -> None:
    """On CPU, compile and narrower weights come first; what 8 clients can't reach is left out."""
    found = names(
        tmp_path, TWO_CORES, EIGHT_CLIENTS, engine=EAGER, permitted=Permitted("/models/fp8")
    )
    assert found == [
        "compile",
        "FP8 weights",
        "FP8 KV cache",
        "speculative ngram",
        "one core for the front end",
    ]


def test_cpu_with_narrow_vectors(tmp_path: Path) -> None:
    """Without AVX-512 bf16 is computed the long way, so that fp32 is tried; FP8 KV can't run."""
    narrow = dataclasses.replace(TWO_CORES, amx=False, avx512=False)
    found = names(tmp_path, narrow, EIGHT_CLIENTS, engine=EAGER)
    assert found == ["fp32", "compile", "speculative ngram", "one core for the front end"]


def test_order_on_cuda(tmp_path: Path) -> None:
    """On CUDA, weights and the batch come first; as modelled, not run on a GPU."""
    demand = Demand(concurrency=2000, prompt_tokens=512)
    found = names(
        tmp_path, "h100", demand, model="google/gemma-3-27b-it", permitted=Permitted("online")
    )
    assert found == [
        "FP8 weights, online",
        "max_num_batched_tokens 16384",
        "max_num_batched_tokens 4096",
        "max_num_seqs 2048",
        "FP8 KV cache",
        "speculative ngram",
    ]


def test_what_the_profile_has_is_not_tried(tmp_path: Path) -> None:
    """A profile that compiles, has an FP8 KV cache and drafts is left with the front end's core."""
    keys = {"kv_cache_dtype": "fp8", "speculative": NGRAM}
    assert names(tmp_path, TWO_CORES, EIGHT_CLIENTS, **keys) == ["one core for the front end"]


def test_threads_where_one_core_is_kept_free(tmp_path: Path) -> None:
    """A profile that binds as vLLM does gets all cores tried first."""
    keys = {"env": {"VLLM_CPU_OMP_THREADS_BIND": "auto"}, "engine": EAGER}
    found = names(tmp_path, TWO_CORES, EIGHT_CLIENTS, **keys)
    assert found[:2] == ["threads on all cores", "compile"]
    assert "one core for the front end" not in found


def test_lossless(tmp_path: Path) -> None:
    """--lossless tries nothing that changes numbers on purpose."""
    permitted = Permitted("/models/fp8", lossless=True)
    found = names(tmp_path, TWO_CORES, EIGHT_CLIENTS, engine=EAGER, permitted=permitted)
    assert found == ["compile", "speculative ngram", "one core for the front end"]


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (Demand(8, None), {"max_num_batched_tokens 4096", "max_num_batched_tokens 1024"}),
        (Demand(8, 1024), {"max_num_batched_tokens 4096", "max_num_batched_tokens 1024"}),
        (Demand(8, 200), {"max_num_batched_tokens 1024"}),
        (Demand(200, 5), {"max_num_seqs 256"}),
        (Demand(8, 10, bounds_itl=True), {"max_num_seqs 4"}),
        (Demand(1, 10, bounds_itl=True), set()),
    ],
)
def test_batch_by_load(tmp_path: Path, demand: Demand, expected: set[str]) -> None:
    """Only sizes of a batch that this load reaches are tried."""
    found = names(tmp_path, TWO_CORES, demand)
    assert {name for name in found if name.startswith("max_num")} == expected


def test_quantised_weights_keep_the_served_name(tmp_path: Path) -> None:
    """Another checkpoint is known to clients by the name of the first."""
    plan = plan_of(tmp_path, TWO_CORES, model=EMBEDDED, served_model_name="gemma")
    changes = changes_to_try(plan, EIGHT_CLIENTS, Permitted("/models/fp8"))
    (weights,) = [change for change in changes if change.name == "FP8 weights"]
    assert options(weights.keys) == [
        'model="/models/fp8"',
        'served_model_name="gemma"',
        "revision=null",
    ]


def test_options_are_read_back_as_they_were(tmp_path: Path) -> None:
    """What a trial sets is what the real loader of profiles finds in it."""
    plan = plan_of(tmp_path, TWO_CORES, model=EMBEDDED, engine=EAGER)
    changes = changes_to_try(plan, Demand(256, 64, bounds_itl=True), Permitted("/models/fp8"))
    for change in changes:
        profile = load_profile("gemma-3-270m", options(change.keys)).profile
        for key, value in change.keys.items():
            section, _, inner = key.partition(".")
            found = getattr(profile, section)
            assert (found.get(inner) if inner else found) == value


def test_vllm_defaults(tmp_path: Path) -> None:
    """vLLM's defaults undo what a profile sets for speed, and bind threads as vLLM does."""
    plan = plan_of(tmp_path, TWO_CORES, model=EMBEDDED, engine={**EAGER, "max_num_seqs": 16})
    defaults = defaults_of(plan)
    assert defaults == {
        "engine.enforce_eager": None,
        "engine.max_num_seqs": None,
        "kv_cache_dtype": "auto",
        "attention_backend": "auto",
        BINDING: "auto",
    }
    profile = load_profile("gemma-3-270m", options(defaults)).profile
    assert (profile.engine, profile.env) == ({}, {"VLLM_CPU_OMP_THREADS_BIND": "auto"})
