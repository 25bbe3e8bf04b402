"""
The flight recorder: when requests came, how large they were and how they ended; never a word.

Each line is a request of a Mooncake trace (timestamp, input_length, output_length, hash_ids), with
the time to its first token and its outcome beside it; `python -m benchmarks replay` plays it
against another server. Equal hash ids are equal blocks of tokens behind equal blocks. They are
salted anew with every start of the server, and the salt is kept nowhere: nobody finds a prompt by
trying. Of a request that was refused before it was tokenised the length is estimated by its bytes,
and it has no hash ids.

Source: the traces beside Mooncake's paper (FAST '25).
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from gemma_serve.errors import StartupError
from gemma_serve.logs import RotatedFile

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Observability

# As in Mooncake's traces.
BLOCK_TOKENS = 512
# JSON's numbers are exact up to here.
HASH_BITS = 53
MIB = 1024 * 1024
# What ends so, without a prompt: it asked for no tokens, or came to the wrong door.
NO_LOAD = frozenset({"200", "401", "404", "405", "OK", "NOT_FOUND", "UNAUTHENTICATED"})


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
    """
    One request on its way; of several prompts, the first.

    Args:
        tokens_of: About how many tokens so many bytes of a body are.
    """

    recorder: FlightRecorder
    tokens_of: Callable[[int], int] = field(default=lambda num_bytes: num_bytes // 4)
    began_s: float = field(default_factory=time.time)
    input_length: int = 0
    hash_ids: list[int] = field(default_factory=list)
    num_bytes: int = 0  # of its body, as it came or was announced

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

    def keep(
        self, flight: Flight, outcome: Mapping[str, str], facts: Mapping[str, Any] | None = None
    ) -> None:
        """
        Write a request that is over, unless it was no load.

        Args:
            outcome: Its method, route and status.
            facts: What the access log knows of it: answer_tokens, ttft_ms, reason.
        """
        facts = facts or {}
        was_tokenised = bool(flight.hash_ids)
        if not was_tokenised and (not flight.num_bytes or outcome["status"] in NO_LOAD):
            return
        estimate = {} if was_tokenised else {"estimated": True, "reason": facts.get("reason")}
        line = {
            "timestamp": round(flight.began_s * 1e3, 1),
            "input_length": flight.input_length or max(flight.tokens_of(flight.num_bytes), 1),
            "output_length": facts.get("answer_tokens", 0),
            "hash_ids": flight.hash_ids,
            "ttft_ms": facts.get("ttft_ms"),
            "duration_ms": round((time.time() - flight.began_s) * 1e3, 1),
            **outcome,
            **estimate,
        }
        self._logger.info("%s", json.dumps(line))
