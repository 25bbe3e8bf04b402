"""How much each field of a request may hold, on every protocol (docs/behaviour.md, Limits)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from gemma_serve.profile.schema import Limits
from tests.servers import Server

JSON = {"content-type": "application/json"}
LIMITS = Limits()
MAX_STOP_TOKEN_IDS, MAX_TOKEN_IDS = LIMITS.max_stop_token_ids, LIMITS.max_biased_token_ids
MAX_LOGPROB_TOKEN_IDS, MAX_BAD_WORDS = LIMITS.max_logprob_token_ids, LIMITS.max_bad_words
MAX_WORD_CHARS, MAX_REGEX_CHARS = LIMITS.max_word_chars, LIMITS.max_regex_chars
MAX_SCHEMA_DEPTH = LIMITS.max_schema_depth
USER = {"role": "user", "content": "Hi"}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, GENERATE, TOKENIZE = "/v1/messages", "/v2/models/tiny/generate", "/tokenize"
# The smallest request of each; every case changes one field of it.
REQUESTS: Mapping[str, Mapping[str, Any]] = {
    CHAT: {"messages": [USER], "max_tokens": 1},
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 1},
    RESPONSES: {"input": "Hi", "max_output_tokens": 1, "store": False},
    MESSAGES: {"model": "tiny", "messages": [USER], "max_tokens": 1},
    TOKENIZE: {"prompt": "Hi"},
    "/detokenize": {"tokens": [5]},
    GENERATE: {"text_input": "Hi", "max_new_tokens": 1},
}


@pytest.fixture(scope="module")
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with tiny_server.client() as client:
        yield client


def _message(path: str, answer: httpx.Response) -> str:
    """The message of a refusal, held to its protocol's shape."""
    body = answer.json()
    assert len(answer.content) <= 4096, body
    if path.startswith("/v2"):
        assert set(body) == {"error"}, body
        return str(body["error"])
    error = body["error"]
    if path.startswith("/v1/messages"):
        assert (body["type"], set(error)) == ("error", {"type", "message"}), body
    else:
        assert set(error) == {"message", "type", "param", "code"}, body
    assert error["type"] == "invalid_request_error", body
    return str(error["message"])


def _send(http: httpx.Client, path: str, change: Mapping[str, Any]) -> httpx.Response:
    # Not by httpx, which writes neither NaN nor a lone surrogate.
    body = json.dumps({**REQUESTS[path], **change})
    return http.post(path, content=body, headers=JSON)


# --- amounts


def _words(count: int, chars: int = 3) -> list[str]:
    return [f"{number:0{chars}d}" for number in range(count)]


def _depth(levels: int) -> dict[str, Any]:
    """A schema whose objects nest so deep; its dictionaries of properties count too."""
    schema: dict[str, Any] = {"type": "string"} if levels % 2 else {}
    for _ in range((levels - 1) // 2):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema if levels % 2 else {"properties": schema}


def _schema(**structured: Any) -> dict[str, Any]:
    return {"structured_outputs": structured}


def _format(schema: Any) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    }


