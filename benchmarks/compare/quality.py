"""Whether two servers say the same, greedily: more speed with other answers is no gain."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.records import Comparison, Quality, RequestRecord

TAG = "output differs"
# Questions of our own, in four languages; answers as long as the thresholds below are meant for.
QUALITY_PROMPTS = Path(__file__).parent / "quality_prompts.jsonl"
QUALITY_TOKENS = 64
# MLPerf: the mean output length within 90 to 110 % of the reference.
# Source: mlcommons/inference language/llama2-70b (tokens per sample).
LENGTH_RATIO = (0.9, 1.1)
# Two runs of one bf16 model differ too: another batch is another order of sums, which decides
# between tokens that are nearly as likely, and from there on the answers go apart. If that happens
# to one token in 500, of answers of 64 tokens 0.998^64 = 88 % stay identical, and the common prefix
# is 94 % of the answer; at one in 100, 53 % and 74 %. Below both, it is another model's output.
MIN_EXACT_MATCH = 0.5
MIN_AGREEMENT = 0.75


def compare_answers(a: Sequence[RequestRecord], b: Sequence[RequestRecord]) -> Quality:
    """
    Greedy agreement of A's and B's answers to the same prompts, paired by the requests' index.

    Of token ids where both servers gave them, else of words. The thresholds are for natural ends
    and answers up to about 64 tokens: the longer the answer, the fewer stay identical.

    Raises:
        ValueError: no prompt was answered by both, or nothing was said.
    """
    pairs = answered_by_both(a, b)
    if not pairs:
        raise ValueError("no prompt was answered by both A and B; compare runs of one workload")
    unit = "tokens" if all(r.token_ids is not None for pair in pairs for r in pair) else "words"
    answers = [(_units(left, unit), _units(right, unit)) for left, right in pairs]
    prefixes = [common_prefix(left, right) for left, right in answers]
    lengths = [fmean(len(answer) for answer in side) for side in zip(*answers, strict=True)]
    if 0 in lengths:
        raise ValueError("all answers of one side are empty; let the requests produce tokens")
    return _judged(
        exact=fmean(left == right for left, right in answers),
        prefix=fmean(prefixes),
        agreement=fmean(
            agreement(left, right, prefix)
            for (left, right), prefix in zip(answers, prefixes, strict=True)
        ),
        length_ratio=lengths[0] / lengths[1],
        num_prompts=len(pairs),
        unit=unit,
    )


def answered_by_both(
    a: Sequence[RequestRecord], b: Sequence[RequestRecord]
) -> list[tuple[RequestRecord, RequestRecord]]:
    """The measured, successful requests of A and B with one index, in the order of A."""
    others = {record.index: record for record in b if _has_answer(record)}
    return [
        (record, others[record.index])
        for record in a
        if _has_answer(record) and record.index in others
    ]


def common_prefix(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """How many tokens (or words) are the same from the start."""
    for index, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return index
    return min(len(a), len(b))


def agreement(a: Sequence[Hashable], b: Sequence[Hashable], prefix: int) -> float:
    """The common prefix over the shorter answer's length; of two empty answers 1, of one 0."""
    shorter = min(len(a), len(b))
    return prefix / shorter if shorter else float(len(a) == len(b))


def with_quality(comparison: Comparison, quality: Quality) -> Comparison:
    """The comparison with its quality; where the output differs, the message is tagged so."""
    message = comparison.message if quality.same else f"[{TAG}] {comparison.message}"
    return comparison.model_copy(update={"quality": quality, "message": message})


def _has_answer(record: RequestRecord) -> bool:
    said = record.text is not None or record.token_ids is not None
    return record.phase == "measured" and record.error is None and said


def _units(record: RequestRecord, unit: str) -> Sequence[Hashable]:
    if unit == "tokens":
        return record.token_ids or []
    if record.text is None:
        raise ValueError(
            f"request {record.index} has no text, and the other side's has no token ids; "
            "keep the text of both"
        )
    return re.findall(r"\S+", record.text)


def _judged(
    *,
    exact: float,
    prefix: float,
    agreement: float,
    length_ratio: float,
    num_prompts: int,
    unit: str,
) -> Quality:
    low, high = LENGTH_RATIO
    same = low <= length_ratio <= high and exact >= MIN_EXACT_MATCH and agreement >= MIN_AGREEMENT
    return Quality(
        num_prompts=num_prompts,
        exact_match=exact,
        mean_agreement_tokens=prefix,
        mean_agreement=agreement,
        length_ratio=length_ratio,
        same=same,
        message=(
            f"{'same output' if same else TAG}: {100 * exact:.0f} % of {num_prompts} greedy "
            f"answers are identical, {100 * agreement:.0f} % of an answer agrees "
            f"({prefix:.1f} {unit}), A's are {length_ratio:.2f} times as long"
        ),
    )
