"""One sentence for a start that failed: what happened, and what to change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gemma_serve.errors import GemmaServeError, StartupError

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "memoryerror",
)
# "(0.34 GiB KV cache is needed, which is larger than the available KV cache memory (0.01 GiB)."
KV_TOO_SMALL = re.compile(
    r"max seq len \((?P<length>\d+)\).*?\((?P<needed>[\d.]+) GiB KV cache is needed.*?"
    r"available KV cache memory \((?P<available>[\d.]+) GiB\)",
    re.DOTALL,
)
KV_LONGEST = re.compile(r"estimated maximum model length is (?P<length>\d+)")


def startup_error(error: Exception, events: Sequence[dict[str, Any]]) -> StartupError:
    """
    What to tell the operator.

    Args:
        error: What came out of vLLM in our process; often only "see root cause above".
        events: What `engine/plugin.py` saw in vLLM's processes; the root cause stands in its first
            failure: a worker fails before the engine that waits for it.
    """
    if isinstance(error, StartupError):
        return error
    if isinstance(error, GemmaServeError):
        return StartupError(error.message)
    failures = [event for event in events if event["event"] == "failed" and event.get("error")]
    text = str(failures[0]["error"]) if failures else str(error)
    type_ = str(failures[0].get("error_type")) if failures else type(error).__name__
    if sentence := _kv_cache_sentence(text) or _memory_sentence(f"{type_} {text} {error}"):
        return StartupError(sentence)
    first_line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return StartupError(
        f"vLLM did not start: {type_}: {first_line[:400]} "
        "(the lines above are vLLM's own; 'gemma-serve check PROFILE' shows what it was given)."
    )


def _kv_cache_sentence(text: str) -> str | None:
    found = KV_TOO_SMALL.search(text)
    if found is None:
        return None
    longest = KV_LONGEST.search(text)
    shorter = f"max_model_len to at most {longest['length']}" if longest else "max_model_len lower"
    return (
        f"max_model_len {found['length']} needs {found['needed']} GiB of KV cache and there are "
        f"{found['available']} GiB; set {shorter}, or kv_cache_memory_gib (CPU) or "
        "engine.gpu_memory_utilization (GPU) higher."
    )


def _memory_sentence(text: str) -> str | None:
    killed = re.search(r"Failed core proc\(s\): \{[^}]*: -9\b", text)
    if not killed and not any(word in text.lower() for word in OUT_OF_MEMORY):
        return None
    return (
        "The machine ran out of memory while the model was loading; lower kv_cache_memory_gib, "
        "max_model_len or engine.max_num_seqs, or raise tensor_parallel_size."
    )
