"""vLLM's refusals and failures as ours."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from gemma_serve.errors import (
    GemmaServeError,
    InternalError,
    NotFoundError,
    RequestError,
    UnavailableError,
)

# What vLLM's request models raise while a body is parsed, beside pydantic's own error.
PARSE_ERRORS = (VLLMError, ValueError, TypeError, OverflowError, NotImplementedError)

logger = logging.getLogger("gemma_serve.vllm")
MAX_LOGGED_CHARS = 500

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
    error = _cause(error)
    if isinstance(error, GemmaServeError):
        return error
    if isinstance(error, EngineDeadError):
        return UnavailableError(
            "The engine is dead and the server is going down; retry on another instance.",
            code="engine_dead",
            retry_after_s=5,
        )
    return refusal(create_error_response(error))


def _cause(error: BaseException) -> Any:
    """What vLLM wraps: an error of ours with which the launcher has ended the request."""
    ours = isinstance(error, EngineGenerateError) and isinstance(error.__cause__, GemmaServeError)
    return error.__cause__ if ours else error


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
    # What it was is for the log: the client can't mend it, and it may tell of the server's inside.
    logger.error("vLLM failed on a request: %s", message[:MAX_LOGGED_CHARS])
    return InternalError("The engine failed on this request; its log has the details.")


class ClientFaults(logging.Filter):
    """
    Keeps out of the log what the client is told: its mistakes, with its words, and our own errors.

    A dead engine has said why itself; a stack for every open request would bury it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        is_refusal = str(record.msg).startswith("Error with model")
        told = isinstance(
            error and _cause(error), (VLLMClientError, GemmaServeError, EngineDeadError)
        )
        return not (is_refusal or told)
