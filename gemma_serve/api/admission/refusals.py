"""Why a request is not taken, and when to come back: counted by reason, in the client's words."""

from __future__ import annotations

import math

from gemma_serve import metrics
from gemma_serve.api.admission.estimates import retry_after_s
from gemma_serve.errors import DeadlineError, RateLimitError, UnavailableError


def queue_full(limit: float, wait_s: float) -> UnavailableError:
    """As many requests run and wait as may."""
    return _overloaded("requests", f"{limit:.0f} requests run or wait, and no more may", wait_s)


def too_many_tokens(num_tokens: float, limit: float, wait_s: float) -> UnavailableError:
    """More prompt tokens are before the request than can be computed in its time."""
    what = f"{num_tokens} prompt tokens are before this request, and at most {limit:.0f} may be"
    return _overloaded("tokens", what, wait_s)


def waited(seconds: float, wait_s: float) -> UnavailableError:
    """The request has waited for its turn as long as it may."""
    what = f"The request has waited {seconds:g} s (limits.max_wait_s) for a place in the batch"
    return _overloaded("wait", what, wait_s)


def bodies_full(limit_bytes: int) -> UnavailableError:
    """The bodies of open requests fill the memory that they may have."""
    what = f"Open requests hold bodies of {limit_bytes} bytes (limits.max_held_bytes) or nearly"
    return _overloaded("bodies", what, 1.0)


def _overloaded(reason: str, what: str, wait_s: float) -> UnavailableError:
    metrics.ADMISSION_REJECTIONS.labels(reason).inc()
    seconds = retry_after_s(wait_s)
    return UnavailableError(
        f"{what}; retry in {seconds} s, or on another instance.",
        code="engine_overloaded",
        retry_after_s=seconds,
    )


def key_share(limit: float, wait_s: float) -> RateLimitError:
    """The queue is full, and another key's request has the better right to a place in it."""
    metrics.ADMISSION_REJECTIONS.labels("key_share").inc()
    seconds = retry_after_s(wait_s)
    return RateLimitError(
        f"{limit:.0f} requests run or wait, and this key has most of those that wait; send fewer "
        f"at once, or retry in {seconds} s.",
        retry_after_s=seconds,
    )


def key_tokens(tokens_per_minute: int | None, wait_s: float) -> RateLimitError:
    """The key has used what it may use in a minute."""
    metrics.ADMISSION_REJECTIONS.labels("key_tokens").inc()
    seconds = math.ceil(wait_s)
    return RateLimitError(
        f"This key has used its {tokens_per_minute} tokens a minute "
        f"(limits.key_tokens_per_minute); retry in {seconds} s.",
        retry_after_s=seconds,
    )


def hopeless(wait_s: float, left_s: float) -> DeadlineError:
    """The queue takes longer than the request has."""
    return late(
        DeadlineError(
            f"The queue before this request takes about {wait_s:.1f} s and its time is "
            f"{left_s:.1f} s; send a longer one, or retry on another instance."
        )
    )


def late(error: DeadlineError) -> DeadlineError:
    """The time was over before the request's turn came."""
    metrics.ADMISSION_REJECTIONS.labels("deadline").inc()
    return error
