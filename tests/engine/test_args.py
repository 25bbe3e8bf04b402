"""From profile, checkpoint and platform to what vLLM is started with."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.engine.settings import Resolved, Setting
from gemma_serve.errors import GemmaServeError
from tests.engine.derive import (
    EIGHT_CORES,
    FIELDS,
    GIB,
    T4,
    TWO_CORES,
    TWO_L4,
    checkpoint_of,
    derive,
)

SMALL = "google/gemma-3-270m-it"
BLOCK_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
TWO_NODES = {"nnodes": 2, "master_addr": "10.0.0.1"}
INT4 = {"quant_method": "gptq", "bits": 4}
FROM_IMAGES = ["*vision_tower*", "*embed_vision*", "*vision_embedder*"]
FROM_AUDIO = ["*audio_tower*", "*embed_audio*"]


def quantised(quantization: dict[str, Any]) -> Any:
    return checkpoint_of({"model_type": "gemma3_text", "quantization_config": quantization})


def refusal(directory: Path, platform: Any, **arguments: Any) -> str:
    with pytest.raises(GemmaServeError) as caught:
        derive(directory, platform, **arguments)
    return caught.value.message


def env_setting(resolved: Resolved, key: str) -> Setting:
    (setting,) = [setting for setting in resolved.env if setting.key == key]
    return setting


def engine_setting(resolved: Resolved, key: str) -> Setting:
    (setting,) = [setting for setting in resolved.engine_args if setting.key == key]
    return setting


# --- environment


def test_environment_of_a_cpu_server(tmp_path: Path) -> None:
    """Every variable that a server on two cores gets."""
    assert derive(tmp_path, TWO_CORES, model=SMALL).env_dict() == {
        "VLLM_ATTENTION_BACKEND": "FLASHINFER",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_MAX_STOP_STRINGS": "1000000",
        "VLLM_XGRAMMAR_CACHE_MB": "128",
        "VLLM_CPU_OMP_THREADS_BIND": "0-1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824"
        ":glibc.malloc.trim_threshold=1073741824",
    }


@pytest.mark.parametrize(
    ("keys", "binding"),
    [
        ({}, "0-3,8-11"),
        ({"tensor_parallel_size": 2}, "0-3|8-11"),
        ({"tensor_parallel_size": 4}, "0-1|2-3|8-9|10-11"),
        ({"data_parallel_size": 2}, "0-3|8-11"),
        ({"tensor_parallel_size": 2, "data_parallel_size": 2}, "0-1|2-3|8-9|10-11"),
        ({"pipeline_parallel_size": 3}, "0-1|2-3,8|9-11"),
    ],
)
def test_workers_split_the_cores(tmp_path: Path, keys: dict[str, int], binding: str) -> None:
    """Each worker gets its own share of the allowed cores, and none is left over."""
    resolved = derive(tmp_path, EIGHT_CORES, model=SMALL, **keys)
    assert resolved.env_dict()["VLLM_CPU_OMP_THREADS_BIND"] == binding


def test_big_buffers_come_from_no_fresh_pages(tmp_path: Path) -> None:
    """A process with a CPU server's environment gets a step's logits without page faults."""
    env = derive(tmp_path, TWO_CORES, model=SMALL).env_dict()
    again = """
import resource, torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(32, 262144).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    command = [sys.executable, "-c", again]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, check=True, text=True)
    assert int(done.stdout) < 100


def test_operator_wins_over_our_default(tmp_path: Path) -> None:
    """A variable that is already set stays, and says where it came from."""
    resolved = derive(tmp_path, TWO_CORES, model=SMALL, environ={"VLLM_LOGGING_LEVEL": "DEBUG"})
    assert env_setting(resolved, "VLLM_LOGGING_LEVEL") == Setting(
        "VLLM_LOGGING_LEVEL", "DEBUG", "environment", "set by the operator; wins over our default"
    )


def test_profile_wins_over_the_operator(tmp_path: Path) -> None:
    """A variable under env: wins over both, and says so; others under env: are passed on."""
    env = {"VLLM_LOGGING_LEVEL": "INFO", "MY_VARIABLE": "1"}
    environ = {"VLLM_LOGGING_LEVEL": "DEBUG"}
    resolved = derive(tmp_path, TWO_CORES, model=SMALL, env=env, environ=environ)
    level = env_setting(resolved, "VLLM_LOGGING_LEVEL")
    assert level.value == "INFO"
    assert level.reason == "set in env:; wins over the operator's environment"
    assert level.origin.endswith("mine.yaml:3")
    assert env_setting(resolved, "MY_VARIABLE").value == "1"


