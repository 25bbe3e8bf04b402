"""One request over KServe's HTTP, and how the bad ones are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api.kserve.refusals import MARKER
from tests.api.kserve.tensor_cases import INPUTS, value_of

MODEL = "/v2/models/tiny"
INFER, GENERATE, STREAM = f"{MODEL}/infer", f"{MODEL}/generate", f"{MODEL}/generate_stream"
HEAD_LENGTH = "inference-header-content-length"
# What json.dumps can't write stands in a body as this, and is put in afterwards.
HOLE = "<hole>"


@dataclass(frozen=True)
class BadRequest:
    """One request, and what is wrong with it."""

    name: str
    path: str = INFER
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


def tensor(name: str = "text_input", **changes: Any) -> dict[str, Any]:
    """An input that fits the contract but for the changes; None takes a key away."""
    datatype = INPUTS.get(name, "BYTES")
    right = {"name": name, "datatype": datatype, "shape": [1], "data": [value_of(datatype)]}
    return {key: value for key, value in (right | changes).items() if value is not None}


def infer(what: str, *inputs: Any, hole: str = "null", **fields: Any) -> BadRequest:
    """A JSON request of /infer."""
    text = json.dumps({"inputs": list(inputs), **fields}).replace(f'"{HOLE}"', hole)
    return BadRequest(f"infer: {what}", body=text.encode())


def binary(what: str, *inputs: tuple[dict[str, Any], bytes], tail: bytes = b"") -> BadRequest:
    """A request of /infer whose tensors are bytes; a size that is given is kept."""
    shown = [
        sent | {"parameters": {"binary_data_size": len(data)} | sent.get("parameters", {})}
        for sent, data in inputs
    ]
    head = json.dumps({"inputs": shown}).encode()
    body = head + b"".join(data for _, data in inputs) + tail
    return BadRequest(f"binary: {what}", body=body, headers={HEAD_LENGTH: str(len(head))})


def generate(what: str, path: str = GENERATE, *, hole: str = "null", **fields: Any) -> BadRequest:
    """A request of /generate or /generate_stream."""
    text = json.dumps({"text_input": MARKER, "max_new_tokens": 1} | fields)
    route = path.rpartition("/")[2]
    return BadRequest(f"{route}: {what}", path, text.replace(f'"{HOLE}"', hole).encode())


def beside_text(sent: dict[str, Any]) -> list[dict[str, Any]]:
    """The inputs of a request that has a text in any case."""
    return [sent] if sent["name"] == "text_input" else [tensor(), sent]
