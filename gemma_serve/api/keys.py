"""API keys as the operator gives them; imported before vLLM, and imports nothing of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gemma_serve import metrics
from gemma_serve.errors import ProfileError

KEYS_VARIABLE = "GEMMA_SERVE_API_KEYS"
# A label of metrics; a key itself, which is longer or has other characters, is rarely one.
NAME = re.compile(r"[A-Za-z][\w.-]{0,31}")
UNNAMED = "unnamed"
# A key that is taken out of the file is good for no longer than this.
POLL_S = 0.25


@dataclass(frozen=True)
class Key:
    """Whose a key is: keys of one name share their limits, each without a name has its own."""

    tenant: str
    label: str  # what metrics may show: the name, never a part of the key or of its digest


Keys = Mapping[bytes, Key]  # by SHA-256


def read_keys(file: str | None, environ: Mapping[str, str]) -> Keys:
    """
    Every configured key, from the environment and the file together: `KEY` or `KEY NAME` each.

    Raises:
        ProfileError: the file can't be read or holds no key: serving without keys then would be
            the opposite of what was asked for. Or a name can't be a label.
    """
    lines = environ.get(KEYS_VARIABLE, "").split(",")
    if file is not None:
        lines += _lines_of(Path(file).expanduser())
    return dict(_key_in(line) for line in lines if line.strip())


def _key_in(line: str) -> tuple[bytes, Key]:
    secret, *name = line.split(maxsplit=1)
    digest = hashlib.sha256(secret.encode()).digest()
    if not name:
        return digest, Key(digest.hex(), UNNAMED)
    if not NAME.fullmatch(name[0].strip()):
        raise ProfileError(
            f"A key's name is {len(name[0])} characters long or has others than letters, digits, "
            "'_', '.' and '-'; write one word of up to 32 behind the key, or none."
        )
    return digest, Key(name[0].strip(), name[0].strip())


def _lines_of(path: Path) -> list[str]:
    try:
        lines = [line.partition(" #")[0].strip() for line in path.read_text("utf-8").splitlines()]
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


class KeyRing:
    """The keys that are good now: the file's are read again whenever it changes."""

    def __init__(self, file: str | None, environ: Mapping[str, str]) -> None:
        """
        Read the keys for the first time.

        Raises:
            ProfileError: the file can't be used.
        """
        self._file, self._environ = file, dict(environ)
        self._seen = self._stamp()
        self._keys = read_keys(file, environ)

    def __len__(self) -> int:
        """How many; none means that no key is asked for, which stays so while the server runs."""
        return len(self._keys)

    @property
    def num_tenants(self) -> int:
        """How many names there are, and keys without one."""
        return len({key.tenant for key in self._keys.values()})

    def find(self, secret: str | bytes) -> Key | None:
        """The key that a client has sent, if it is among the configured ones."""
        digest = hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()
        # Every configured key is compared, so that the time does not tell which one was close.
        found = [key for known, key in self._keys.items() if hmac.compare_digest(digest, known)]
        return found[0] if found else None

    def reload(self) -> bool:
        """
        Read the file again if it is another than before; all of its keys change at once.

        Returns:
            Whether the keys were read again.

        Raises:
            ProfileError: the file can't be used; the keys from before stay good.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        self._keys = read_keys(self._file, self._environ)
        return True

    def _stamp(self) -> tuple[int, ...] | None:
        """What changes with the file; a secret of Kubernetes is a link to another file then."""
        if self._file is None:
            return None
        try:
            status = os.stat(Path(self._file).expanduser())
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


@asynccontextmanager
async def followed(keys: KeyRing, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Follow the file for the length of the block; what can't be used is said, and nothing else."""
    following = asyncio.create_task(_follow(keys, say))
    try:
        yield
    finally:
        following.cancel()


async def _follow(keys: KeyRing, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(POLL_S)
        try:
            if not keys.reload():
                continue
        except ProfileError as error:
            metrics.KEYS_RELOADS.labels("kept").inc()
            say(f"{error.message} The keys from before stay good.")
        else:
            metrics.KEYS_RELOADS.labels("loaded").inc()
            say(f"The keys file has changed; the server takes its {len(keys)} keys from now on.")