@pytest.mark.parametrize("keys", [{"distributed_executor_backend": "ray"}, {"engine": TWO_NODES}])
def test_workers_on_other_hosts_get_no_loopback_address(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    """Loopback is for one host; Ray may spread the workers, and so does vLLM itself."""
    resolved = derive(tmp_path, "h100", model=SMALL, tensor_parallel_size=2, **keys)
    assert "VLLM_HOST_IP" not in resolved.env_dict()


def test_a_node_has_its_share_of_the_workers(tmp_path: Path) -> None:
    """Cores and KV cache of a machine are for the workers that run on it."""
    alone = derive(tmp_path, EIGHT_CORES, model=SMALL, tensor_parallel_size=1)
    of_two = derive(tmp_path, EIGHT_CORES, model=SMALL, tensor_parallel_size=2, engine=TWO_NODES)
    binding, cache = "VLLM_CPU_OMP_THREADS_BIND", "kv_cache_memory_bytes"
    assert of_two.env_dict()[binding] == alone.env_dict()[binding]
    assert of_two.engine_kwargs()[cache] == alone.engine_kwargs()[cache]
    assert of_two.engine_kwargs()["nnodes"] == 2


# --- precision


@pytest.mark.parametrize(
    ("gpu", "keys", "expected"),
    [
        ("h100", {}, ("bfloat16", None)),
        ("h100", {"dtype": "fp8"}, ("bfloat16", "fp8_per_channel")),
        ("l4", {"dtype": "fp8"}, ("bfloat16", "fp8_per_channel")),
        ("b200", {"dtype": "fp8"}, ("bfloat16", "fp8_per_channel")),
        ("a100", {"dtype": "fp8"}, ("bfloat16", "fp8_per_tensor")),
        (TWO_CORES, {"dtype": "fp32"}, ("float32", None)),
        (T4, {"dtype": "fp32"}, ("float32", None)),
    ],
)
def test_precision_by_gpu(
    tmp_path: Path, gpu: Any, keys: dict[str, str], expected: tuple[str, str | None]
) -> None:
    """FP8 is quantised online in the finest way that the GPU runs; as modelled."""
    kwargs = derive(tmp_path, gpu, model=SMALL, **keys).engine_kwargs()
    assert (kwargs["dtype"], kwargs["quantization"]) == expected


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("google/gemma-3-4b-it", ["*vision_tower*"]),
        ("google/gemma-4-31B-it", FROM_IMAGES),
        ("google/gemma-4-E4B-it", [*FROM_IMAGES, *FROM_AUDIO, "*per_layer_*"]),
        (
            "google/gemma-3n-E4B-it",
            [*FROM_IMAGES, *FROM_AUDIO, "*per_layer_*", "*altup*", "*laurel*"],
        ),
    ],
)
def test_parts_that_stay_bf16(tmp_path: Path, model: str, kept: list[str]) -> None:
    """Towers, embeddings for each layer and Gemma 3n's small matrices are not quantised."""
    kwargs = derive(tmp_path, "h200", model=model, dtype="fp8").engine_kwargs()
    assert kwargs["quantization_config"] == {"ignore": kept}


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
@pytest.mark.parametrize("platform", [TWO_CORES, "h100"])
def test_block_fp8_checkpoint_runs_everywhere(tmp_path: Path, platform: Any, dtype: str) -> None:
    """A checkpoint in block FP8 is served as it is, on CPU too."""
    model = quantised(BLOCK_FP8)
    resolved = derive(tmp_path, platform, checkpoint=model, model="someone/model", dtype=dtype)
    setting = engine_setting(resolved, "quantization")
    assert setting.value is None
    assert setting.reason == "the checkpoint is already quantised (fp8); vLLM reads how from it"


def test_fp8_on_an_int4_checkpoint_says_that_nothing_changes(tmp_path: Path) -> None:
    """dtype: fp8 on a checkpoint of another quantisation is not dropped in silence."""
    keys = {"model": "someone/model", "dtype": "fp8"}
    resolved = derive(tmp_path, "h100", checkpoint=quantised(INT4), **keys)
    assert (
        "dtype fp8 changes nothing: the checkpoint is already quantised (gptq), not FP8."
        in resolved.notes
    )