LARGE = {"description": "x" * (LIMITS.max_schema_bytes - len('{"description": ""}') + 1)}
PARTS = [{"type": "text", "text": "a"}] * (LIMITS.max_parts + 1)
MASKED = {"stop_token_ids": list(range(100, 100 + MAX_STOP_TOKEN_IDS)), "min_tokens": 1}
# What holds one more than it may, and the limit that the message names.
TOO_MUCH: list[tuple[tuple[str, ...], Mapping[str, Any], int | str]] = [
    ((CHAT, COMPLETIONS), {"n": LIMITS.max_n + 1}, LIMITS.max_n),
    ((CHAT, COMPLETIONS), {"n": 2**40}, "limits.max_n"),
    ((COMPLETIONS,), {"prompt": ["a"] * (LIMITS.max_prompts + 1)}, LIMITS.max_prompts),
    ((COMPLETIONS,), {"prompt": [[5]] * (LIMITS.max_prompts + 1)}, "limits.max_prompts"),
    ((CHAT, COMPLETIONS, RESPONSES), {"stop": _words(5)}, 4),
    ((MESSAGES,), {"stop_sequences": _words(5)}, 4),
    ((CHAT, COMPLETIONS, RESPONSES), {"stop": "x" * (MAX_WORD_CHARS + 1)}, MAX_WORD_CHARS),
    ((CHAT, COMPLETIONS), {"stop": ["x" * 100_000]}, MAX_WORD_CHARS),
    ((MESSAGES,), {"stop_sequences": ["x" * (MAX_WORD_CHARS + 1)]}, MAX_WORD_CHARS),
    (
        (CHAT, COMPLETIONS, RESPONSES),
        {"stop_token_ids": list(range(MAX_STOP_TOKEN_IDS + 1))},
        MAX_STOP_TOKEN_IDS,
    ),
    ((CHAT, COMPLETIONS), MASKED, "leave min_tokens out"),
    (
        (CHAT, COMPLETIONS, RESPONSES),
        {"logit_bias": dict.fromkeys(map(str, range(MAX_TOKEN_IDS + 1)), 1)},
        MAX_TOKEN_IDS,
    ),
    (
        (CHAT, COMPLETIONS),
        {"allowed_token_ids": list(range(MAX_TOKEN_IDS + 1))},
        MAX_TOKEN_IDS,
    ),
    ((CHAT, COMPLETIONS), {"bad_words": _words(MAX_BAD_WORDS + 1)}, MAX_BAD_WORDS),
    ((CHAT, COMPLETIONS), {"bad_words": ["x" * (MAX_WORD_CHARS + 1)]}, MAX_WORD_CHARS),
    ((CHAT,), {"logprobs": True, "top_logprobs": 21}, 20),
    ((COMPLETIONS,), {"logprobs": 21}, 20),
    ((CHAT, COMPLETIONS), {"prompt_logprobs": 21}, 20),
    (
        (CHAT,),
        {"logprobs": True, "logprob_token_ids": list(range(MAX_LOGPROB_TOKEN_IDS + 1))},
        MAX_LOGPROB_TOKEN_IDS,
    ),
    ((CHAT, MESSAGES), {"messages": [{"role": "user", "content": PARTS}]}, LIMITS.max_parts),
    ((RESPONSES,), {"input": [{"role": "user", "content": PARTS}]}, LIMITS.max_parts),
    ((CHAT, MESSAGES), {"messages": [USER] * 2049}, LIMITS.max_messages),
    ((RESPONSES,), {"input": [USER] * 2049}, LIMITS.max_messages),
    ((CHAT, COMPLETIONS, RESPONSES), _schema(json=LARGE), LIMITS.max_schema_bytes),
    ((CHAT, COMPLETIONS), _format(LARGE), "limits.max_schema_bytes"),
    ((CHAT, COMPLETIONS), _format(_depth(MAX_SCHEMA_DEPTH + 1)), MAX_SCHEMA_DEPTH),
    ((CHAT, COMPLETIONS), _schema(json=json.dumps(_depth(34))), MAX_SCHEMA_DEPTH),
    ((CHAT,), _schema(json="[" * 100_000), LIMITS.max_schema_bytes),
    ((CHAT,), _schema(json="[" * 50_000), MAX_SCHEMA_DEPTH),
    (
        (RESPONSES,),
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": _depth(33)}}},
        MAX_SCHEMA_DEPTH,
    ),
    (
        (MESSAGES,),
        {"output_config": {"format": {"type": "json_schema", "schema": _depth(33)}}},
        MAX_SCHEMA_DEPTH,
    ),
    ((CHAT, COMPLETIONS), _schema(regex="a" * (MAX_REGEX_CHARS + 1)), MAX_REGEX_CHARS),
    ((CHAT,), _schema(choice=_words(20_000)), LIMITS.max_schema_bytes),
    ((CHAT,), _schema(grammar="#" * 70_000), LIMITS.max_schema_bytes),
]
CASES = [(path, change, limit) for paths, change, limit in TOO_MUCH for path in paths]


@pytest.mark.parametrize(
    ("path", "change", "limit"),
    CASES,
    ids=[f"{path} {'-'.join(change)} {limit}" for path, change, limit in CASES],
)
def test_one_more_than_allowed(
    http: httpx.Client, path: str, change: Mapping[str, Any], limit: int | str
) -> None:
    """One more than a field may hold is a 400 that names the limit, whole and streamed."""
    # vLLM has no prompt_logprobs in a stream, and says so first.
    for stream in (False,) if "prompt_logprobs" in change else (False, True):
        answer = _send(http, path, {**change, "stream": stream})
        assert answer.status_code == 400, answer.text[:300]
        assert str(limit) in _message(path, answer)


def test_sentences(http: httpx.Client) -> None:
    """What was sent, what is allowed, by which key, and what to do."""
    said = {
        name: _message(CHAT, _send(http, CHAT, change))
        for name, change in (
            ("n", {"n": 129}),
            ("ids", {"allowed_token_ids": list(range(2000))}),
            ("depth", _format(_depth(33))),
        )
    }
    assert said == {
        "n": "n is 129; at most 128 are allowed (limits.max_n), so send less.",
        "ids": "allowed_token_ids has 2000 token ids; at most 1024 are allowed, so send less.",
        "depth": "response_format is nested deeper than 32 levels (limits.max_schema_depth); send "
        "a flatter one, with its parts in $defs.",
    }


