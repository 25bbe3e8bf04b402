"""
Directories that are either complete or not there: a lock, a build beside the target, one rename.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gemma_serve.errors import StartupError
from gemma_serve.gemma.cache import CACHE_VARIABLE

PREFIX = "gemma-3-270m-"
MANIFEST = "manifest.json"
LOCK = ".gemma-3-270m.lock"
# One lock covers every version, so whatever its holder finds with these endings is left over from
# a run that was killed.
BUILDING = ".building"
DISCARDED = ".discarded"


def is_complete(directory: Path) -> bool:
    """Tell whether every file that the manifest lists is there in its full size."""
    try:
        manifest: dict[str, int] = json.loads((directory / MANIFEST).read_text("utf-8"))
        return all((directory / name).stat().st_size == size for name, size in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def others(final: Path) -> list[Path]:
    """Complete directories of other versions beside `final`."""
    return sorted(
        path for path in final.parent.glob(f"{PREFIX}*") if path != final and is_complete(path)
    )


@contextmanager
def locked(parent: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the cache; the system releases it when the process dies in any way."""
    with _explained(parent):
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(parent / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Another process is preparing the embedded model in {parent}; waiting for it.")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def building(final: Path, *, needed_bytes: int) -> Iterator[Path]:
    """
    An empty directory that becomes `final` when the block ends well, and vanishes when it fails.

    Call it with the lock held. A damaged `final` is replaced.

    Raises:
        StartupError: The disk has less than `needed_bytes` free, or can't be written.
    """
    directory = final.with_name(f".{final.name}{BUILDING}")
    with _explained(final.parent):
        _remove_leftovers(final.parent)
        _require_space(final.parent, needed_bytes)
        directory.mkdir()
        try:
            yield directory
            _write_manifest(directory)
            _sync(directory)
            _publish(directory, final)
        finally:
            _remove_leftovers(final.parent)


def _remove_leftovers(parent: Path) -> None:
    for ending in (BUILDING, DISCARDED):
        for path in parent.glob(f".{PREFIX}*{ending}"):
            shutil.rmtree(path)


def _require_space(parent: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < needed_bytes:
        raise StartupError(
            f"Preparing the embedded model in {str(parent)!r} needs {needed_bytes / 1e6:.0f} MB, "
            f"{free_bytes / 1e6:.0f} MB are free; free some, or set {CACHE_VARIABLE} to a "
            "directory on a larger disk."
        )


def _write_manifest(directory: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
    (directory / MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")


def _sync(directory: Path) -> None:
    # Without it a power cut after the rename could leave a complete name with empty files.
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(directory: Path, final: Path) -> None:
    if final.exists():  # damaged, else nobody would build; a directory can't be renamed over it
        final.rename(final.with_name(f".{final.name}{DISCARDED}"))
    directory.rename(final)


@contextmanager
def _explained(parent: Path) -> Iterator[None]:
    """Turn the system's refusals into one sentence each."""
    try:
        yield
    except OSError as error:
        reason = (
            "the disk is full"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else (error.strerror or str(error)).lower()
        )
        raise StartupError(
            f"The embedded model can't be prepared in {str(parent)!r}: {reason}; make room or "
            f"grant access, or set {CACHE_VARIABLE} to another directory."
        ) from error
