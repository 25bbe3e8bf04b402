"""The arithmetic between two records, on distributions small enough to do by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gemma_serve.quality.compare import Comparison, figures_of
from gemma_serve.quality.figures import (
    agreement_lengths,
    kl_divergence,
    perplexity,
    top1_agreement,
)
from gemma_serve.quality.record import Scores

BOS = 2


def scores(probabilities: list[float], target: int, num_top: int) -> Scores:
    """One window of two tokens: BOS, then `target`, of which token i has probabilities[i]."""
    p = np.array(probabilities)
    assert p.sum() == pytest.approx(1.0)
    top = np.argsort(-p, kind="stable")[:num_top]
    return Scores(
        np.array([[BOS, target]], dtype=np.int32),
        np.log(p[[[target]]]).astype(np.float32),
        top[None, None, :].astype(np.int32),
        np.log(p[top])[None, None, :].astype(np.float32),
        np.zeros((0, 0), dtype=np.int32),
    )


def divergence(reference: Scores, candidate: Scores) -> float:
    """The KL divergence at the only position."""
    (value,) = kl_divergence(reference, candidate).ravel()
    return float(value)


def test_perplexity() -> None:
    """Of two tokens with probabilities 1/2 and 1/8: (1/2 * 1/8) ** (-1/2) = 4."""
    assert perplexity(np.log([[0.5, 0.125]])) == pytest.approx(4.0)


def test_equal_distributions() -> None:
    """A model has no divergence from itself, whatever is not among its top tokens."""
    one = scores([0.5, 0.25, 0.15, 0.1], target=3, num_top=2)
    assert divergence(one, one) == 0.0


def test_all_tokens_known() -> None:
    """With every token kept, it is the divergence itself."""
    # 1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4) = 1/2 log(4/3) = 0.1438
    reference = scores([0.5, 0.5], target=0, num_top=2)
    candidate = scores([0.25, 0.75], target=0, num_top=2)
    assert divergence(reference, candidate) == pytest.approx(0.1438, abs=1e-4)


def test_the_rest_is_one_lump() -> None:
    """What neither keeps is compared as one sum: tokens 2 and 3, 0.3 against 0.2."""
    reference = scores([0.4, 0.3, 0.2, 0.1], target=0, num_top=2)
    candidate = scores([0.6, 0.2, 0.1, 0.1], target=0, num_top=2)
    # 0.4 log(0.4/0.6) + 0.3 log(0.3/0.2) + 0.3 log(0.3/0.2) = -0.1622 + 0.1216 + 0.1216
    assert divergence(reference, candidate) == pytest.approx(0.0811, abs=1e-4)


def test_what_the_candidate_does_not_keep() -> None:
    """A likely token that is not among the candidate's K has at most the K-th one's probability."""
    reference = scores([0.9, 0.05, 0.03, 0.02], target=3, num_top=1)
    candidate = scores([0.05, 0.8, 0.1, 0.05], target=3, num_top=2)
    # Known to both: token 3, 0.02 against 0.05. The candidate keeps 1 and 2, with 0.8 and 0.1:
    # token 0 can have no more than 1 - 0.05 - 0.9 = 0.05, and 1 and 2 together have the 0.9 left.
    # 0.02 log(0.02/0.05) + 0.9 log(0.9/0.05) + 0.08 log(0.08/0.9)
    #   = -0.0183 + 2.6013 - 0.1936 = 2.3894
    assert divergence(reference, candidate) == pytest.approx(2.3894, abs=1e-4)


def test_nothing_in_common() -> None:
    """A candidate that is sure of something else is far away, though no top token is shared."""
    reference = scores([0.9, 0.02, 0.02, 0.02, 0.02, 0.02], target=5, num_top=1)
    candidate = scores([0.02, 0.9, 0.02, 0.02, 0.02, 0.02], target=5, num_top=1)
    # 0.9 log(0.9/0.08) + 0.08 log(0.08/0.9) = 2.1783 - 0.1936; the divergence itself is 3.35
    assert divergence(reference, candidate) == pytest.approx(1.9847, abs=1e-4)


def test_never_more_than_the_divergence() -> None:
    """Whatever the distributions and the tokens kept, it is a lower bound, and never negative."""
    draw = np.random.default_rng(0)
    for _ in range(300):
        p, q = draw.dirichlet(np.full(12, 0.3), size=2) * 0.99 + 0.01 / 12
        target, ours, theirs = draw.integers(12), *draw.integers(1, 12, size=2)
        exact = float(np.sum(p * np.log(p / q)))
        bound = divergence(scores(p, target, ours), scores(q, target, theirs))
        assert 0.0 <= bound <= exact + 1e-5


def test_top1_agreement() -> None:
    """One of two positions has the same most likely token."""
    reference = scores([0.6, 0.4], target=0, num_top=1)
    candidate = scores([0.4, 0.6], target=0, num_top=1)
    assert top1_agreement(reference, reference) == 1.0
    assert top1_agreement(reference, candidate) == 0.0


def test_agreement_lengths() -> None:
    """Tokens until two continuations part: never, at the third, at once."""
    ours = np.array([[5, 6, 7], [5, 6, 7], [5, 6, 7]], dtype=np.int32)
    theirs = np.array([[5, 6, 7], [5, 6, 8], [4, 6, 7]], dtype=np.int32)
    assert agreement_lengths(ours, theirs).tolist() == [3, 2, 0]


def test_no_number_is_beyond_every_bound() -> None:
    """A candidate that gives NaN is infinitely far away."""
    reference = scores([0.5, 0.5], target=0, num_top=2)
    broken = Scores(
        reference.token_ids,
        np.full_like(reference.target_logprobs, np.nan),
        reference.top_ids,
        np.full_like(reference.top_logprobs, np.nan),
        reference.continuations,
    )
    assert divergence(reference, broken) == math.inf
    compared = Comparison({}, {}, figures_of(reference, broken, ("en",)))
    assert compared.exceeds(1e9)
    assert Comparison({}, {}, {"kl_mean_nats": math.nan}).exceeds(1e9)


def test_figures_by_text() -> None:
    """Each text has its own figures, and the whole is their mean."""
    same = scores([0.5, 0.5], target=0, num_top=2)
    far = scores([0.25, 0.75], target=0, num_top=2)

    def both(first: Scores, second: Scores) -> Scores:
        pairs = zip(vars(first).values(), vars(second).values(), strict=True)
        return Scores(*(np.concatenate(pair) for pair in pairs))

    figures = figures_of(both(same, same), both(same, far), ("en", "de"))
    assert figures["by_text"]["en"]["kl_mean_nats"] == 0.0
    assert figures["by_text"]["de"]["kl_mean_nats"] == pytest.approx(0.1438, abs=1e-4)
    assert figures["kl_mean_nats"] == pytest.approx(0.0719, abs=1e-4)
    assert figures["num_tokens"] == 2
    assert figures["kept_mass"] == pytest.approx(1.0)
    # sqrt(1/2 * 1/4) = 0.3536, against 1/2
    assert figures["perplexity"] == pytest.approx(1 / 0.3536, abs=1e-3)
    assert figures["reference_perplexity"] == pytest.approx(2.0)