ALLOWED: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [
    ((CHAT, COMPLETIONS), {"n": 4, "temperature": 1}),
    ((COMPLETIONS,), {"prompt": ["a"] * LIMITS.max_prompts}),
    ((CHAT, COMPLETIONS), {"stop": _words(4, MAX_WORD_CHARS)}),
    ((MESSAGES,), {"stop_sequences": _words(4)}),
    ((CHAT, COMPLETIONS), {"stop_token_ids": list(range(MAX_STOP_TOKEN_IDS))}),
    ((CHAT,), {"stop_token_ids": list(range(100, 220)), "min_tokens": 1}),
    ((CHAT,), {"logit_bias": dict.fromkeys(map(str, range(MAX_TOKEN_IDS)), 1)}),
    ((CHAT, COMPLETIONS), {"allowed_token_ids": list(range(MAX_TOKEN_IDS))}),
    ((CHAT,), {"bad_words": _words(60)}),
    ((CHAT,), {"logprobs": True, "top_logprobs": 20}),
    ((CHAT, MESSAGES), {"messages": [{"role": "user", "content": PARTS[1:]}]}),
    ((CHAT,), _format(_depth(MAX_SCHEMA_DEPTH - 1))),
    ((CHAT,), _schema(regex="[ab]" * (MAX_REGEX_CHARS // 4))),
]


@pytest.mark.parametrize(
    ("path", "change"),
    [(path, change) for paths, change in ALLOWED for path in paths],
    ids=[f"{path} {'-'.join(change)}" for paths, change in ALLOWED for path in paths],
)
def test_as_much_as_allowed(http: httpx.Client, path: str, change: Mapping[str, Any]) -> None:
    """At its limit, a field is taken."""
    answer = _send(http, path, change)
    assert answer.status_code == 200, answer.text[:300]


# --- any value in any field

ODD: tuple[Any, ...] = (
    *(-1, 0, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, -0.0, 1.5, 1e308, "1", "x", True, None),
    *([], {}, [1], {"a": 1}, float("nan"), float("inf"), "\ud800", "\x00\n\x1b[31m"),
)
SHARED = (
    *("temperature", "top_p", "top_k", "stream", "stop", "model", "priority", "request_id"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "min_p", "seed"),
    *("logit_bias", "stop_token_ids", "ignore_eos", "skip_special_tokens", "vllm_xargs"),
    *("cache_salt", "kv_transfer_params", "structured_outputs", "user", "unknown_field"),
)
GENERATED = (
    *("n", "min_tokens", "logprobs", "prompt_logprobs", "allowed_token_ids", "bad_words"),
    *("truncate_prompt_tokens", "echo", "response_format", "stream_options"),
    *("logprob_token_ids", "repetition_detection", "stream_interval", "best_of"),
    *("thinking_token_budget", "use_beam_search", "length_penalty", "return_token_ids"),
    *("routed_experts_prompt_start", "max_tokens"),
)
FIELDS: Mapping[str, tuple[str, ...]] = {
    CHAT: (
        *(*SHARED, *GENERATED, "top_logprobs", "messages", "tools", "tool_choice"),
        *("max_completion_tokens", "reasoning_effort", "chat_template_kwargs", "documents"),
        *("add_generation_prompt", "continue_final_message", "parallel_tool_calls"),
    ),
    COMPLETIONS: (*SHARED, *GENERATED, "prompt", "suffix", "add_special_tokens", "prompt_embeds"),
    RESPONSES: (
        *(*SHARED, "input", "instructions", "max_output_tokens", "max_tool_calls"),
        *("metadata", "previous_response_id", "reasoning", "store", "background", "text", "tools"),
        *("tool_choice", "top_logprobs", "truncation", "include", "previous_input_messages"),
    ),
    MESSAGES: (
        *("messages", "max_tokens", "model", "system", "stop_sequences", "stream", "tools"),
        *("temperature", "top_k", "top_p", "tool_choice", "thinking", "metadata"),
        "output_config",
    ),
    TOKENIZE: ("prompt", "messages", "add_special_tokens", "return_token_strs", "model"),
    "/detokenize": ("tokens", "model"),
    GENERATE: (
        *("text_input", "max_new_tokens", "max_length", "do_sample", "top_k", "top_p"),
        *("temperature", "repetition_penalty", "stream", "id", "parameters", "unknown_field"),
    ),
}
EVERY = 4
# These let an answer be as long as the context, which is allowed and takes its time.
LONG = {"max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_length"}
UNSAID = re.compile(r"Traceback|site-packages|0x[0-9a-fA-F]{6,}|/tmp/")


@pytest.mark.parametrize("path", FIELDS)
def test_any_value_in_any_field(http: httpx.Client, path: str) -> None:
    """Whatever stands in a field, the answer is 200 or a refusal in the protocol's shape."""
    for at, name in enumerate(FIELDS[path]):
        # Each field gets a quarter of them, and the next field the next.
        for value in ODD[at % EVERY :: EVERY]:
            if name in LONG and (value is None or value == 0):
                continue
            answer = _send(http, path, {name: value})
            shown = (name, value, answer.status_code, answer.text[:300])
            if answer.status_code == 200:
                continue
            assert answer.status_code in (400, 404), shown
            if answer.status_code == 400:
                message = _message(path, answer)
                assert message, shown
                assert not UNSAID.search(message), shown
