"""Two records against each other: are they of the same text, and how far are they apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma_serve.errors import QualityError
from gemma_serve.quality.corpus import Windows, corpus_sha256
from gemma_serve.quality.figures import (
    agreement_lengths,
    kl_divergence,
    perplexity,
    top1_agreement,
)
from gemma_serve.quality.record import Record, Scores


@dataclass(frozen=True)
class Comparison:
    """What was compared, and by how much it differs."""

    reference: Mapping[str, Any]
    candidate: Mapping[str, Any]
    figures: Mapping[str, Any]

    @property
    def kl(self) -> float:
        """Mean KL divergence per token, in nats."""
        return float(self.figures["kl_mean_nats"])

    def exceeds(self, max_kl: float) -> bool:
        """Whether it is beyond a bound; what is no number is beyond every bound."""
        return not self.kl <= max_kl


def compare(reference: Record, candidate: Record) -> Comparison:
    """
    Compare what both have scored.

    Raises:
        QualityError: the texts or the tokenizers differ.
    """
    check_corpus(reference.about, candidate.about["corpus_sha256"])
    num_windows = min(len(reference.texts), len(candidate.texts))
    ours, theirs = reference.scores, candidate.scores
    window_tokens = min(ours.token_ids.shape[1], theirs.token_ids.shape[1])
    ours, theirs = (scores.first(num_windows, window_tokens) for scores in (ours, theirs))
    check_token_ids(reference.about, ours.token_ids, theirs.token_ids)
    figures = figures_of(ours, theirs, reference.texts[:num_windows])
    return Comparison(reference.about, candidate.about, figures)


def check_corpus(reference: Mapping[str, Any], sha256: str | None = None) -> None:
    """Refuse a reference of other texts than these; by default, than those that ship with us."""
    if reference.get("corpus_sha256") != (sha256 or corpus_sha256()):
        version = reference.get("gemma_serve_version")
        raise QualityError(
            f"The reference is of another corpus (gemma-serve {version}); record it again."
        )


def check_token_ids(
    reference: Mapping[str, Any],
    ours: npt.NDArray[np.int32],
    theirs: npt.NDArray[np.int32],
) -> None:
    """Refuse a reference whose tokenizer cuts the corpus into other tokens."""
    if not np.array_equal(ours, theirs):
        raise QualityError(
            f"The reference is of {reference.get('model')!r}, whose tokenizer makes other tokens "
            "of the corpus than the candidate's; record a reference with this tokenizer."
        )


def reference_windows(reference: Record, windows: Windows) -> npt.NDArray[np.int32]:
    """
    The reference's windows, if they are the candidate's too.

    Raises:
        QualityError: the texts or the tokenizers differ.
    """
    check_corpus(reference.about)
    ids = reference.scores.token_ids
    theirs = windows.token_ids[: ids.shape[0], : ids.shape[1]]
    check_token_ids(reference.about, ids, theirs)
    return ids


def figures_of(reference: Scores, candidate: Scores, texts: tuple[str, ...]) -> dict[str, Any]:
    """
    All figures of a comparison, and the main ones by text.

    Returns:
        Divergences in nats, agreements as shares, lengths in tokens. The divergences are lower
        bounds; `kept_mass` is the share of the reference's probability in the tokens that it kept.
    """
    divergence = kl_divergence(reference, candidate)
    lengths = agreement_lengths(reference.continuations, candidate.continuations)
    of_text = np.array(texts)
    return {
        "num_tokens": reference.num_scored,
        "num_top": reference.top_ids.shape[2],
        "kept_mass": float(np.exp(reference.top_logprobs.astype(np.float64)).sum(axis=2).mean()),
        **_main_figures(reference, candidate, divergence),
        "kl_p99_nats": float(np.quantile(divergence, 0.99, method="higher")),
        "kl_max_nats": float(divergence.max()),
        "greedy_agreement_tokens": float(lengths.mean()) if lengths.size else math.nan,
        "greedy_tokens": reference.continuations.shape[1],
        "by_text": {
            text: _main_figures(
                _where(reference, of_text == text),
                _where(candidate, of_text == text),
                divergence[of_text == text],
            )
            for text in dict.fromkeys(texts)
        },
    }


def _main_figures(
    reference: Scores, candidate: Scores, divergence: npt.NDArray[np.float64]
) -> dict[str, float]:
    before, after = (perplexity(scores.target_logprobs) for scores in (reference, candidate))
    return {
        "reference_perplexity": before,
        "perplexity": after,
        "kl_mean_nats": float(divergence.mean()),
        "top1_agreement": top1_agreement(reference, candidate),
    }


def _where(scores: Scores, chosen: npt.NDArray[np.bool_]) -> Scores:
    return Scores(
        scores.token_ids[chosen],
        scores.target_logprobs[chosen],
        scores.top_ids[chosen],
        scores.top_logprobs[chosen],
        scores.continuations,
    )
