"""What a request wants its answer to fit: where each protocol says so, and how large it may be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from gemma_serve.chat.size import is_deeper
from gemma_serve.errors import RequestError

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Limits

_STRUCTURED = ("json", "regex", "choice", "grammar", "structural_tag")


def schemas_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """
    JSON Schemas, regular expressions, choices, grammars and structural tags of a request.

    Args:
        fields: Of vLLM's request model: chat, completions, responses or Anthropic's.

    Yields:
        The field's name, and what stands in it.
    """
    if (structured := fields.get("structured_outputs")) is not None:
        for kind in _STRUCTURED:
            if (value := getattr(structured, kind, None)) is not None:
                yield f"structured_outputs.{kind}", value
    if (wanted := fields.get("response_format")) is not None:
        yield "response_format", _schema_in(wanted, "json_schema") or _plain(wanted)
    for name in ("text", "output_config"):  # of responses, and of Anthropic's messages
        if (wanted := getattr(fields.get(name), "format", None)) is not None:
            yield f"{name}.format", _schema_in(wanted) or _plain(wanted)


def check_specification(name: str, value: Any, limits: Limits) -> None:
    """
    Refuse what is too large or too deep to be made a grammar of.

    Raises:
        RequestError: with the field as `param`.
    """
    if name == "structured_outputs.regex" and len(value) > limits.max_regex_chars:
        raise RequestError(
            f"{name} has {len(value)} characters; at most {limits.max_regex_chars} are allowed "
            "(limits.max_regex_chars), so send a shorter one.",
            param=name,
        )
    size_bytes = _size_bytes(value)
    if size_bytes > limits.max_schema_bytes:
        raise RequestError(
            f"{name} has {size_bytes} bytes; at most {limits.max_schema_bytes} are allowed "
            "(limits.max_schema_bytes), so send a smaller one.",
            param=name,
        )
    # Schemas that programs write keep their parts in one flat `$defs`.
    if _is_deeper(value, limits.max_schema_depth):
        raise RequestError(
            f"{name} is nested deeper than {limits.max_schema_depth} levels "
            "(limits.max_schema_depth); send a flatter one, with its parts in $defs.",
            param=name,
        )


def _schema_in(wanted: Any, *path: str) -> Any:
    """The schema alone, without its name and description."""
    for step in path:
        wanted = getattr(wanted, step, None)
    # `schema` is taken by pydantic's models, so each of vLLM's and OpenAI's has another word.
    return getattr(wanted, "json_schema", None) or getattr(wanted, "schema_", None)


def _plain(value: Any) -> Any:
    return value.model_dump(warnings=False) if isinstance(value, BaseModel) else value


def _is_deeper(value: Any, levels: int) -> bool:
    """Also of JSON in a string: a structural tag, or a schema that was sent as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return False
        except RecursionError:  # of a thousand levels; at most 256 may be allowed
            return True
    return is_deeper(value, levels)


def _size_bytes(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass"))
