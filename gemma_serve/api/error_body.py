"""An error in the shape of the API that was called, alone or in a stream; imports no vLLM."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import Response

from gemma_serve import logs
from gemma_serve.errors import GemmaServeError

MAX_MESSAGE_CHARS = 1024
# In JSON, where a character that is no ASCII takes six bytes or twelve: a body stays below 4 KiB.
MAX_MESSAGE_BYTES = 2560
MAX_PARAM_CHARS = 100
ANTHROPIC_PREFIX = "/v1/messages"
KSERVE_PREFIX = "/v2"
RESPONSES_PATH = "/v1/responses"
SEQUENCE_NUMBER = re.compile(r'"sequence_number":(\d+)')
# Where a scope keeps the status that a stream would have had, if it failed after its head.
FAILED_STATUS = "gemma_serve.failed_status"
ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
ANTHROPIC_OVERLOADED = 529  # of Anthropic's own; the others' clients know 503


def error_body(error: GemmaServeError, path: str) -> dict[str, Any]:
    """
    The JSON body of an error.

    Source: https://platform.openai.com/docs/guides/error-codes,
    https://docs.anthropic.com/en/api/errors and KServe's v2 protocol
    """
    message = _shortened(error.message)
    if path == KSERVE_PREFIX or path.startswith(f"{KSERVE_PREFIX}/"):
        return {"error": message}
    if path.startswith(ANTHROPIC_PREFIX):
        default = "invalid_request_error" if error.status < 500 else "api_error"
        type_ = ANTHROPIC_TYPES.get(error.status, default)
        return {"type": "error", "error": {"type": type_, "message": message}}
    return {
        "error": {
            "message": message,
            "type": error.type,
            "param": error.param and error.param[:MAX_PARAM_CHARS],
            "code": error.code,
        }
    }


def error_response(error: GemmaServeError, path: str) -> Response:
    """The whole answer: status, body, Retry-After or WWW-Authenticate where they belong."""
    logs.note(reason=error.code or error.type)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    # default=str: a lone surrogate or an odd value in a message must not turn a 400 into a 500.
    body = json.dumps(error_body(error, path), default=str).encode()
    return Response(body, status_of(error, path), headers, media_type="application/json")


def _shortened(message: str) -> str:
    """As much of a message as an answer has room for, whatever characters it quotes."""
    short = message[:MAX_MESSAGE_CHARS]
    fits = len(json.dumps(short)) <= MAX_MESSAGE_BYTES
    return short if fits else short[: MAX_MESSAGE_BYTES // 12]


def status_of(error: GemmaServeError, path: str) -> int:
    """The HTTP status of an error."""
    if error.code == "engine_overloaded" and path.startswith(ANTHROPIC_PREFIX):
        return ANTHROPIC_OVERLOADED
    return error.status


def error_event(error: GemmaServeError, path: str, last_event: str) -> str:
    """
    The event that ends a stream which can't be completed.

    Args:
        error: What happened.
        path: The route, and so the API.
        last_event: What was sent before it; the Responses API numbers its events.

    Source: https://docs.anthropic.com/en/api/messages-streaming and
    https://platform.openai.com/docs/api-reference/responses-streaming/error
    """
    logs.note(reason=error.code or error.type)
    body = error_body(error, path)
    if path.startswith(ANTHROPIC_PREFIX):
        return f"event: error\ndata: {_json(body)}\n\n"
    if path == RESPONSES_PATH:
        numbers = SEQUENCE_NUMBER.findall(last_event)
        numbered = {"sequence_number": int(numbers[-1]) + 1 if numbers else 0}
        # Its `type` names the event; that of an OpenAI error has no place.
        body = body["error"] | {"type": "error"} | numbered
        return f"event: error\ndata: {_json(body)}\n\n"
    return f"data: {_json(body)}\n\n"


def _json(body: dict[str, Any]) -> str:
    # A lone surrogate or an odd value in a message must not be a second failure.
    return json.dumps(body, default=str)
