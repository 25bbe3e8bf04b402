"""vLLM's refusals and failures as ours."""

from __future__ import annotations

import logging
from http import HTTPStatus

from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.v1.engine.exceptions import EngineDeadError

from gemma_serve.errors import (
    GemmaServeError,
    InternalError,
    NotFoundError,
    RequestError,
    UnavailableError,
)

# What vLLM's request models raise while a body is parsed, beside pydantic's own error.
PARSE_ERRORS = (VLLMError, ValueError, TypeError, OverflowError, NotImplementedError)

# vLLM's advice for its own command line, in our words.
ADVICE = {
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set': (
        "This server has no tool parser for its model; "
        "set chat.tool_call_parser in the profile, or send tool_choice 'none'."
    ),
    'tool_choice="required" requires --tool-call-parser to be set': (
        "This server has no tool parser for its model; set chat.tool_call_parser in the profile."
    ),
}


def translate(error: Exception) -> GemmaServeError:
    """An exception of vLLM's as one of ours."""
    if isinstance(error, GemmaServeError):
        return error
    if isinstance(error, EngineDeadError):
        return UnavailableError(
            "The engine is dead and the server is going down; retry on another instance.",
            code="engine_dead",
        )
    return refusal(create_error_response(error))


def refusal_in_event(event: str) -> GemmaServeError | None:
    """The error that a server-sent event carries (`data: {"error": ...}`), if it carries one."""
    if not event.startswith('data: {"error"'):
        return None
    return refusal(ErrorResponse.model_validate_json(event.removeprefix("data: ")))


def refusal(response: ErrorResponse) -> GemmaServeError:
    """The error response of a serving object as an exception."""
    error = response.error
    message = ADVICE.get(error.message, error.message)
    match error.code:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError(message, code="model_not_found", param=error.param)
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return UnavailableError(message, code="engine_overloaded", retry_after_s=1)
        case HTTPStatus.NOT_IMPLEMENTED:
            return RequestError(message, code="not_supported", param=error.param)
        case code if code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return RequestError(message, param=error.param)
    return InternalError(message)


class ClientFaults(logging.Filter):
    """Keeps what a client did wrong, and its words, out of the log: the client is told."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        is_refusal = str(record.msg).startswith("Error with model")
        return not (is_refusal or isinstance(error, VLLMClientError))
