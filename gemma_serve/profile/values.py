"""A value that a profile can't have: what is allowed there, and how to write what was meant."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any

from jsonschema import Draft202012Validator

from gemma_serve.profile.json_schema import Schema, branches, describe
from gemma_serve.profile.source import read_text
from gemma_serve.profile.tree import KeyPath, Node, dotted

FP16_WORDS = ("fp16", "float16", "half", "f16", "torch.float16")
# vLLM's, PyTorch's and bare-number spellings of our three.
DTYPE_WORDS = {
    "auto": "bf16",
    "bfloat16": "bf16",
    "torch.bfloat16": "bf16",
    "16": "bf16",
    "float": "fp32",
    "float32": "fp32",
    "torch.float32": "fp32",
    "32": "fp32",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "float8_e4m3fn": "fp8",
    "8": "fp8",
}
MAX_SHOWN_CHARS = 60


def wrong_value(path: KeyPath, node: Node, schema: Schema) -> str | None:
    """What is wrong with a value, in one sentence; None where the schema allows it."""
    if path in (("dtype",), ("engine", "dtype")) and _word(node) in FP16_WORDS:
        return (
            f"{dotted(path)} {node.value!r} is refused: Gemma's activations exceed 65504, the "
            f"largest number of fp16, and turn into NaN; write {_bf16_word(path)}."
        )
    if isinstance(node.value, float) and not math.isfinite(node.value):
        return f"{dotted(path)} must be a finite number, not {node.text}."
    if any(_fits(branch, node.plain()) for branch in branches(schema)):
        return None
    hint = _dtype_hint(path, node) or _quotes_hint(node, schema) or _enum_hint(node, schema)
    return f"{dotted(path)} must be {describe(schema)}, not {shown(node)}{hint}."


def shown(node: Node) -> str:
    """A value as it was written, at most `MAX_SHOWN_CHARS` long."""
    if isinstance(node.value, dict | list):
        return "a map" if isinstance(node.value, dict) else "a list"
    if node.value is None:
        return "null"
    text = repr(node.value) if isinstance(node.value, str) else node.text
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:MAX_SHOWN_CHARS]}..."
    if isinstance(node.value, bool) and node.text.lower() not in ("true", "false"):
        return f"{text}, which YAML reads as {str(node.value).lower()}"
    return text


def _fits(schema: Schema, value: Any) -> bool:
    if isinstance(value, float) and schema.get("type") == "integer":
        return False  # JSON calls 2.0 an integer; Python and vLLM do not
    return Draft202012Validator(schema).is_valid(value)


def _word(node: Node) -> str:
    return node.text.strip().lower()


def _bf16_word(path: KeyPath) -> str:
    return "bf16" if path == ("dtype",) else "dtype: bf16 at the top instead"


def _dtype_hint(path: KeyPath, node: Node) -> str:
    word = DTYPE_WORDS.get(_word(node)) if path == ("dtype",) else None
    return f"; write {word}" if word else ""


def _quotes_hint(node: Node, schema: Schema) -> str:
    kinds = {branch.get("type") for branch in branches(schema)}
    if isinstance(node.value, str) and node.quoted:
        unquoted, _ = read_text(node.text, "file")
        bare = unquoted.value if unquoted else None
        if not isinstance(bare, str | None) and _kind(bare) & kinds:
            return "; remove the quotes"
    if isinstance(node.value, bool | int | float) and "string" in kinds:
        return f"; put it in quotes: {_in_quotes(node)}"
    return ""


def _in_quotes(node: Node) -> str:
    if node.origin.kind == "--set":  # the shell takes the outer quotes
        return f"--set '{str(node.origin.option).partition('=')[0]}=\"{node.text}\"'"
    return f'"{node.text}"'


def _kind(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    return {"integer", "number"} if isinstance(value, int) else {"number"}


def _enum_hint(node: Node, schema: Schema) -> str:
    words = [str(word) for branch in branches(schema) for word in branch.get("enum", [])]
    close = get_close_matches(_word(node), words, n=1, cutoff=0.5) if node.text else []
    return f"; the closest is {close[0]!r}" if close else ""
