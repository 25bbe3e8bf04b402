"""What clients ask under faults: every HTTP API, and how its answer can be told from others."""

from __future__ import annotations

from typing import Any

NUM_TOKENS = 150
CHAT = {"messages": [{"role": "user", "content": "Tell me a long story."}]}
# Path -> body of requests that run for a while; each is sent as a stream and as a whole.
KINDS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT | {"ignore_eos": True},
    "/v1/completions": {"prompt": "The sea", "ignore_eos": True},
    "/v1/messages": CHAT | {"model": "tiny"},
    "/v1/responses": {"input": "The sea"},
    "/v2/models/tiny/generate": {"text_input": "The sea"},
}
# How each API calls the length of its answer, where it is not `max_tokens`.
LENGTHS = {"/v1/responses": "max_output_tokens", "/v2/models/tiny/generate": "max_new_tokens"}
# Greedy, so that an idle server can be asked for the same text; and, where the API has a word for
# it, with the ids of the prompt and of the answer.
TRACED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"temperature": 0, "return_token_ids": True},
    "/v1/completions": {"temperature": 0, "return_token_ids": True},
    "/v1/messages": {"temperature": 0},
    "/v1/responses": {"temperature": 0, "enable_response_messages": True},
    "/v2/models/tiny/generate": {"do_sample": False},
}
# Their streams say how many tokens there were only when asked to.
WITH_USAGE = ("/v1/chat/completions", "/v1/completions")


def body_of(path: str, num_tokens: int, *, stream: bool = False) -> dict[str, Any]:
    """A request of this API for an answer of so many tokens."""
    return KINDS[path] | {LENGTHS.get(path, "max_tokens"): num_tokens, "stream": stream}


def traced_body(path: str, num_tokens: int, nonce: str, *, stream: bool = False) -> dict[str, Any]:
    """The same with a prompt that no other request has, and all that its answer can tell of it."""
    body = _with(body_of(path, num_tokens, stream=stream), nonce) | TRACED[path]
    if stream and path in WITH_USAGE:
        body["stream_options"] = {"include_usage": True}
    return body


def nonce_of(id_: str) -> str:
    """What stands in the prompt of the request with this id, and in no other's."""
    return f"[{id_}]"


def _with(body: dict[str, Any], nonce: str) -> dict[str, Any]:
    for name in ("prompt", "input", "text_input"):
        if name in body:
            return body | {name: f"{body[name]} {nonce}"}
    [turn] = body["messages"]
    return body | {"messages": [turn | {"content": f"{turn['content']} {nonce}"}]}
