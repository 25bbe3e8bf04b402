"""
The arithmetic between a reference and a candidate; arrays in, numbers out.

All logarithms are natural: divergences are in nats (1 nat = 1.44 bits).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gemma_serve.quality.record import Scores

Floats = npt.NDArray[np.float64]


def perplexity(target_logprobs: npt.NDArray[np.floating[Any]]) -> float:
    """exp of the mean negative log-probability: 1 for a model that is always sure and right."""
    return float(np.exp(-np.mean(target_logprobs, dtype=np.float64)))


def top1_agreement(reference: Scores, candidate: Scores) -> float:
    """Share of positions where both find the same token most likely."""
    same = reference.top_ids[..., 0] == candidate.top_ids[..., 0]
    return float(np.mean(same))


def agreement_lengths(
    reference: npt.NDArray[np.int32], candidate: npt.NDArray[np.int32]
) -> npt.NDArray[np.intp]:
    """How many tokens two greedy continuations of a prompt share before they part, by prompt."""
    same = reference == candidate
    # As long as no token has differed yet, the running product is 1.
    lengths: npt.NDArray[np.intp] = np.cumprod(same, axis=1, dtype=np.intp).sum(axis=1)
    return lengths


def kl_divergence(reference: Scores, candidate: Scores) -> Floats:
    """
    A lower bound of D(reference || candidate) at each position, in nats.

    Both know the log-probabilities of their K most likely tokens and of the token in the text.
    Tokens that both know are compared one by one; all others are lumped together. Lumping never
    makes a divergence larger (data-processing inequality), so this is a lower bound, and 0 for
    equal distributions. Tokens that the reference finds likely and the candidate does not even have
    among its K form a lump of their own: each has at most the probability of the candidate's K-th
    token, which keeps a candidate that says something else altogether from looking equal.

    Returns:
        Shape (num_windows, window_tokens - 1); infinite where one of them has no number (NaN).

    Source: Cover and Thomas, Elements of Information Theory, 2nd ed., theorem 2.7.1 (log sum).
    """
    # A window at a time: each compares K x K tokens a position.
    pairs = zip(_windows(reference), _windows(candidate), strict=True)
    return np.stack([_window_divergence(*ours, *theirs) for ours, theirs in pairs])


def _windows(scores: Scores) -> list[tuple[npt.NDArray[np.int32], Floats]]:
    """Of each window the ids that are known, (rows, K + 1), and their log-probabilities."""
    targets = scores.token_ids[:, 1:, None]
    # The text's token once: -1 takes the place of its double among the top ones.
    top_ids = np.where(scores.top_ids == targets, -1, scores.top_ids)
    ids = np.concatenate([targets, top_ids], axis=2)
    logprobs = np.concatenate([scores.target_logprobs[:, :, None], scores.top_logprobs], axis=2)
    return list(zip(ids, logprobs.astype(np.float64), strict=True))


def _window_divergence(
    ref_ids: npt.NDArray[np.int32],
    ref_logprobs: Floats,
    cand_ids: npt.NDArray[np.int32],
    cand_logprobs: Floats,
) -> Floats:
    # match[row, i, j]: the reference's i-th token is the candidate's j-th.
    match = (ref_ids[:, :, None] == cand_ids[:, None, :]) & (ref_ids[:, :, None] >= 0)
    known = match.any(axis=2)
    p = np.where(ref_ids >= 0, np.exp(ref_logprobs), 0.0)
    q_all = np.where(cand_ids >= 0, np.exp(cand_logprobs), 0.0)
    cand_at = np.take_along_axis(cand_logprobs, match.argmax(axis=2), axis=1)

    one_by_one = np.sum(np.where(known, p * (ref_logprobs - cand_at), 0.0), axis=1)
    q_shared = np.sum(np.where(known, np.exp(cand_at), 0.0), axis=1)
    # Likely for the reference, and not among the candidate's K.
    is_missed = ~known & (ref_ids >= 0)
    p_missed = np.sum(np.where(is_missed, p, 0.0), axis=1)
    p_rest = np.maximum(1.0 - np.sum(p, axis=1), 0.0)
    q_left = np.maximum(1.0 - q_shared, 0.0)
    q_others = np.sum(q_all, axis=1) - q_shared
    at_most = np.minimum(
        np.sum(is_missed, axis=1) * np.exp(cand_logprobs[:, -1]), np.maximum(q_left - q_others, 0.0)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        fair = np.where(p_missed > 0, q_left * p_missed / (p_missed + p_rest), 0.0)
    q_missed = np.minimum(fair, at_most)
    total = one_by_one + _term(p_missed, q_missed) + _term(p_rest, q_left - q_missed)
    has_numbers = np.isfinite(cand_logprobs).all(axis=1) & np.isfinite(ref_logprobs).all(axis=1)
    return np.where(has_numbers, np.maximum(total, 0.0), np.inf)


# Below what float32 log-probabilities can tell from nothing.
_TINY = 1e-9


def _term(p: Floats, q: Floats) -> Floats:
    """p log(p / q) of a lump."""
    return np.where(p > _TINY, p * np.log(np.maximum(p, _TINY) / np.maximum(q, _TINY)), 0.0)
