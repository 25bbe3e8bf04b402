"""Our requests by other tools' definitions: the sums that their words stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.judge.replay import JudgeError
from benchmarks.metrics.requests import completed, e2e_s
from benchmarks.records import RequestRecord

MS = 1e3


def measured(sent: Sequence[RequestRecord]) -> list[RequestRecord]:
    """
    The measured requests, all of which have to be well.

    Raises:
        JudgeError: one failed: then the tools did not do the same work.
    """
    found = [record for record in sent if record.phase == "measured"]
    if failed := [record for record in found if record.error is not None]:
        raise JudgeError(
            f"{len(failed)} of our {len(found)} requests failed, the first with {failed[0].error}: "
            f"{failed[0].error_message}; only a run without failures can be judged"
        )
    return completed(found)


def span_s(sent: Sequence[RequestRecord]) -> float:
    """From the first sending to the last byte, seconds."""
    return max(record.end_s for record in sent) - min(record.send_s for record in sent)


def num_tokens(sent: Sequence[RequestRecord]) -> int:
    """Output tokens of all requests."""
    return sum(record.num_output_tokens for record in sent)


def mean_ms(
    sent: Sequence[RequestRecord],
    value_s: Callable[[RequestRecord], float | None],
    weight: Callable[[RequestRecord], float] = lambda _: 1.0,
) -> float:
    """The mean of the requests that have the value, milliseconds; weighted where a tool does so."""
    pairs = [(value, weight(one)) for one in sent if (value := value_s(one)) is not None]
    total = _sum(share for _, share in pairs)
    if not total:
        raise JudgeError("no request has two tokens or more; give a workload with longer outputs")
    return MS * _sum(value * share for value, share in pairs) / total


def chunk_e2e_s(record: RequestRecord) -> float:
    """From sending to the last chunk with a token, seconds."""
    return e2e_s(record) or 0.0


def _sum(values: Iterable[float]) -> float:
    return sum(values)
