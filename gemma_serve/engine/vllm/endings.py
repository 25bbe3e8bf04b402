"""
The end of an answer that can't be completed: an exception of ours, never text that looks whole.

vLLM writes a failure into the stream, in OpenAI's shape whatever the protocol, and `[DONE]` after
it; and to its serving objects an abort is a finish reason like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

from gemma_serve.engine.vllm.errors import refusal, translate
from gemma_serve.errors import GemmaServeError, InternalError, UnavailableError


class StreamFailed(BaseException):
    """An error on its way out of vLLM's streams, past handlers that would write it as text."""

    def __init__(self, error: GemmaServeError) -> None:
        super().__init__(error.message)
        self.error = error


def let_failures_out(serving: Any) -> None:
    """Have a serving object raise what ends an answer early, where it looks for that."""
    serving.create_streaming_error_response = _raise_failure
    serving._raise_if_error = raise_if_unfinished


def raise_if_unfinished(finish_reason: str | None, _request_id: str = "") -> None:
    """
    Raise where the engine ended a request that it has not completed.

    Raises:
        UnavailableError: the engine was told to end, and gave the request up.
        InternalError: the engine failed on this request.
    """
    if finish_reason == "abort":
        raise UnavailableError(
            "The engine is shutting down and gave the request up; retry on another instance.",
            code="engine_dead",
            retry_after_s=5,
        )
    if finish_reason == "error":
        raise InternalError("The engine failed on this request; its log has the details.")


@contextmanager
def translated() -> Iterator[None]:
    """
    Whatever vLLM raises inside, as ours.

    Raises:
        GemmaServeError: vLLM refused the request, or failed on it.
    """
    try:
        yield
    except StreamFailed as failed:
        raise failed.error from failed.__cause__
    except GemmaServeError:
        raise
    except Exception as error:
        raise translate(error) from error


def _raise_failure(message: str | Exception, *details: Any, **more: Any) -> NoReturn:
    """As vLLM's `create_streaming_error_response`, which returns the event's text."""
    if isinstance(message, Exception):
        raise StreamFailed(translate(message)) from message
    raise StreamFailed(refusal(create_error_response(message, *details, **more)))