def test_fp8_on_cpu_is_refused(tmp_path: Path) -> None:
    """A bf16 checkpoint can't become FP8 on CPU."""
    assert refusal(tmp_path, TWO_CORES, model=SMALL, dtype="fp8") == (
        f"dtype 'fp8' can't quantise {SMALL} on CPU, where only checkpoints in block FP8 "
        "(quant_method fp8 with weight_block_size) run; use dtype: bf16 with kv_cache_dtype: fp8."
    )


def test_other_fp8_checkpoints_on_cpu_are_refused(tmp_path: Path) -> None:
    """An FP8 checkpoint without blocks fails or hangs in vLLM's CPU build, so it is refused."""
    model = quantised({"quant_method": "fp8"})
    assert refusal(tmp_path, TWO_CORES, checkpoint=model, model="someone/model") == (
        "someone/model is stored in FP8 (fp8) without weight blocks, which vLLM can't run on CPU; "
        "serve a checkpoint in bf16 or in block FP8."
    )


def test_block_fp8_on_a_cpu_without_amx_is_refused(tmp_path: Path) -> None:
    """vLLM has no other CPU kernel for it, and would fail after it has loaded."""
    without = dataclasses.replace(TWO_CORES, amx=False)
    assert refusal(tmp_path, without, checkpoint=quantised(BLOCK_FP8), model="someone/model") == (
        "someone/model is stored in block FP8, for which vLLM's CPU kernel needs AMX (Intel "
        f"Sapphire Rapids or newer), and {without.name} has none; serve a checkpoint in bf16."
    )


def test_4_bit_weights_on_a_cpu_with_narrow_vectors_are_refused(tmp_path: Path) -> None:
    """vLLM's kernel for them is built for AVX-512 alone, and would fail with the first request."""
    narrow = dataclasses.replace(TWO_CORES, amx=False, avx512=False)
    assert refusal(tmp_path, narrow, checkpoint=quantised(INT4), model="someone/model") == (
        "someone/model has 4-bit weights, for which vLLM's CPU kernel needs AVX-512, and "
        f"{narrow.name} has none; serve the checkpoint that it was made of."
    )


def test_fp8_kv_cache_on_a_cpu_with_narrow_vectors_is_refused(tmp_path: Path) -> None:
    """vLLM has kernels for it with AVX-512 or AMX, and would fail after it has loaded."""
    narrow = dataclasses.replace(TWO_CORES, amx=False, avx512=False)
    assert refusal(tmp_path, narrow, model=SMALL, kv_cache_dtype="fp8") == (
        f"kv_cache_dtype 'fp8' needs AVX-512 or AMX on CPU (vLLM's kernels), and {narrow.name} has "
        "neither; use kv_cache_dtype: auto."
    )


def test_bf16_on_a_cpu_with_narrow_vectors_is_named(tmp_path: Path) -> None:
    """It runs, slower than fp32, which `check` and the start say; no other CPU is spoken of."""
    narrow = dataclasses.replace(TWO_CORES, avx512=False)
    for platform, dtype, named in (
        (narrow, "bf16", True),
        (narrow, "fp32", False),
        (TWO_CORES, "bf16", False),
    ):
        notes = derive(tmp_path, platform, model=SMALL, dtype=dtype).notes
        assert any("computes bf16 the long way" in note for note in notes) is named


def test_bf16_on_an_old_gpu_is_refused(tmp_path: Path) -> None:
    """A GPU before Ampere has no bf16."""
    assert refusal(tmp_path, T4, model=SMALL) == (
        "dtype 'bf16' needs compute capability 8.0 or newer and NVIDIA T4 has 7.5; use dtype: fp32."
    )


def test_fp8_kv_cache_names_the_finer_option(tmp_path: Path) -> None:
    """An FP8 KV cache is passed on, with the option that spares the local layers."""
    resolved = derive(tmp_path, "h100", model=SMALL, kv_cache_dtype="fp8")
    assert resolved.engine_kwargs()["kv_cache_dtype"] == "fp8"
    assert any("kv_cache_dtype_skip_layers: [sliding_window]" in note for note in resolved.notes)


