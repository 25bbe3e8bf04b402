"""
Where gemma-serve keeps what it makes on this machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "GEMMA_SERVE_CACHE"


def cache_dir() -> Path:
    """The user's cache for gemma-serve, or what GEMMA_SERVE_CACHE names; it may not exist."""
    configured = os.environ.get(CACHE_VARIABLE)
    if configured:
        return Path(configured).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("gemma-serve"))
