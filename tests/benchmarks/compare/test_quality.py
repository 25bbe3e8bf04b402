"""Greedy agreement of two servers' answers."""

from __future__ import annotations

import pytest

from benchmarks.compare.quality import agreement, common_prefix, compare_answers
from tests.benchmarks.compare.made_up import record


def test_worked_example() -> None:
    """Exact share, common prefix, agreement and length ratio are means over the prompts."""
    a = [record(0, token_ids=[1, 2, 3, 4]), record(1, token_ids=[1, 2, 9, 9])]
    b = [record(0, token_ids=[1, 2, 3, 4]), record(1, token_ids=[1, 2, 3])]
    found = compare_answers(a, b)
    # Prefixes 4 and 2: mean 3. Agreement 4/4 and 2/3: mean 0.8333. Lengths 4 over 3.5: 1.1429.
    assert found.num_prompts == 2
    assert found.exact_match == 0.5
    assert found.mean_agreement_tokens == 3
    assert found.mean_agreement == pytest.approx(0.8333, abs=1e-4)
    assert found.length_ratio == pytest.approx(1.1429, abs=1e-4)
    assert not found.same
    assert found.message == (
        "output differs: 50 % of 2 greedy answers are identical, 83 % of an answer agrees "
        "(3.0 tokens), A's are 1.14 times as long"
    )


def test_same_output() -> None:
    """Identical answers are the same output, in whatever order they came."""
    answers = [record(index, token_ids=[index, 5, 6]) for index in range(3)]
    found = compare_answers(answers, answers[::-1])
    assert (found.same, found.exact_match, found.mean_agreement) == (True, 1.0, 1.0)
    assert found.message.startswith("same output: 100 % of 3")


def test_late_divergence_is_still_the_same() -> None:
    """Where half of the answers go apart late, it may be rounding."""
    # Exact 2 of 4. Agreement 1, 1, 15/20, 15/20: mean 0.875.
    whole, late = list(range(20)), [*range(15), 0, 0, 0, 0, 0]
    a = [record(index, token_ids=whole) for index in range(4)]
    b = [record(index, token_ids=whole if index < 2 else late) for index in range(4)]
    assert compare_answers(a, b).same


@pytest.mark.parametrize(
    "b",
    [
        [[1, 2, 3, 9], [1, 2, 3, 9], [1, 2, 3, 4]],  # exact 1/3, agreement (3/4 + 3/4 + 1) / 3
        [[9, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]],  # exact 2/3, agreement 2/3
        [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]],  # lengths 12 / 14 = 0.857
    ],
)
def test_each_threshold(b: list[list[int]]) -> None:
    """Too few identical answers, too early a divergence, or another length is another output."""
    a = [record(index, token_ids=[1, 2, 3, 4]) for index in range(3)]
    assert not compare_answers(a, [record(i, token_ids=ids) for i, ids in enumerate(b)]).same


def test_words_where_there_are_no_token_ids() -> None:
    """Without token ids on one side the texts are compared by words."""
    a = [record(0, text="a red  fox", token_ids=[1, 2, 3])]
    found = compare_answers(a, [record(0, text="a red hen")])
    assert found.mean_agreement_tokens == 2
    assert "2.0 words" in found.message


def test_only_prompts_that_both_answered() -> None:
    """Failed requests and prompts of one side are left out, and none left is refused."""
    a = [record(0, text="x"), record(1, text="x", failed=True), record(2, text="x")]
    b = [record(0, text="x"), record(1, text="y")]
    assert compare_answers(a, b).num_prompts == 1
    with pytest.raises(ValueError, match="no prompt was answered by both A and B"):
        compare_answers(a[1:], b)


def test_a_side_that_says_nothing() -> None:
    """A side of empty answers has no length ratio."""
    with pytest.raises(ValueError, match="all answers of one side are empty"):
        compare_answers([record(0, token_ids=[])], [record(0, token_ids=[1])])


def test_no_text_for_words() -> None:
    """Token ids on one side and text on the other cannot be compared."""
    with pytest.raises(ValueError, match="request 0 has no text"):
        compare_answers([record(0, token_ids=[1])], [record(0, text="x")])


def test_common_prefix_and_agreement() -> None:
    """A prefix ends at the first difference, and agreement is over the shorter answer."""
    assert common_prefix("abc", "abd") == 2
    assert common_prefix("ab", "abd") == 2
    assert common_prefix("", "a") == 0
    assert agreement("ab", "abd", 2) == 1.0
    assert agreement("", "", 0) == 1.0
    assert agreement("", "a", 0) == 0.0
