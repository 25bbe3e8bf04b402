"""API keys as the operator gives them; imported before vLLM, and imports nothing of it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from pathlib import Path

from gemma_serve.errors import ProfileError

KEYS_VARIABLE = "GEMMA_SERVE_API_KEYS"


def read_keys(file: str | None, environ: Mapping[str, str]) -> frozenset[bytes]:
    """
    The SHA-256 of every configured key, from the environment and the file together.

    Raises:
        ProfileError: the file can't be read or holds no key: serving without keys then would be
            the opposite of what was asked for.
    """
    keys = [key.strip() for key in environ.get(KEYS_VARIABLE, "").split(",")]
    if file is not None:
        keys += _keys_in_file(Path(file).expanduser())
    return frozenset(hashlib.sha256(key.encode()).digest() for key in keys if key)


def is_known(key: str | bytes, keys: Collection[bytes]) -> bool:
    """Whether a client's key is among the configured ones, given as SHA-256 digests."""
    digest = hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()
    # Every configured key is compared, so that the time does not tell which one was close.
    return bool(sum(hmac.compare_digest(digest, known) for known in keys))


def _keys_in_file(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ProfileError(
            f"server.api_keys_file {str(path)!r} can't be read ({reason}); "
            "give a file with one key a line."
        ) from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ProfileError(
            f"server.api_keys_file {str(path)!r} holds no key; write one key a line."
        )
    return keys
