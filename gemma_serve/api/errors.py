"""Errors in the shape of the API that was called: OpenAI's, Anthropic's or KServe's, by path."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gemma_serve.api.error_body import error_response
from gemma_serve.engine.vllm import PARSE_ERRORS, translate
from gemma_serve.errors import (
    GemmaServeError,
    InternalError,
    MethodError,
    NotFoundError,
    RequestError,
)

# What OpenAI's clients may call and a Gemma server has no answer to.
NOT_SERVED = {
    "/v1/embeddings": "embeddings",
    "/v1/moderations": "moderations",
    "/v1/images/generations": "image generation",
    "/v1/audio/speech": "speech",
    "/v1/audio/transcriptions": "transcriptions",
}
WHERE_ROUTES_ARE = (
    "OpenAI's begin with /v1/, Anthropic's with /v1/messages, KServe's with /v2/; mend the path"
)


def from_http_exception(
    error: HTTPException, method: str, path: str, *, has_docs: bool
) -> GemmaServeError:
    """
    A routing error of Starlette's (no such route, no such method, an unreadable body).

    Args:
        has_docs: Whether there is a page that lists the routes.
    """
    if isinstance(error.__cause__, GemmaServeError):
        return error.__cause__
    if error.status_code == 404:
        what = NOT_SERVED.get(path)
        if what:
            return NotFoundError(
                f"This server generates text with Gemma and has no {what}; "
                "use /v1/chat/completions, /v1/responses or /v1/messages.",
                code="not_supported",
            )
        where = "/docs lists those there are" if has_docs else WHERE_ROUTES_ARE
        return NotFoundError(
            f"There is no route {method} {path[:200]!r}; {where}.", code="unknown_route"
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return MethodError(f"{path[:200]!r} does not take {method}; use {allowed}.")
    return RequestError(str(error.detail))


def from_validation_error(error: RequestValidationError) -> RequestError:
    """The first mistake in a body, in one sentence that never repeats the body's text."""
    mistakes = error.errors()
    # What another branch of a union would have needed is no mistake of the client's.
    wrong = [mistake for mistake in mistakes if not _is_missing(mistake)]
    first: Any = next(iter([*wrong, *mistakes]), {})
    if not isinstance(first, dict):
        return RequestError(str(first))
    if first.get("type") == "json_invalid":
        reason = first.get("ctx", {}).get("error", "malformed")
        return RequestError(f"The body is not JSON: {reason}; send one JSON object.")
    param = ".".join(str(part) for part in first.get("loc", ()) if _is_field(part))
    more = f" ({len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    problem = str(first.get("msg", "it is not valid")).removeprefix("Value error, ")
    where = f"'{param}': " if param else "The body: "
    return RequestError(f"{where}{problem}{more}.".replace("..", "."), param=param or None)


def _is_missing(mistake: Any) -> bool:
    return isinstance(mistake, dict) and mistake.get("type") == "missing"


def _is_field(part: Any) -> bool:
    # pydantic names the branches of unions and wrappers in brackets: no field of the client's.
    return part != "body" and not any(mark in str(part) for mark in "[](){}")


def install_error_handlers(app: FastAPI) -> None:
    """Answer every exception in the caller's shape."""

    @app.exception_handler(GemmaServeError)
    async def refused(request: Request, error: GemmaServeError) -> Response:
        return error_response(error, request.scope["path"])

    @app.exception_handler(HTTPException)
    async def not_routed(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        has_docs = app.docs_url is not None
        refusal = from_http_exception(error, request.method, path, has_docs=has_docs)
        response = error_response(refusal, path)
        if error.status_code == 405 and error.headers:
            response.headers["allow"] = error.headers.get("Allow", "")
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return error_response(from_validation_error(error), request.scope["path"])

    async def unparsed(request: Request, error: Exception) -> Response:
        return error_response(translate(error), request.scope["path"])

    for kind in PARSE_ERRORS:
        app.add_exception_handler(kind, unparsed)

    @app.exception_handler(Exception)
    async def failed(request: Request, _error: Exception) -> Response:
        message = "The server failed on this request; its log has the details."
        return error_response(InternalError(message), request.scope["path"])
