"""What a request that never becomes one is refused with: the sentences, and the answer as bytes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gemma_serve.api.error_body import error_body
from gemma_serve.errors import (
    GemmaServeError,
    HeadersTooLargeError,
    PayloadTooLargeError,
    SlowRequestError,
    UrlTooLongError,
)
from gemma_serve.profile.schema import Limits


def raw_answer(
    error: GemmaServeError, path: str, default_headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """
    The whole answer to a refused request; the connection ends with it.

    Args:
        path: As far as it was read, for the shape of the API that was called.
        default_headers: Those that uvicorn puts before every answer.
    """
    body = json.dumps(error_body(error, path)).encode()
    headers = [
        *default_headers,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", uuid.uuid4().hex.encode()),
    ]
    lines = [b"%s: %s\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])


def url_too_long(limits: Limits) -> UrlTooLongError:
    """Refuse by `limits.max_url_bytes`."""
    return UrlTooLongError(
        f"The URL is longer than {limits.max_url_bytes} bytes (limits.max_url_bytes); "
        "send a shorter one."
    )


def headers_too_large(limits: Limits) -> HeadersTooLargeError:
    """Refuse by `limits.max_header_bytes`."""
    return HeadersTooLargeError(
        f"The headers are larger than {limits.max_header_bytes} bytes (limits.max_header_bytes); "
        "send less."
    )


def too_many_headers(limits: Limits) -> HeadersTooLargeError:
    """Refuse by `limits.max_headers`."""
    return HeadersTooLargeError(
        f"The request has more than {limits.max_headers} headers (limits.max_headers); send fewer."
    )


def too_many_chunks(limits: Limits) -> PayloadTooLargeError:
    """Refuse by `limits.max_chunks`."""
    return PayloadTooLargeError(
        f"The body comes in more than {limits.max_chunks} chunks (limits.max_chunks); "
        "send larger ones, or a Content-Length."
    )


def head_too_slow(limits: Limits) -> SlowRequestError:
    """Refuse by `limits.header_timeout_s`."""
    return SlowRequestError(
        f"The head of the request did not come within {limits.header_timeout_s:g} s "
        "(limits.header_timeout_s); send it faster."
    )


def body_too_slow(limits: Limits) -> SlowRequestError:
    """Refuse by `limits.body_timeout_s` and `limits.min_body_bytes_per_s`."""
    return SlowRequestError(
        f"The body of the request did not come within {limits.body_timeout_s:g} s, and one more "
        f"for each {limits.min_body_bytes_per_s} bytes (limits.body_timeout_s); send it faster."
    )
