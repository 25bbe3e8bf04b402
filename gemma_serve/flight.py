"""
The flight recorder: when requests came, how large they were and how they ended; never a word.

Each line is a request of a Mooncake trace (timestamp, input_length, output_length, hash_ids), with
the outcome beside it; `python -m benchmarks replay` plays it against another server.
Equal hash ids are equal blocks of tokens behind equal blocks. They are salted anew with every start
of the server, and the salt is kept nowhere: nobody finds a prompt by trying.

Source: the traces beside Mooncake's paper (FAST '25).
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from gemma_serve.errors import StartupError
from gemma_serve.logs import RotatedFile

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Observability

# As in Mooncake's traces.
BLOCK_TOKENS = 512
# JSON's numbers are exact up to here.
HASH_BITS = 53
MIB = 1024 * 1024


def open_recorder(settings: Observability) -> FlightRecorder | None:
    """
    The recorder that a profile asks for, if it does.

    Raises:
        StartupError: the file can't be written.
    """
    path = settings.flight_recorder
    if path is None:
        return None
    try:
        return FlightRecorder(path, settings.flight_recorder_mib * MIB)
    except OSError as error:
        raise StartupError(
            f"observability.flight_recorder {path!r} can't be written ({error.strerror}); "
            "name a file in a directory that is there."
        ) from error


@dataclass
class Flight:
    """One request on its way; of several prompts, the first."""

    recorder: FlightRecorder
    began_s: float = field(default_factory=time.time)
    input_length: int = 0
    hash_ids: list[int] = field(default_factory=list)

    def tokenised(self, token_ids: Sequence[int]) -> None:
        """Its prompt is known."""
        if not self.hash_ids:
            self.input_length = len(token_ids)
            self.hash_ids = list(self.recorder.hashes(token_ids))


class FlightRecorder:
    """A ring of two files: the newest requests, up to a size."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._salt = secrets.token_bytes(32)
        ring = RotatedFile(path, maxBytes=max_bytes // 2, backupCount=1)
        # Not by getLogger: this one has no parent that would print its lines.
        self._logger = logging.Logger("gemma_serve.flight")
        self._logger.addHandler(ring)

    def hashes(self, token_ids: Sequence[int]) -> Iterator[int]:
        """A number for each block of a prompt, by it and all before it."""
        before = b""
        for start in range(0, len(token_ids), BLOCK_TOKENS):
            block = array("I", token_ids[start : start + BLOCK_TOKENS]).tobytes()
            before = blake2b(before + block, key=self._salt, digest_size=8).digest()
            yield int.from_bytes(before, "big") >> (64 - HASH_BITS)

    def keep(self, flight: Flight, output_length: int, outcome: Mapping[str, str]) -> None:
        """Write a request that is over; one that was refused unread has no length to replay."""
        if not flight.hash_ids:
            return
        line = {
            "timestamp": round(flight.began_s * 1e3, 1),
            "input_length": flight.input_length,
            "output_length": output_length,
            "hash_ids": flight.hash_ids,
            "duration_ms": round((time.time() - flight.began_s) * 1e3, 1),
            **outcome,
        }
        self._logger.info("%s", json.dumps(line))
