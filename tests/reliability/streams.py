"""Class J: streams, Anthropic's messages and KServe v2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.api.kserve.bad_bodies import bad_bodies
from tests.api.kserve.bad_requests import bad_requests
from tests.api.kserve.bad_tensors import bad_tensors
from tests.reliability.case import CHAT, COMPLETIONS, EITHER, MESSAGES, Case, chat, post

ODD: tuple[Any, ...] = (None, True, 7, -1, 1.5, "true", "", [], {}, [None], {"a": 1})


def cases() -> Iterator[Case]:
    """All of them."""
    for request in [*bad_tensors(), *bad_requests(), *bad_bodies()]:
        name = f"J {request.name} {request.path[:40]}"
        yield Case(name, request.path, request.body, method=request.method, headers=request.headers)
    yield from _streams()
    yield from _messages()


def _streams() -> Iterator[Case]:
    """A stream that is refused is no stream; one that is not ends as it should."""
    for value in ODD:
        yield chat(f"J stream {value!r}", EITHER, stream=value)
        yield chat(f"J stream_options {value!r}", EITHER, stream=True, stream_options=value)
        usage = {"include_usage": value}
        yield chat(f"J include_usage {value!r}", EITHER, stream=True, stream_options=usage)
        prompt = {"prompt": "a", "max_tokens": 1, "stream": True, "stream_options": usage}
        yield post(f"J completion include_usage {value!r}", COMPLETIONS, prompt, EITHER)
    yield chat("J stream_options without a stream", stream_options={"include_usage": True})
    for what, fields in {
        "unknown model": {"model": "other"},
        "no messages": {"messages": []},
        "negative temperature": {"temperature": -1},
        "too many tokens": {"max_tokens": 2**31},
        "an unknown role": {"messages": [{"role": "wizard", "content": "a"}]},
    }.items():
        yield chat(f"J streamed, {what}", stream=True, **fields)


def _messages() -> Iterator[Case]:
    turn = {"role": "user", "content": "a"}
    message = {"model": "tiny", "max_tokens": 1, "messages": [turn]}
    for key in ("model", "max_tokens", "messages"):
        without = {name: value for name, value in message.items() if name != key}
        yield post(f"J messages without {key}", MESSAGES, without, EITHER)
    for key in ("system", "stop_sequences", "tools", "tool_choice", "thinking", "metadata"):
        for value in ODD:
            for stream in (False, True):
                fields = message | {key: value, "stream": stream}
                yield post(f"J messages {key} {value!r} {stream}", MESSAGES, fields, EITHER)
    for value in ODD:
        content = [{"role": "user", "content": value}]
        yield post(f"J content {value!r}", MESSAGES, message | {"messages": content}, EITHER)
        yield post(f"J chat content {value!r}", CHAT, {"messages": content}, EITHER)
        block = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": value}]}]
        yield post(f"J result {value!r}", MESSAGES, message | {"messages": block}, EITHER)
