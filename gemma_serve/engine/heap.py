"""What a start has freed, handed back: a tokenizer of 262,144 words leaves much behind."""

from __future__ import annotations

import ctypes


def give_back_freed_memory() -> bool:
    """
    Return freed memory to the system, which glibc keeps for later otherwise.

    Source: malloc_trim(3). Where the C library has none, or another allocator is loaded before it,
    nothing happens.

    Returns:
        Whether any was returned.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except AttributeError:
        return False