# --- devices and memory


@pytest.mark.parametrize(
    ("platform", "keys", "sentence"),
    [
        (
            TWO_L4,
            {"tensor_parallel_size": 4},
            "tensor_parallel_size 4 needs 4 GPUs and this machine has 2; use at most 2 in all.",
        ),
        (
            TWO_L4,
            {"tensor_parallel_size": 2, "data_parallel_size": 2},
            "tensor_parallel_size 2 x data_parallel_size 2 needs 4 GPUs and this machine has 2; "
            "use at most 2 in all.",
        ),
        (
            TWO_CORES,
            {"pipeline_parallel_size": 3},
            "pipeline_parallel_size 3 needs 3 CPU cores and this machine has 2; "
            "use at most 2 in all.",
        ),
        (
            TWO_CORES,
            {"engine": {"tensor_parallel_size": 4}},
            "tensor_parallel_size 4 needs 4 CPU cores and this machine has 2; "
            "use at most 2 in all.",
        ),
        (
            TWO_CORES,
            {"distributed_executor_backend": "ray"},
            "distributed_executor_backend 'ray' can't run on CPU; use mp, or leave it out.",
        ),
        (
            TWO_CORES,
            {"engine": TWO_NODES | {"node_rank": 2}},
            "engine.node_rank 2 is none of engine.nnodes 2; "
            "number the nodes from 0 (which answers requests) to nnodes - 1.",
        ),
    ],
)
def test_more_than_the_machine_has_is_refused(
    tmp_path: Path, platform: Any, keys: dict[str, Any], sentence: str
) -> None:
    """More workers than devices, or an executor that can't run, is one sentence."""
    assert refusal(tmp_path, platform, model=SMALL, **keys) == sentence


def test_simulated_machine_has_enough_devices(tmp_path: Path) -> None:
    """A simulated kind of GPU satisfies any parallel size."""
    keys = {"tensor_parallel_size": 8, "data_parallel_size": 4}
    kwargs = derive(tmp_path, "h100", model="google/gemma-3-27b-it", **keys).engine_kwargs()
    assert (kwargs["tensor_parallel_size"], kwargs["data_parallel_size"]) == (8, 4)


@pytest.mark.parametrize(
    ("free_gib", "keys", "kv_gib"),
    [
        (24, {}, 4),  # a quarter would be 6
        (8, {}, 2),
        (2, {}, 1),  # a quarter would be 0.5
        (8, {"tensor_parallel_size": 2}, 1),  # 2 in all
        (8, {"kv_cache_memory_gib": 0.5}, 0.5),
    ],
)
def test_kv_cache_on_cpu_is_explicit(
    tmp_path: Path, free_gib: int, keys: dict[str, Any], kv_gib: float
) -> None:
    """On CPU the KV cache always has a size, because vLLM would take nearly all memory."""
    resolved = derive(
        tmp_path, TWO_CORES, available_memory_bytes=free_gib * GIB, model=SMALL, **keys
    )
    assert resolved.engine_kwargs()["kv_cache_memory_bytes"] == kv_gib * GIB


def test_gpu_measures_its_kv_cache_itself(tmp_path: Path) -> None:
    """On a GPU vLLM measures, unless the profile gives a size."""
    assert "kv_cache_memory_bytes" not in derive(tmp_path, "h100", model=SMALL).engine_kwargs()
    resolved = derive(tmp_path, "h100", model=SMALL, kv_cache_memory_gib=10)
    assert resolved.engine_kwargs()["kv_cache_memory_bytes"] == 10 * GIB


