"""
The directory that a conversion grows in: resumable shard by shard, renamed when it is whole.

It stands beside the destination as DESTINATION.partial and keeps a record of what is finished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gemma_serve.errors import QuantizeError

ENDING = ".partial"
RECORD = ".quantize.json"
LOCK = ".quantize.lock"


@dataclass
class Partial:
    """A conversion under way, and its record."""

    directory: Path
    recipe: Mapping[str, Any]  # what the finished shards were made with
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)  # file -> what is known of it
    peaks: dict[str, float] | None = None  # from calibration

    def finished(self, file: str, source_sha256: str) -> dict[str, Any] | None:
        """What is known of a shard that an earlier run finished; None where it is to be made."""
        known = self.shards.get(file)
        if known is None or known["source_sha256"] != source_sha256:
            return None
        made = self.directory / file
        whole = made.exists() and made.stat().st_size == known["bytes"]
        return known if whole and sha256_of(made) == known["sha256"] else None

    def finish(self, file: str, known: dict[str, Any]) -> None:
        """Record a shard, with its size and hash, for a run that goes on from here."""
        made = self.directory / file
        self.shards[file] = known | {"bytes": made.stat().st_size, "sha256": sha256_of(made)}
        self.save()

    def save(self) -> None:
        """Write the record, so that a run that ends at any moment leaves a whole one."""
        unfinished = self.directory / f"{RECORD}.tmp"
        content = {"recipe": self.recipe, "shards": self.shards, "peaks": self.peaks}
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(self.directory / RECORD)


@contextmanager
def growing(
    destination: Path, recipe: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[Partial]:
    """
    The directory that becomes `destination` when the block ends well, and stays when it does not.

    Raises:
        QuantizeError: The destination is there already, another run writes it, or the disk is full
            or can't be written.
    """
    directory = destination.with_name(destination.name + ENDING)
    check_is_free(destination)
    with _explained(destination, directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            partial = _resumed(directory, recipe, say)
            partial.save()
            yield partial
            (directory / RECORD).unlink()
            _sync(directory)
            check_is_free(destination)
            directory.rename(destination)
    (destination / LOCK).unlink(missing_ok=True)


def check_is_free(destination: Path) -> None:
    """Refuse a destination that exists."""
    if destination.exists():
        raise QuantizeError(
            f"{str(destination)!r} is there already; name another destination, or delete it first."
        )


def check_space(partial: Partial, needed_bytes: int) -> None:
    """Refuse a disk that can't hold what is still to be written, before it is written."""
    free_bytes = shutil.disk_usage(partial.directory).free
    if free_bytes < needed_bytes:
        raise QuantizeError(
            f"Writing to {str(partial.directory)!r} needs {needed_bytes / 1e6:,.0f} MB more and "
            f"{free_bytes / 1e6:,.0f} MB are free; free some and run the same command again, or "
            "name a destination on a larger disk."
        )


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise QuantizeError(
            f"Another run is writing {str(directory)!r}; wait for it, or name another destination."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _resumed(directory: Path, recipe: Mapping[str, Any], say: Callable[[str], None]) -> Partial:
    """Go on from the record of an earlier run, if it was made with the same recipe."""
    record = directory / RECORD
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        content = {}
    if content.get("recipe") == recipe:
        say(f"Going on in {directory}: {len(content['shards'])} shards are finished")
        return Partial(directory, recipe, content["shards"], content["peaks"])
    if content:
        say(f"Starting again in {directory}: it was begun with other settings or weights")
    return Partial(directory, recipe)


def _sync(directory: Path) -> None:
    # The weights are on the disk by now; without this, a power cut after the rename could leave
    # the small files empty.
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _explained(destination: Path, directory: Path) -> Iterator[None]:
    """Turn the system's refusals into one sentence each."""
    try:
        yield
    except OSError as error:
        # EFBIG: the limit of a user's file size (ulimit -f), or of the file system.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else (error.strerror or str(error)).lower()
        raise QuantizeError(
            f"{str(destination)!r} can't be written: {reason}; make room or grant access and run "
            f"the same command again, which goes on from the shards in {str(directory)!r}."
        ) from error
