"""
An answer as a client reads it: what heads it, its outputs by name, or its error.

Recorded responses and new answers are read by the same code, so that only they differ.
Source: https://github.com/triton-inference-server/server (docs/protocol/).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gemma_serve.triton_check.golden import HEADER_LENGTH, KEPT_HEADERS, Request, Response
from gemma_serve.triton_check.json_values import NOT_JSON, parse_json
from gemma_serve.triton_check.sending import Answer
from gemma_serve.triton_check.tensors import JsonObject, Output, generate_output, read_tensors

Form = Literal["JSON", "events", "neither JSON nor events of JSON", "no body"]
OTHER: Form = "neither JSON nor events of JSON"
# What /generate says beside the outputs.
HEAD = ("id", "model_name", "model_version")
EVENT_STREAM = "text/event-stream"
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Reading:
    """What an answer says."""

    status: int
    media_type: str
    form: Form
    head: Any = None
    outputs: Mapping[str, Output] = field(default_factory=dict)
    error: str | None = None
    num_events: int = 0
    body: bytes = b""


def read_answer(path: str, answer: Answer) -> Reading:
    """What came back."""
    return _read_bytes(path, answer.status, answer.headers, answer.body)


def read_response(path: str, response: Response) -> Reading:
    """What was recorded."""
    headers = response.headers
    if response.events is not None:
        return _read_events(response.status, headers.get("content-type", ""), response.events)
    if response.body is not None:
        return _read_json(path, response.status, headers, response.body, b"")
    return _read_bytes(path, response.status, headers, response.body_base64 or b"")


def to_response(answer: Answer) -> Response:
    """An answer as a golden file keeps it: readable where it is JSON, whole where it is not."""
    kept = {name: answer.headers[name] for name in KEPT_HEADERS if _is_plain(answer.headers, name)}
    said: dict[str, Any] = {"status": answer.status, "headers": kept}
    if media_type(kept) == EVENT_STREAM:
        events = list(sse_data(answer.body))
        if events and all(isinstance(event, dict) for event in events):
            return Response(**said, events=events)
    elif HEADER_LENGTH not in kept and (parsed := parse_json(answer.body)) not in (NOT_JSON, None):
        return Response(**said, body=parsed)
    return Response.model_validate(said | ({"body_base64": answer.body} if answer.body else {}))


def renamed(reading: Reading, names: Mapping[str, str]) -> Reading:
    """The same answer of models with other names, by their recorded ones."""
    return replace(reading, head=_renamed(reading.head, names)) if names else reading


def _renamed(said: Any, names: Mapping[str, str]) -> Any:
    if isinstance(said, list):  # the repository's index, or what model_stats holds
        return [_renamed(item, names) for item in said]
    if not isinstance(said, dict):
        return said
    mine = {
        key: names[said[key]]
        for key in ("model_name", "name")
        if isinstance(said.get(key), str) and said[key] in names
    }
    stats = {"model_stats": _renamed(said["model_stats"], names)} if "model_stats" in said else {}
    return {**said, **mine, **stats}


def infer_inputs(request: Request) -> dict[str, Any]:
    """The inputs of an infer request by name, each a list of values."""
    if request.body_base64 is not None:
        head, rest = _split(request.headers, request.body_base64)
        sent = parse_json(head)
    else:
        sent, rest = request.body, b""
    inputs = sent.get("inputs") if isinstance(sent, dict) else None
    parameters = sent.get("parameters") if isinstance(sent, dict) else None
    read = read_tensors(inputs, rest) if isinstance(inputs, list) else ()
    named = {tensor.name: list(tensor.values or ()) for tensor in read}
    return named | ({"parameters": parameters} if parameters else {})


def unwrapped(value: Any) -> Any:
    """The one item of a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def media_type(headers: Mapping[str, str]) -> str:
    """The content type without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def sse_data(body: bytes) -> Iterator[Any]:
    """
    The data of server-sent events; NOT_JSON where they are something else.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    data: list[bytes] = []
    for line in [*_LINE_END.split(body), b""]:
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line and data:
            yield parse_json(b"\n".join(data))
            data = []


def _read_bytes(path: str, status: int, headers: Mapping[str, str], body: bytes) -> Reading:
    if not body:
        return Reading(status, media_type(headers), "no body")
    if media_type(headers) == EVENT_STREAM:
        return _read_events(status, EVENT_STREAM, list(sse_data(body)), body)
    head, rest = _split(headers, body)
    parsed = parse_json(head)
    if parsed is NOT_JSON:
        return Reading(status, media_type(headers), OTHER, body=body)
    return _read_json(path, status, headers, parsed, rest)


def _split(headers: Mapping[str, str], body: bytes) -> tuple[bytes, bytes]:
    length = headers.get(HEADER_LENGTH, "").strip()
    end = int(length) if re.fullmatch("[0-9]{1,18}", length) else len(body)
    return body[:end], body[end:]


def _read_json(
    path: str, status: int, headers: Mapping[str, str], said: Any, rest: bytes
) -> Reading:
    reading = Reading(status, media_type(headers), "JSON", said, error=_error(said))
    operation = path.partition("?")[0].rpartition("/")[2]
    if not isinstance(said, dict) or reading.error is not None:
        return reading
    if operation == "infer" and isinstance(said.get("outputs"), list):
        head = {name: said[name] for name in said if name != "outputs"}
        return replace(reading, head=head, outputs=_by_name(read_tensors(said["outputs"], rest)))
    if operation in ("generate", "generate_stream"):
        outputs = _by_name(generate_output(name, said[name]) for name in said if name not in HEAD)
        return replace(reading, head=_head(said), outputs=outputs)
    return reading


def _read_events(
    status: int, content_type: str, events: Sequence[Any], body: bytes = b""
) -> Reading:
    kind = media_type({"content-type": content_type or EVENT_STREAM})
    if not events or not all(isinstance(event, dict) for event in events):
        return Reading(status, kind, OTHER, num_events=len(events), body=body)
    error = next((said for event in events if (said := _error(event)) is not None), None)
    names = list(dict.fromkeys(name for event in events for name in event))
    always = {name for name in names if all(name in event for event in events)}
    head = {name: events[0][name] for name in HEAD if name in always}
    outputs = _by_name(
        _joined(name, events, in_every_event=name in always) for name in names if name not in HEAD
    )
    return Reading(status, kind, "events", head, outputs, error, len(events))


def _joined(name: str, events: Sequence[JsonObject], *, in_every_event: bool) -> Output:
    """An output over a whole stream: strings put together, of other values their kind alone."""
    said = [event[name] for event in events if name in event]
    parts = [value if isinstance(value, list) else [value] for value in said]
    if name == "text_output" and all(isinstance(item, str) for part in parts for item in part):
        num_texts = max(map(len, parts))
        texts = ["".join(part[i] for part in parts if i < len(part)) for i in range(num_texts)]
        return generate_output(name, texts, in_every_event=in_every_event)
    first = generate_output(name, said[0], in_every_event=in_every_event)
    return replace(first, values=())


def _is_plain(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name, "")
    return value != "" and value.isascii() and value.isprintable()


def _head(said: JsonObject) -> dict[str, Any]:
    return {name: said[name] for name in HEAD if name in said}


def _error(said: Any) -> str | None:
    error = said.get("error") if isinstance(said, dict) else None
    return error if isinstance(error, str) else None


def _by_name(outputs: Iterator[Output]) -> dict[str, Output]:
    return {output.name: output for output in outputs}
