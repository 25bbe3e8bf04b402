"""
The exceptions that gemma-serve raises on purpose.

    GemmaServeError
      x ProfileError            the profile can't be used        exit 2
      x StartupError            the server can't start           exit 3
        + ModelError            the model can't be served        exit 3
      x QuantizeError           the model can't be quantised     exit 3
      x QualityError            two models can't be compared     exit 2
      x RequestError            the client's fault               400
        + AuthenticationError   no key, or an unknown one        401
        + NotFoundError         no such route or model           404
        + MethodError           the route has no such method     405
        + SlowRequestError      the request came too slowly      408
        + PayloadTooLargeError  the body is over the limit       413
        + UrlTooLongError       the URL is over the limit        414
        + MediaTypeError        the body is not JSON             415
        + RateLimitError        the key's share is used up       429
        + HeadersTooLargeError  the headers are over a limit     431
      x UnavailableError        starting, draining or dead       503
      x DeadlineError           the deadline is over             504
      x InternalError           the server's fault               500

Every message is one sentence: what was asked, the value, what is allowed, the next step.
"""

from __future__ import annotations

from dataclasses import dataclass


class GemmaServeError(Exception):
    """Anything that gemma-serve raises on purpose."""

    exit_code = 1
    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.param = param
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in a profile, and where it stands."""

    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{where}: {self.message}" if where else self.message


class ProfileError(GemmaServeError):
    """The profile can't be used; `mistakes` holds all that is wrong with it."""

    exit_code = 2

    def __init__(self, mistakes: str | list[Mistake]) -> None:
        self.mistakes = [Mistake(mistakes)] if isinstance(mistakes, str) else mistakes
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class StartupError(GemmaServeError):
    """The server can't start: a port, a device, memory, a missing package."""

    exit_code = 3


class ModelError(StartupError):
    """The model can't be served: not Gemma, no weights, heads that do not divide."""


class QualityError(GemmaServeError):
    """Two models can't be compared: no record, another text or tokenizer, nowhere to write."""

    exit_code = 2


class QuantizeError(GemmaServeError):
    """The checkpoint can't be quantised so, or the result can't be written."""

    exit_code = 3


class RequestError(GemmaServeError):
    """The request can't be served, and the client can mend it."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(RequestError):
    """No key was sent, or one that is not configured."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotFoundError(RequestError):
    """There is no such route or model."""

    status = 404
    type = "not_found_error"


class MethodError(RequestError):
    """The route exists, the method does not."""

    status = 405


class SlowRequestError(RequestError):
    """The head or the body of a request took too long to arrive."""

    status = 408
    type = "timeout_error"
    code = "request_timeout"


class PayloadTooLargeError(RequestError):
    """The body is larger than `limits.max_body_bytes`."""

    status = 413
    code = "request_too_large"


class UrlTooLongError(RequestError):
    """The URL is longer than `limits.max_url_bytes`."""

    status = 414
    code = "url_too_long"


class MediaTypeError(RequestError):
    """The body's content type is not application/json, or it is compressed where none is taken."""

    status = 415


class RateLimitError(RequestError):
    """The key has used its tokens of the minute, or its share of a full queue."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class HeadersTooLargeError(RequestError):
    """More headers, or longer ones, than `limits.max_headers` and `limits.max_header_bytes`."""

    status = 431
    code = "headers_too_large"


class UnavailableError(GemmaServeError):
    """The server is starting, draining, or its engine is dead."""

    status = 503
    type = "unavailable_error"


class DeadlineError(GemmaServeError):
    """The request took longer than its client, or the profile, allows."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class InternalError(GemmaServeError):
    """A fault of ours that no more precise class describes."""

    code = "internal_error"
