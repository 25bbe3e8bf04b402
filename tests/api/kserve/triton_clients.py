"""What the tests with Triton's own clients share: their inputs, greedy references, the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Server

IDLE_S = 10
# By the type of a Python value.
KINDS = {
    bool: ("BOOL", np.bool_),
    int: ("INT32", np.int32),
    float: ("FP32", np.float32),
    str: ("BYTES", np.object_),
}
PROMPTS = [
    "The sea",
    "def read(path):\n    return",
    "A list:\n\n- ",
    "Über den Wolken",
    "x = [1, 2, 3",
    " Rome was not built in a day, and",
]
GREEDY = {"do_sample": False}
GENERATE = "/v2/models/tiny/generate"
STREAM = "/v2/models/tiny/generate_stream"
CHAT = [
    {"role": "user", "content": "Name three rivers."},
    {"role": "assistant", "content": "Rhine, Elbe."},
    {"role": "user", "content": "One is missing."},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lamp",
            "description": "Switch the lamp.",
            "parameters": {
                "type": "object",
                "properties": {"on": {"type": "boolean"}},
                "required": ["on"],
                "additionalProperties": False,
            },
        },
    }
]


def array(value: Any) -> np.ndarray[Any, Any]:
    """A value, or a list of them, as the array that a client would make."""
    values = value if isinstance(value, list) else [value]
    _, kind = KINDS[type(values[0])]
    return np.array([one.encode() if isinstance(one, str) else one for one in values], kind)


def inputs_of(
    client: Any, values: dict[str, Any], *, rows: bool = False, **options: Any
) -> list[Any]:
    """
    Inputs of `tritonclient.http` or `tritonclient.grpc`, with the datatype of each value's type.

    Args:
        rows: With a batch dimension of 1.
        options: Of `set_data_from_numpy`.
    """
    made = []
    for name, value in values.items():
        data = array(value)
        data = data[np.newaxis] if rows else data
        datatype, _ = KINDS[type(value[0] if isinstance(value, list) else value)]
        made.append(client.InferInput(name, data.shape, datatype))
        made[-1].set_data_from_numpy(data, **options)
    return made


def texts_of(result: Any, name: str = "text_output") -> list[str]:
    """The strings of an output; JSON gives str, bytes and protobuf give bytes."""
    values = result.as_numpy(name).ravel()
    return [one.decode() if isinstance(one, bytes) else one for one in values]


# --- what the answers are compared with


def greedy(server: Server, prompt: str, max_tokens: int) -> str:
    """The greedy answer to raw text, as /v1/completions has it."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    with server.client() as http:
        text: str = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    return text


def greedy_chat(
    server: Server, messages: Sequence[dict[str, Any]], max_tokens: int, **more: Any
) -> dict[str, Any]:
    """The greedy answer to a chat, as /v1/chat/completions has it."""
    body = {"model": "tiny", "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    with server.client() as http:
        answer = http.post("/v1/chat/completions", json=body | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def num_tokens(server: Server, prompt: str) -> int:
    """How many tokens raw text has, BOS counted."""
    with server.client() as http:
        answer = http.post("/tokenize", json={"model": "tiny", "prompt": prompt})
    count: int = answer.json()["count"]
    return count


def events_of(body: str) -> list[dict[str, Any]]:
    """The JSON of each server-sent event."""
    events = body.split("\n\n")
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


# --- the engine


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of the series of this name with these labels."""
    with server.client() as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    assert samples, name
    return sum(one.value for one in samples if labels.items() <= one.labels.items())


def generated_tokens(server: Server) -> float:
    """How many tokens the engine has made since it started."""
    return metric(server, "vllm:generation_tokens_total")


def running(server: Server) -> float:
    """How many requests run or wait in the engine."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(metric(server, name) for name in names)


def wait_until(holds: Any, what: str) -> None:
    """Poll, with a bound."""
    deadline_s = time.monotonic() + IDLE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {IDLE_S} s: {what}"
        time.sleep(0.02)


def wait_until_idle(server: Server) -> None:
    """Poll until nothing runs or waits in the engine."""
    wait_until(lambda: running(server) == 0, "the engine is idle")
