"""What fits, what would, and what is said before anything is loaded."""

from __future__ import annotations

import pytest

from gemma_serve.errors import ModelError, StartupError
from gemma_serve.profile.chain import packaged_names
from gemma_serve.sizing.fit import (
    changes,
    fitting_gpus,
    parallel_sizes,
    recommended_size,
    refuse_unfit,
    unfit,
)
from gemma_serve.sizing.report import report_json, report_of
from tests.engine.derive import TWO_CORES, checkpoint_of
from tests.profile.arithmetic import GIB
from tests.sizing.subjects import packaged, subject

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize("name", [name for name in packaged_names() if name != "gemma-3-270m"])
def test_packaged_profiles_fit_their_gpus(name: str) -> None:
    """Each fits the memory that it was written for, by the model of what is beside the weights."""
    asked = packaged(name, "h100")
    gib = asked.loaded.profile.meta.gpu_memory_gib
    gpu = {79: "h100", 22.5: "l4", 22: "l4", 39: "a100-40", 140: "h200"}[gib or 0]

    assert packaged(name, gpu).size().fits


def test_too_little_memory_names_what_would_do() -> None:
    """27B on two L4: the numbers that are missing, and settings with which it fits."""
    asked = packaged("gemma-3-27b-it", "l4")

    with pytest.raises(StartupError) as refused:
        refuse_unfit(asked, asked.size())

    assert refused.value.message == (
        "google/gemma-3-27b-it needs 25.9 GiB for its weights, 2.4 GiB for the KV cache of one "
        "request of 32,768 tokens and about 1.7 GiB (modelled) beside them on each GPU, and of the "
        "22.5 GiB of NVIDIA L4 vLLM may take 20.7; use dtype: fp8, tensor_parallel_size: 4, or a "
        "GPU with more memory (h100, h200, a100-40, a100-80, b200)."
    )


def test_every_change_that_is_named_makes_it_fit() -> None:
    """Sized anew with the settings that were named, each profile fits; FP8 and GPUs are among."""
    asked = packaged("gemma-3-27b-it", "l4")
    found = changes(asked, asked.size())

    assert [dict(change.settings) for change in found] == [
        {"dtype": "fp8"},
        {"tensor_parallel_size": 4},
    ]
    for change in found:
        assert asked.changed(change.settings).size().fits
    for gpu in fitting_gpus(asked):
        assert packaged("gemma-3-27b-it", gpu).size().fits


def test_two_changes_where_none_is_enough() -> None:
    """31B on one L4 needs FP8 and more GPUs, or more GPUs than one alone would say."""
    asked = packaged("gemma-4-31B-it", "l4", {"tensor_parallel_size": 1})

    (change,) = [c for c in changes(asked, asked.size()) if "tensor_parallel_size" in c.settings]

    assert change.sizing.fits
    assert change.settings["tensor_parallel_size"] in (4, 8)


def test_kv_cache_that_is_too_small_names_what_it_needs() -> None:
    """On a CPU the cache's memory is known to the byte, and so is what would do."""
    asked = subject(
        TWO_CORES, model="embedded/gemma-3-270m", max_model_len=8192, kv_cache_memory_gib=0.02
    )

    with pytest.raises(StartupError) as refused:
        refuse_unfit(asked, asked.size())

    assert refused.value.message == (
        "max_model_len 8192 needs 63.8 MiB for the KV cache of one request of 8,192 tokens, and "
        "the profile gives it 20.2 MiB; use kv_cache_memory_gib: 0.07, or max_model_len: 1024."
    )


def test_what_may_fit_is_left_to_vllm() -> None:
    """Only what can't fit whatever is needed beside the weights is refused."""
    asked = packaged("gemma-3-27b-it", "h100", {"tensor_parallel_size": 1, "max_model_len": 131072})
    tight = asked.changed({"engine.gpu_memory_utilization": 0.88})

    sizing = tight.size()
    refuse_unfit(tight, sizing)

    assert not sizing.fits
    assert not sizing.certainly_unfit


def test_recommended_size_is_the_smallest_with_room_for_requests() -> None:
    """31B in bf16 fits one H100 for a few requests, and is given as many GPUs as eight need."""
    sizes = parallel_sizes(packaged("gemma-4-31B-it", "h100"))
    by_size = {sizing.deployment.tensor_parallel_size: sizing for sizing in sizes}
    found = recommended_size(sizes, 1280)

    assert list(by_size) == [1, 2, 4, 8]
    assert found is not None
    assert by_size[found].concurrency(1280) >= 8
    assert all(by_size[size].concurrency(1280) < 8 for size in by_size if size < found)
    assert recommended_size(parallel_sizes(packaged("gemma-4-31B-it", "l4")), 1280) in (4, 8)


def test_concurrency_is_bounded_by_max_num_seqs_and_the_context() -> None:
    """No more than the scheduler takes, and none that is longer than the context."""
    sizing = packaged("gemma-3-1b-it", "h100", {"engine": '{"max_num_seqs": 5}'}).size()

    assert sizing.concurrency(100) == 5
    assert sizing.concurrency(sizing.deployment.max_model_len + 1) == 0


