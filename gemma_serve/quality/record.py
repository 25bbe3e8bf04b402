"""What one model said of the corpus, in a file: one side of a comparison."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma_serve.errors import QualityError
from gemma_serve.quality.corpus import ids_sha256

FORMAT = "gemma-serve quality record"
VERSION = 1
# Tokens whose log-probabilities are kept at each position; what they leave out is one number more.
NUM_TOP = 64
# A record holds arrays of this many bytes at most, whatever its file says.
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Scores:
    """Natural log-probabilities of windows; column i is of the token at i + 1."""

    token_ids: npt.NDArray[np.int32]  # (num_windows, window_tokens)
    target_logprobs: npt.NDArray[np.float32]  # (num_windows, window_tokens - 1)
    top_ids: npt.NDArray[np.int32]  # (num_windows, window_tokens - 1, num_top)
    top_logprobs: npt.NDArray[np.float32]  # (num_windows, window_tokens - 1, num_top)
    continuations: npt.NDArray[np.int32]  # (num_prompts, num_new_tokens)

    def first(self, num_windows: int, window_tokens: int) -> Scores:
        """The beginnings of the first windows: a token's score depends on nothing behind it."""
        rows = window_tokens - 1
        return Scores(
            self.token_ids[:num_windows, :window_tokens],
            self.target_logprobs[:num_windows, :rows],
            self.top_ids[:num_windows, :rows],
            self.top_logprobs[:num_windows, :rows],
            self.continuations[:num_windows],  # prompt i is of window i
        )

    @property
    def num_scored(self) -> int:
        """Tokens that have a log-probability."""
        return self.target_logprobs.size


@dataclass(frozen=True)
class Record:
    """Scores, the text that each window is from, and what was scored: model, precision, ..."""

    about: Mapping[str, Any]
    texts: tuple[str, ...]
    scores: Scores


def write_record(record: Record, path: Path) -> None:
    """Write a record in one go: it is there whole, or not at all."""
    about = dict(record.about) | {
        "format": FORMAT,
        "version": VERSION,
        "texts": list(record.texts),
        "token_ids_sha256": ids_sha256(record.scores.token_ids),
    }
    arrays = {field.name: getattr(record.scores, field.name) for field in fields(Scores)}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
        partial.replace(path)
    except OSError as error:
        raise QualityError(
            f"The record {str(path)!r} can't be written: {error.strerror}."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """
    Read what `write_record` wrote; nothing in the file is run.

    Raises:
        QualityError: there is no such file, or it is no record, not whole, or of another version.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            scores = Scores(**{field.name: arrays[field.name] for field in fields(Scores)})
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise QualityError(f"No quality record at {str(path)!r}: {reason}; {_MAKE_ONE}.") from None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        raise _no_record(path) from None
    _check(path, about, scores)
    texts = tuple(map(str, about.pop("texts")))
    return Record(about, texts, scores)


_MAKE_ONE = "make one with: gemma-serve quality record PROFILE --output FILE"


def _no_record(path: Path) -> QualityError:
    return QualityError(f"{str(path)!r} is no quality record, or only a part of one; {_MAKE_ONE}.")


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
            raise ValueError


def _check(path: Path, about: Any, scores: Scores) -> None:
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise _no_record(path)
    if about.get("version") != VERSION:
        raise QualityError(
            f"The quality record {str(path)!r} has version {about.get('version')!r} and this "
            f"gemma-serve reads {VERSION}; record it again."
        )
    num_windows, window_tokens = scores.token_ids.shape if scores.token_ids.ndim == 2 else (0, 0)
    rows = (num_windows, window_tokens - 1)
    whole = (
        num_windows > 0
        and window_tokens > 1
        and scores.target_logprobs.shape == rows
        and scores.top_ids.ndim == 3
        and scores.top_ids.shape[:2] == rows
        and scores.top_ids.shape[2] > 0
        and scores.top_logprobs.shape == scores.top_ids.shape
        and scores.continuations.ndim == 2
        and isinstance(about.get("texts"), list)
        and len(about["texts"]) == num_windows
        and about.get("token_ids_sha256") == ids_sha256(scores.token_ids)
    )
    if not whole:
        raise _no_record(path)
