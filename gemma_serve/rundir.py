"""The run directory: events and sockets of one server's processes, and those of killed servers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gemma_serve.errors import StartupError

PREFIX = "gemma-serve-run-"
# A server that starts makes its directory a moment before it locks it.
ABANDONED_S = 60.0


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """
    A new directory that only this user can read; at the end it is removed with all in it.

    Raises:
        StartupError: there is no place for it.
    """
    try:
        remove_abandoned(Path(tempfile.gettempdir()))
        directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise no_temporary_files(error) from error
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def no_temporary_files(error: OSError) -> StartupError:
    """A start that ends for want of a place to write, such as on a full disk."""
    return StartupError(
        f"No temporary file can be written ({error.strerror}); free space in /tmp, or set TMPDIR "
        "to a directory that has some."
    )


def remove_abandoned(parent: Path) -> None:
    """Remove this user's run directories whose server is gone, and with it their locks."""
    for directory in parent.glob(f"{PREFIX}*"):
        # A link, another user's directory, or one that another start removes at this moment.
        with contextlib.suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(lock)
                if found.st_uid == os.getuid() and time.time() - found.st_ctime > ABANDONED_S:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