def test_engine_section_is_changed_where_it_decides() -> None:
    """A key that `engine:` sets wins over the profile's, so that is the one to change."""
    asked = subject(
        "h100", model="google/gemma-3-1b-it", engine={"max_model_len": 4096}, max_model_len=8192
    )

    assert asked.size().deployment.max_model_len == 4096
    assert asked.changed({"max_model_len": 2048}).size().deployment.max_model_len == 2048


def test_other_models_are_not_counted() -> None:
    """A model that is not Gemma is one line, not a wrong number."""
    other = checkpoint_of(LLAMA, generation=None)

    with pytest.raises(ModelError, match="is not Gemma 1 to 4, and a plan counts the layers"):
        subject("h100", checkpoint=other, model="someone/model", allow_other_models=True).size()


def test_explicit_cache_on_a_gpu_may_take_all_its_memory() -> None:
    """kv_cache_memory_gib replaces gpu_memory_utilization, and must fit beside the weights."""
    fitting = subject("l4", model="google/gemma-3-1b-it", kv_cache_memory_gib=15.0).size()
    too_much = subject("l4", model="google/gemma-3-1b-it", kv_cache_memory_gib=22.0).size()

    assert (fitting.fits, fitting.kv_cache_bytes) == (True, 15 * GIB)
    assert not too_much.fits


@pytest.mark.parametrize("in_engine", [False, True], ids=["key", "engine"])
def test_kv_cache_that_is_too_large_names_what_would_fit(in_engine: bool) -> None:
    """The memory that was asked for, and the largest that there is, to a hundredth of a GiB."""
    name = "engine.kv_cache_memory_bytes" if in_engine else "kv_cache_memory_gib"
    unit = GIB if in_engine else 1
    keys = {"engine": {"kv_cache_memory_bytes": 22 * GIB}} if in_engine else {name: 22.0}
    asked = subject("l4", model="google/gemma-3-1b-it", **keys)

    first, *_ = changes(asked, asked.size())
    said = unfit(asked, asked.size())

    assert "22.0 GiB for the KV cache that it is given" in said
    assert f"vLLM may take 22.5; use {name}: " in said
    largest = first.settings[name]
    more = largest + (GIB // 50 if in_engine else 0.02)
    assert 15 * unit < largest < 22 * unit
    assert first.sizing.fits
    assert not asked.changed({name: more}).size().fits


def test_too_small_a_share_of_the_gpu_is_what_is_changed() -> None:
    """27B in half of an H100: vLLM's own share of it is enough."""
    half = {"tensor_parallel_size": 1, "engine.gpu_memory_utilization": 0.5}
    asked = packaged("gemma-3-27b-it", "h100", half)

    found = [dict(change.settings) for change in changes(asked, asked.size())]

    assert found[0] == {"engine.gpu_memory_utilization": 0.92}
    assert asked.changed(found[0]).size().fits
    assert "vLLM may take 39.8; use engine.gpu_memory_utilization: 0.92, " in unfit(
        asked, asked.size()
    )


def test_a_share_that_is_not_enough_is_not_named() -> None:
    """31B in bf16 is more than an L4 has, whatever vLLM's share of it."""
    half = {"tensor_parallel_size": 1, "engine.gpu_memory_utilization": 0.5}
    asked = packaged("gemma-4-31B-it", "l4", half)

    found = changes(asked, asked.size())

    assert all("engine.gpu_memory_utilization" not in change.settings for change in found)


def test_what_a_cpu_can_not_hold_is_counted_too() -> None:
    """27B on a laptop: a table, a JSON object and one sentence, as on a GPU."""
    asked = subject(TWO_CORES, model="google/gemma-3-27b-it", max_model_len=8192)
    found = report_json(report_of(asked, 100, 10))

    assert (found["fits"], found["changes"], found["roofline"]) == (False, [], None)
    assert found["unfit"] == (
        "google/gemma-3-27b-it needs 51.1 GiB for its weights, 4.0 GiB for the KV cache that it is "
        "given and about 0.5 GiB (modelled) beside them on each CPU worker, and of the 20.0 GiB of "
        "CPU vLLM may take 20.0; use a smaller or quantised model."
    )
    with pytest.raises(StartupError) as refused:
        refuse_unfit(asked, asked.size())
    assert refused.value.message == found["unfit"]


def test_cache_that_is_too_large_for_a_cpu() -> None:
    """What the weights leave of its memory is named."""
    asked = subject(
        TWO_CORES, model="google/gemma-3-4b-it", max_model_len=8192, kv_cache_memory_gib=15
    )

    (change,) = [c for c in changes(asked, asked.size()) if "kv_cache_memory_gib" in c.settings]

    assert 10 < change.settings["kv_cache_memory_gib"] < 12
    assert change.sizing.fits