@pytest.mark.parametrize(
    ("platform", "arguments", "sentence"),
    [
        (
            TWO_CORES,
            {"model": "google/gemma-3-12b-it", "available_memory_bytes": 20 * GIB},
            "google/gemma-3-12b-it needs 22.7 GiB for its weights and 4.0 GiB for the KV cache, "
            "and this machine has 20.0 GiB free; "
            "serve a smaller model, or lower kv_cache_memory_gib.",
        ),
        (
            TWO_CORES,
            {
                "model": "google/gemma-3-4b-it",
                "available_memory_bytes": 20 * GIB,
                "data_parallel_size": 2,
                "kv_cache_memory_gib": 3,
            },
            "google/gemma-3-4b-it needs 16.0 GiB for its weights and 6.0 GiB for the KV cache, and "
            "this machine has 20.0 GiB free; serve a smaller model, or lower kv_cache_memory_gib.",
        ),
        (
            TWO_CORES,
            {"model": "google/gemma-3-4b-it", "dtype": "fp32", "available_memory_bytes": 16 * GIB},
            "google/gemma-3-4b-it needs 16.0 GiB for its weights and 4.0 GiB for the KV cache, and "
            "this machine has 16.0 GiB free; serve a smaller model, or lower kv_cache_memory_gib.",
        ),
        (
            "l4",
            {"model": "google/gemma-4-31B-it", "tensor_parallel_size": 2},
            "google/gemma-4-31B-it needs 29.1 GiB for its weights on each GPU, and of the 22.5 GiB "
            "of NVIDIA L4 vLLM may take 20.7; raise tensor_parallel_size, or serve a smaller or "
            "quantised model.",
        ),
        (
            "l4",
            {
                "model": "google/gemma-4-E4B-it",
                "engine": {"gpu_memory_utilization": 0.5},
            },
            "google/gemma-4-E4B-it needs 14.8 GiB for its weights on each GPU, and of the 22.5 GiB "
            "of NVIDIA L4 vLLM may take 11.2; raise tensor_parallel_size, or serve a smaller or "
            "quantised model.",
        ),
        (
            "a100-40",
            {
                "model": "google/gemma-4-31B-it",
                "dtype": "fp8",
                "engine": {"gpu_memory_utilization": 0.75},
            },
            # 2.6 GiB of embeddings as they are, and half of the other 55.7
            "google/gemma-4-31B-it needs 30.5 GiB for its weights on each GPU, and of the 39.4 GiB "
            "of NVIDIA A100 40GB vLLM may take 29.5; raise tensor_parallel_size, or serve a "
            "smaller or quantised model.",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, platform: Any, arguments: dict[str, Any], sentence: str
) -> None:
    """Too little memory is found by arithmetic, with the numbers."""
    assert refusal(tmp_path, platform, **arguments) == sentence


def test_fp8_halves_the_weights(tmp_path: Path) -> None:
    """27B in FP8 fits two L4s by its weights, where bf16 does not."""
    keys = {"model": "google/gemma-3-27b-it", "tensor_parallel_size": 2, "dtype": "fp8"}
    assert derive(tmp_path, "l4", **keys)


# --- the rest of the engine arguments


def test_name_in_the_profile_is_the_name_clients_use(tmp_path: Path) -> None:
    """A model in a directory is served under the name that the profile gives it."""
    here = tmp_path / "checkpoint"
    model = checkpoint_of({"model_type": "gemma3_text"}, path=here)
    here.mkdir()
    (here / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    kwargs = derive(tmp_path, "h100", checkpoint=model, model=SMALL).engine_kwargs()
    assert (kwargs["model"], kwargs["served_model_name"]) == (str(here), SMALL)
    kwargs = derive(tmp_path, "h100", model=SMALL, served_model_name=["a", "b"]).engine_kwargs()
    assert (kwargs["model"], kwargs["served_model_name"]) == (SMALL, ["a", "b"])


def test_code_from_the_repository_is_never_run(tmp_path: Path) -> None:
    """trust_remote_code is off, explicitly."""
    assert derive(tmp_path, "h100", model=SMALL).engine_kwargs()["trust_remote_code"] is False


def test_revision_is_pinned(tmp_path: Path) -> None:
    """The commit that the profile names is loaded; where it names none, a note says so."""
    commit = "ac82b4e820549b854eebf28ce6dedaf9fdfa17b3"
    pinned = derive(tmp_path, "h100", model=SMALL, revision=commit)
    assert pinned.engine_kwargs()["revision"] == commit
    assert not any("may change on the Hub" in note for note in pinned.notes)
    notes = derive(tmp_path, "h100", model=SMALL).notes
    assert any(note.startswith(f"{SMALL} may change on the Hub") for note in notes)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {"limit_mm_per_prompt": {"image": 4}}),
        ({"images_per_prompt": 0}, {"limit_mm_per_prompt": {"image": 0}}),
        ({"images_per_prompt": 9}, {"limit_mm_per_prompt": {"image": 9}}),
        ({"text_only": True}, {"language_model_only": True}),
    ],
)
def test_images(tmp_path: Path, keys: dict[str, Any], expected: dict[str, Any]) -> None:
    """A multimodal model takes four images a request, or as many as the profile says."""
    kwargs = derive(tmp_path, "h100", model="google/gemma-3-4b-it", **keys).engine_kwargs()
    names = ("limit_mm_per_prompt", "language_model_only")
    assert {name: kwargs[name] for name in names if name in kwargs} == expected


