"""One sentence for a start that failed, from vLLM's own texts."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_serve.engine.failures import startup_error
from gemma_serve.errors import InternalError, StartupError

ROOT_CAUSE = RuntimeError("Engine core initialization failed. See root cause above.")
OUT_OF_MEMORY = (
    "The machine ran out of memory while the model was loading; lower kv_cache_memory_gib, "
    "max_model_len or engine.max_num_seqs, or raise tensor_parallel_size."
)
# Source: vLLM 0.32 v1/core/kv_cache_utils.py, _check_enough_kv_cache_memory.
KV_CACHE = (
    "To serve at least one request with the model's max seq len (131072), (15.5 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (4.25 GiB). {estimate}Try "
    "increasing `gpu_memory_utilization` or decreasing `max_model_len`."
)


def failed(type_: str, text: str) -> dict[str, Any]:
    """A failure as the plugin writes it."""
    return {"event": "failed", "error_type": type_, "error": text}


def test_our_own_sentence_is_kept() -> None:
    """What we raised ourselves is passed on; of another class of ours, the message is."""
    ours = StartupError("Port 1 is taken.")

    assert startup_error(ours, [failed("ValueError", "something else")]) is ours
    assert startup_error(InternalError("It broke."), []).message == "It broke."


@pytest.mark.parametrize(
    ("estimate", "advice"),
    [
        (
            "Based on the available memory, the estimated maximum model length is 35936. ",
            "set max_model_len to at most 35936",
        ),
        ("", "set max_model_len lower"),
    ],
)
def test_kv_cache_too_small(estimate: str, advice: str) -> None:
    """A KV cache below one request says both sizes, and what would fit where vLLM knows it."""
    error = startup_error(ROOT_CAUSE, [failed("ValueError", KV_CACHE.format(estimate=estimate))])

    assert error.message == (
        "max_model_len 131072 needs 15.5 GiB of KV cache and there are 4.25 GiB; "
        f"{advice}, or kv_cache_memory_gib (CPU) or engine.gpu_memory_utilization (GPU) higher."
    )


@pytest.mark.parametrize(
    ("error", "events"),
    [
        (ROOT_CAUSE, [failed("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB.")]),
        (ROOT_CAUSE, [failed("RuntimeError", "DefaultCPUAllocator: can't allocate memory")]),
        (ROOT_CAUSE, [failed("MemoryError", "8 bytes")]),
        (RuntimeError(f"{ROOT_CAUSE} Failed core proc(s): {{'EngineCore_DP0': -9}}"), []),
    ],
)
def test_out_of_memory(error: Exception, events: list[dict[str, Any]]) -> None:
    """Memory that ran out, or a process that the kernel killed for it, is one sentence."""
    assert startup_error(error, events).message == OUT_OF_MEMORY


def test_worker_fails_before_the_engine() -> None:
    """The first failure is the root cause: an engine only says that its worker failed."""
    events = [
        {"event": "load_started"},
        failed("ValueError", "\n  head size 17 is not supported\nmore of it"),
        failed("Exception", "WorkerProc initialization failed due to an exception"),
    ]

    assert startup_error(ROOT_CAUSE, events).message == (
        "vLLM did not start: ValueError: head size 17 is not supported (the lines above are "
        "vLLM's own; 'gemma-serve check PROFILE' shows what it was given)."
    )


def test_failure_in_our_own_process() -> None:
    """Without a failure event, the error of our own process is what there is to say."""
    assert startup_error(KeyError(), []).message.startswith(
        "vLLM did not start: KeyError: no message ("
    )
