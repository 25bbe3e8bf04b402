"""
What the head of a request must be, where llhttp takes more than we do.

llhttp, the parser of httptools, refuses by itself: two lengths, a length beside chunks, a length
that is no number, folded lines, bare line feeds, control characters, unknown methods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gemma_serve.errors import RequestError

MALFORMED = "malformed_request"
# Source: RFC 9110, 7.2, and RFC 3986, 3.2.2; of its sub-delims none stands in a real name.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~%-]*)(?::[0-9]{0,5})?", re.ASCII)


def check_head(version: str, headers: Iterable[tuple[bytes, bytes]], *, upgrades: bool) -> None:
    """
    Refuse a head that another server on the way could read otherwise.

    Args:
        version: As the parser gives it: 1.1.
        headers: Names in lower case.
        upgrades: Whether the request asks for another protocol.

    Raises:
        RequestError: what is wrong with it.
    """
    hosts, codings, has_body = [], [], False
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"content-length":
            has_body = value.strip() != b"0"
    if version not in ("1.0", "1.1"):
        raise malformed(f"HTTP/{version} is not spoken here; use HTTP/1.1.")
    _check_host(hosts, version)
    if codings:
        _check_coding(codings, version)
    if upgrades and (has_body or codings):
        # httptools reads no body then: vLLM's own server answers such a client as if it sent none.
        raise malformed(
            "A body came with an Upgrade header, and no other protocol is served; send it without "
            "(Java's HttpClient: version(HTTP_1_1))."
        )


def malformed(message: str) -> RequestError:
    """The refusal of what is no request of HTTP/1.1."""
    return RequestError(message, code=MALFORMED)


def _check_host(hosts: list[bytes], version: str) -> None:
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise malformed(f"The request has {len(hosts)} Host headers; send one.")
    if hosts and not HOST.fullmatch(hosts[0].strip()):
        raise malformed("The Host header is no name or address with a port; send HOST:PORT.")


def _check_coding(codings: list[bytes], version: str) -> None:
    if version == "1.0" or len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise malformed(
            "The Transfer-Encoding can't be read; send 'chunked' alone over HTTP/1.1, or a "
            "Content-Length."
        )