def test_image_keys_on_a_text_model_say_that_they_do_nothing(tmp_path: Path) -> None:
    """Keys about images are not dropped in silence."""
    resolved = derive(tmp_path, "h100", model=SMALL, text_only=True, images_per_prompt=2)
    assert "text_only has no effect: the model takes text only." in resolved.notes
    assert "images_per_prompt has no effect: the model takes text only." in resolved.notes
    assert "language_model_only" not in resolved.engine_kwargs()


def test_images_on_cpu_differ_and_say_so(tmp_path: Path) -> None:
    """vLLM's CPU attention is causal for image tokens too."""
    resolved = derive(tmp_path, EIGHT_CORES, model="google/gemma-3-4b-it")
    assert (
        "On CPU, image tokens get causal attention: answers about images differ from a GPU's."
        in resolved.notes
    )


def test_traces_are_off_by_default(tmp_path: Path) -> None:
    """Nothing is sent anywhere unless the profile names a collector; then as one service."""
    resolved = derive(tmp_path, "h100", model=SMALL)
    assert "otlp_traces_endpoint" not in resolved.engine_kwargs()
    assert "OTEL_SERVICE_NAME" not in resolved.env_dict()
    observability = {"otlp_traces_endpoint": "http://otel:4317"}
    resolved = derive(tmp_path, "h100", model=SMALL, observability=observability)
    assert resolved.engine_kwargs()["otlp_traces_endpoint"] == "http://otel:4317"
    assert resolved.env_dict()["OTEL_SERVICE_NAME"] == "gemma-serve"


@pytest.mark.parametrize("endpoint", ["otel:4317", "grpc://otel:4317", "http://", "here"])
def test_a_collector_is_named_by_its_url(tmp_path: Path, endpoint: str) -> None:
    """Anything else is refused before the start."""
    observability = {"otlp_traces_endpoint": endpoint}
    assert refusal(tmp_path, "h100", model=SMALL, observability=observability) == (
        f"observability.otlp_traces_endpoint {endpoint!r} is not the URL of a collector; "
        "write one like http://otel-collector:4317."
    )


def test_limits_reach_the_engine(tmp_path: Path) -> None:
    """The queue's limit is vLLM's own argument too; that of tokens is not, which knows no keys."""
    limits = {"max_queued_requests": 64, "max_queued_tokens": 100_000}
    kwargs = derive(tmp_path, "h100", model=SMALL, limits=limits).engine_kwargs()
    assert kwargs["max_num_queued_reqs"] == 64
    assert "max_num_queued_tokens" not in kwargs
    assert "max_num_queued_reqs" not in derive(tmp_path, "h100", model=SMALL).engine_kwargs()


def test_adapters_reach_engine_and_frontend(tmp_path: Path) -> None:
    """LoRA is switched on in the engine, and its adapters are named to the serving objects."""
    lora = {"adapters": {"sql": "/adapters/sql"}, "max_loras": 2, "max_lora_rank": 32}
    resolved = derive(tmp_path, "h100", model=SMALL, lora=lora)
    kwargs = resolved.engine_kwargs()
    found = (kwargs["enable_lora"], kwargs["max_loras"], kwargs["max_lora_rank"])
    assert found == (True, 2, 32)
    adapters = resolved.frontend_kwargs()["lora_modules"]
    assert adapters == [{"name": "sql", "path": "/adapters/sql"}]


def test_lora_rank_without_kernels_is_refused(tmp_path: Path) -> None:
    """vLLM has kernels for some ranks only; the next one that fits is named."""
    lora = {"adapters": {"sql": "/adapters/sql"}, "max_lora_rank": 20}
    assert refusal(tmp_path, "h100", model=SMALL, lora=lora) == (
        "lora.max_lora_rank 20 is not one that vLLM has kernels for "
        "(1, 8, 16, 32, 64, 128, 256, 320, 512); use 32."
    )


