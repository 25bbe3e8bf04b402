"""
The golden file: JSON Lines, one recorded request and its response a line.

    {"name": "rivers",
     "request": {"method": "POST", "path": "/v2/models/m/generate", "body": {"text_input": "..."}},
     "response": {"status": 200, "headers": {"content-type": "application/json"}, "body": {...}}}

A body that is no JSON is `body_base64`; server-sent events are `events`, a list of their data.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from gemma_serve.errors import GemmaServeError

HEADER_LENGTH = "inference-header-content-length"
# What is kept of a response's headers: how its body is to be read.
KEPT_HEADERS = ("content-type", HEADER_LENGTH)
# What the client works out from the body and the address.
OWN_HEADERS = frozenset({"connection", "content-length", "host", "transfer-encoding"})


class GoldenError(GemmaServeError):
    """The golden file, the requests or an option can't be used."""

    exit_code = 2


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is not base64") from None


def _lower_names(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


Base64 = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode()),
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e]*$")]
Headers = Annotated[dict[HeaderName, HeaderValue], AfterValidator(_lower_names)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _one_body(self) -> _Message:
        bodies = [name for name in self.model_fields_set if name.startswith(("body", "events"))]
        if len(bodies) > 1:
            raise ValueError(f"{' and '.join(sorted(bodies))} are both there; keep one")
        return self


class Request(_Message):
    """What is sent."""

    method: Literal["GET", "POST"] = "POST"
    path: str = Field(pattern=r"^/[\x21-\x7e]*$", description="From the first slash on.")
    headers: Headers = {}
    body: Any = None
    body_base64: Base64 | None = None

    def content(self) -> bytes | None:
        """The body's bytes."""
        if self.body_base64 is not None:
            return self.body_base64
        return None if self.body is None else json.dumps(self.body).encode()

    def sent_headers(self) -> dict[str, str]:
        """The headers, with the content type of the body if none is given."""
        kind = "application/json" if self.body_base64 is None else "application/octet-stream"
        mine = {"content-type": kind} if self.content() is not None else {}
        sent = {name: self.headers[name] for name in self.headers if name not in OWN_HEADERS}
        return mine | sent


class Response(_Message):
    """What was answered; of the headers, those in KEPT_HEADERS are read."""

    status: int = Field(ge=100, le=999)
    headers: Headers = {}
    body: Any = None
    body_base64: Base64 | None = None
    events: list[dict[str, Any]] | None = None


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, description="What reports call it.")
    request: Request


class Pair(_Named):
    """A line of a golden file."""

    response: Response
    varies: bool = Field(
        default=False, description="The recorded server itself gave two different answers."
    )


class Asked(_Named):
    """A line of requests to record; a golden file can be recorded anew."""

    response: Any = None
    varies: Any = None
