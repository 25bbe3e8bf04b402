"""Text, JSON and protobuf text of a repository's files; what is wrong with one is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gemma_serve.errors import Mistake, ProfileError
from gemma_serve.profile.source import display

MAX_FILE_BYTES = 2**20
_PLACEHOLDER = re.compile(r"\$\{\w*\}")
_POSITION = re.compile(r"^\d+:\d+ : ")
_MAX_CAUSE_CHARS = 160


def refuse(path: Path, message: str, line: int | None = None) -> ProfileError:
    """The error that a file of the repository is."""
    return ProfileError([Mistake(message, display(path), line)])


def read_text(path: Path) -> str:
    """
    The text of a file.

    Raises:
        ProfileError: it is no regular file, too large, not UTF-8, or can't be read.
    """
    try:
        # A pipe or a device would block or never end.
        if not path.is_file():
            raise refuse(path, "This is no file that can be read; is it a broken link?")
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise refuse(path, f"The file can't be read: {error.strerror}.") from None
    if len(data) > MAX_FILE_BYTES:
        raise refuse(path, "The file is larger than 1 MiB; is it the right one?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"The byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8."
        raise refuse(path, message, line) from None


def read_json(path: Path) -> dict[str, Any]:
    """
    The JSON object of a file.

    Raises:
        ProfileError: it can't be read, or holds no JSON object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise refuse(
            path, f"This is not valid JSON ({error.msg}); mend it.", error.lineno
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or thousands of lists
        raise refuse(path, "The JSON is nested too deeply, or has a number too long.") from None
    if not isinstance(value, dict):
        raise refuse(path, f"The JSON must be an object of arguments, not {_kind(value)}.")
    return value


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a single value"


def read_config(path: Path) -> Any:
    """
    The ModelConfig of a config.pbtxt, as protobuf's own parser reads it.

    Raises:
        ProfileError: it can't be read, or is no model configuration.
    """
    # Takes a moment, which `gemma-serve --help` need not wait for.
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    text = read_text(path)
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        line, cause = error.GetLine(), _POSITION.sub("", str(error))
    # What the parser does not foresee, such as an escape that is no character.
    except (ValueError, TypeError, RecursionError) as error:
        line, cause = None, str(error)
    written = _line_of(text, line)
    if _PLACEHOLDER.search(written):
        message = (
            "The template has a placeholder that was never filled in; fill it with "
            "TensorRT-LLM's tools/fill_template.py, or by hand."
        )
        raise refuse(path, message, line)
    raise refuse(
        path, f"This is no model configuration of Triton ({_short(cause, written)}).", line
    )


def _line_of(text: str, line: int | None) -> str:
    lines = text.split("\n")
    return lines[line - 1] if line is not None and 1 <= line <= len(lines) else ""


def _short(cause: str, written: str) -> str:
    """The parser's cause without the line itself, which may be long, or hold a secret."""
    cause = cause.removeprefix(f"'{written}': ")
    plain = "".join(char if char.isprintable() else " " for char in cause)
    sentence = " ".join(plain.split()).rstrip(".")
    return sentence if len(sentence) <= _MAX_CAUSE_CHARS else f"{sentence[:_MAX_CAUSE_CHARS]}..."