def test_context_longer_than_the_model_is_refused(tmp_path: Path) -> None:
    """A context that the model was not made for is refused, with what it was made for."""
    assert refusal(tmp_path, "h100", model=SMALL, max_model_len=40_000) == (
        f"max_model_len 40000 is longer than the 32768 tokens that {SMALL} was made for; "
        "use at most 32768."
    )
    kwargs = derive(tmp_path, "h100", model=SMALL, max_model_len=32_768).engine_kwargs()
    assert kwargs["max_model_len"] == 32_768


def test_speculative_config_is_passed_on(tmp_path: Path) -> None:
    """A draft is described in vLLM's own words."""
    speculative = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
    kwargs = derive(tmp_path, "h100", model=SMALL, speculative=speculative).engine_kwargs()
    assert kwargs["speculative_config"] == speculative


def test_engine_section_wins_word_for_word(tmp_path: Path) -> None:
    """What stands under engine: replaces the derived value, and says what it replaced."""
    engine = {"dtype": "float32", "max_num_seqs": 8, "enable_prefix_caching": False}
    resolved = derive(tmp_path, "h100", model=SMALL, engine=engine)
    dtype = engine_setting(resolved, "dtype")
    assert (dtype.value, dtype.reason) == ("float32", "set in engine:; wins over 'bfloat16'")
    assert dtype.origin.endswith("mine.yaml:3")
    kwargs = resolved.engine_kwargs()
    assert (kwargs["max_num_seqs"], kwargs["enable_prefix_caching"]) == (8, False)


def test_argument_that_this_vllm_lacks(tmp_path: Path) -> None:
    """What the profile asks for is refused where vLLM has no argument for it; a default is not."""
    fields = FIELDS - {"max_num_queued_reqs", "trust_remote_code"}
    assert (
        "trust_remote_code"
        not in derive(tmp_path, "h100", model=SMALL, fields=fields).engine_kwargs()
    )
    limits = {"max_queued_requests": 64}
    sentence = refusal(tmp_path, "h100", model=SMALL, fields=fields, limits=limits)
    assert sentence.startswith(
        "The installed vLLM has no engine argument 'max_num_queued_reqs', which the profile needs ("
    )


# --- serving arguments


@pytest.mark.parametrize(
    ("model", "tools", "reasoning"),
    [
        ("google/gemma-2-9b-it", None, None),
        ("google/gemma-3-27b-it", "pythonic", None),
        ("google/gemma-3n-E4B-it", "pythonic", None),
        ("google/functiongemma-270m-it", "functiongemma", None),
        ("google/gemma-4-E4B-it", "gemma4", "gemma4"),
    ],
)
def test_parsers_by_generation(
    tmp_path: Path, model: str, tools: str | None, reasoning: str | None
) -> None:
    """Each generation gets the parsers of the format it was trained on; Gemma 1 and 2 have none."""
    resolved = derive(tmp_path, "h100", model=model)
    assert resolved.frontend_kwargs().get("tool_call_parser") == tools
    assert resolved.frontend_kwargs().get("enable_auto_tool_choice", False) is (tools is not None)
    assert resolved.engine_kwargs().get("reasoning_parser") == reasoning


@pytest.mark.parametrize(
    ("has_chat_template", "template", "parser"),
    [
        (True, None, "functiongemma"),
        (True, "gemma3_tools", "pythonic"),
        (False, None, "pythonic"),
        (False, "own.jinja", "functiongemma"),
    ],
)
def test_parser_of_functiongemma_fits_its_template(
    tmp_path: Path, has_chat_template: bool, template: str | None, parser: str
) -> None:
    """A packaged template asks for Gemma 3's calls, so these are what is read with it."""
    tokens = {"<start_function_call>": 48, "<end_function_call>": 49, "<escape>": 52}
    checkpoint = checkpoint_of(
        {"model_type": "gemma3_text"}, has_chat_template=has_chat_template, added_tokens=tokens
    )
    if template == "own.jinja":
        template = str(tmp_path / template)
        Path(template).write_text("{{ messages }}")
    resolved = derive(
        tmp_path, "h100", checkpoint=checkpoint, model="someone/model", chat={"template": template}
    )
    assert resolved.frontend_kwargs()["tool_call_parser"] == parser


