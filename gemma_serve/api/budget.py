"""What a client says of its request's time, in each protocol's place and unit: in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemma_serve.errors import RequestError

HEADER = "x-request-deadline-ms"
MICROSECONDS = 1_000_000


def header_seconds(headers: Mapping[str, str]) -> float | None:
    """
    The budget that an HTTP request's headers, or gRPC's metadata, name in milliseconds.

    Raises:
        RequestError: it is no positive whole number.
    """
    text = headers.get(HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**53):
        raise RequestError(
            f"The header {HEADER} is {text[:40]!r}; send a whole number of milliseconds from 1 on.",
            param=HEADER,
        )
    return int(text[:20]) / 1000


def body_seconds(timeout: Any) -> float | None:
    """
    The budget that `timeout` in a body names, in seconds as in OpenAI's and Anthropic's clients.

    Raises:
        RequestError: it is no positive number.
    """
    if timeout is None:
        return None
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not (is_number and 0 < timeout < 2**53):
        raise RequestError(
            "'timeout': send a number of seconds above 0, or leave it out.", param="timeout"
        )
    return float(timeout)


def parameter_seconds(timeout_us: Any) -> float | None:
    """
    The budget that KServe's parameter `timeout` names, in microseconds; 0 and None are none.

    Raises:
        RequestError: it is no whole number.
    """
    is_number = isinstance(timeout_us, int) and not isinstance(timeout_us, bool)
    if timeout_us is not None and not (is_number and 0 <= timeout_us < 2**63):
        raise RequestError(
            "The parameter 'timeout' must be a whole number of microseconds, 0 for none.",
            param="timeout",
        )
    return timeout_us / MICROSECONDS if timeout_us else None