def test_chat_section_wins(tmp_path: Path) -> None:
    """Parsers and thinking of the profile are passed on."""
    chat = {"tool_call_parser": "pythonic", "reasoning_parser": "mine", "enable_thinking": False}
    resolved = derive(tmp_path, "h100", model="google/gemma-4-E4B-it", chat=chat)
    frontend = resolved.frontend_kwargs()
    assert frontend["tool_call_parser"] == "pythonic"
    assert frontend["default_chat_template_kwargs"] == {"enable_thinking": False}
    assert resolved.engine_kwargs()["reasoning_parser"] == "mine"


def test_template_of_the_checkpoint_comes_first(tmp_path: Path) -> None:
    """A packaged template stands in only where the checkpoint is known to have none."""
    has_one = derive(tmp_path, "h100", model="google/gemma-3-1b-it").frontend_kwargs()
    assert "chat_template" not in has_one
    without = derive(tmp_path, "h100", model="google/gemma-3-1b-pt").frontend_kwargs()
    assert Path(without["chat_template"]).name == "gemma3.jinja"
    unknown = checkpoint_of({"model_type": "gemma3_text"}, has_chat_template=None)
    resolved = derive(tmp_path, "h100", checkpoint=unknown, model="someone/model")
    assert "chat_template" not in resolved.frontend_kwargs()


def test_template_by_name_and_by_path(tmp_path: Path) -> None:
    """chat.template is a packaged name or a file; anything else is refused."""
    named = derive(tmp_path, "h100", model=SMALL, chat={"template": "gemma3"}).frontend_kwargs()
    assert Path(named["chat_template"]).is_file()
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages }}")
    by_path = derive(tmp_path, "h100", model=SMALL, chat={"template": str(file)})
    assert by_path.frontend_kwargs()["chat_template"] == str(file)
    sentence = refusal(tmp_path, "h100", model=SMALL, chat={"template": "gemma33"})
    assert sentence.startswith(
        "chat.template 'gemma33' is neither a file nor a packaged template ("
    )


# --- requirements


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"meta": {"min_vllm_version": "0.33.0"}},
            "The profile needs vLLM 0.33.0 or newer (meta.min_vllm_version) and 0.32.0 is "
            "installed; run 'pip install \"vllm>=0.33.0\"'.",
        ),
        (
            {"meta": {"min_vllm_version": "newest"}},
            "meta.min_vllm_version 'newest' is not a version; write it like 0.32.0.",
        ),
        (
            {"engine": {"load_format": "gguf"}},
            "engine.load_format 'gguf' needs vllm-gguf-plugin, which is not installed; "
            "run 'pip install vllm-gguf-plugin'.",
        ),
        (
            {"engine": {"quantization": "bitsandbytes"}},
            "engine.quantization 'bitsandbytes' needs vllm-bnb-plugin, which is not installed; "
            "run 'pip install vllm-bnb-plugin'.",
        ),
        (
            {"distributed_executor_backend": "ray"},
            "distributed_executor_backend 'ray' needs the package ray, which is not installed; "
            "run 'pip install ray', or use mp.",
        ),
    ],
)
def test_missing_software_is_one_sentence(
    tmp_path: Path, keys: dict[str, Any], sentence: str
) -> None:
    """An old vLLM, a plugin or a package that is missing is named, with the command that helps."""
    assert refusal(tmp_path, "h100", model=SMALL, vllm_version="0.32.0", **keys) == sentence


def test_vllm_that_is_new_enough_serves(tmp_path: Path) -> None:
    """A build suffix and a later version satisfy meta.min_vllm_version."""
    meta = {"min_vllm_version": "0.32.0"}
    for version in ("0.32.0", "0.32.0+cpu", "0.32.1"):
        assert derive(tmp_path, "h100", model=SMALL, vllm_version=version, meta=meta)


def test_settings_can_not_be_changed(tmp_path: Path) -> None:
    """What was resolved is what is started."""
    resolved = derive(tmp_path, "h100", model=SMALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved.env[0].value = "other"  # type: ignore[misc]


def test_arguments_exist_in_the_installed_vllm(tmp_path: Path) -> None:
    """Every engine argument that derivation may use is a field of the installed AsyncEngineArgs."""
    installed = installed_vllm(tmp_path)
    assert installed is not None
    assert set(installed.fields) >= FIELDS
