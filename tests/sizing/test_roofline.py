"""The bounds of speed, against the same arithmetic by hand."""

from __future__ import annotations

import pytest

from gemma_serve.sizing.report import report_of
from gemma_serve.sizing.roofline import Decode, Roofline
from tests.engine.derive import TWO_CORES
from tests.sizing.subjects import subject


def bounds(model: str, gpu: str, tokens: tuple[int, int] = (1000, 24), **keys: object) -> Roofline:
    roofline = report_of(subject(gpu, model=model, **keys), *tokens).roofline
    assert roofline is not None
    return roofline


def decode(roofline: Roofline, batch: int) -> Decode:
    return next(point for point in roofline.decode if point.batch == batch)


def test_decode_reads_weights_and_cache() -> None:
    """
    270M on an L4: 300 GB/s over 536 MB of weights and the cache of 1,024 tokens.

    Layers: 18 x 640 x (4 x 256 x 2 + 256 x 2 + 2,048 x 3) = 100.27 million; the head has 262,144 x
    640 = 167.77 million: 536.1 MB in bf16. Cache: 3 layers of 1,024 tokens and 15 of 512, at 1,024
    bytes: 11.0 MB.
    """
    point = decode(bounds("google/gemma-3-270m-it", "l4"), 1)

    parameters = 18 * 640 * (4 * 256 * 2 + 256 * 2 + 2048 * 3) + 262_144 * 640
    read = 2 * parameters + 1024 * (3 * 1024 + 15 * 512)
    assert point.bound_by == "memory"
    assert point.tokens_per_s == pytest.approx(300e9 / read, rel=1e-3)


def test_prefill_is_bound_by_arithmetic() -> None:
    """
    Two FLOP for each weight, and attention to the half of the prompt that is before.

    The head is multiplied with the last token of a prompt alone.
    """
    roofline = bounds("google/gemma-3-270m-it", "l4")

    parameters = 18 * 640 * (4 * 256 * 2 + 256 * 2 + 2048 * 3) + 262_144 * 640 / 1000
    compared = 18 * 500 * 4 * 256  # 500 tokens are within the window of 512
    flop = 2 * parameters + 4 * compared
    assert roofline.prefill_tokens_per_s == pytest.approx(121e12 / flop, rel=1e-3)


def test_a_large_batch_is_bound_by_arithmetic_at_last() -> None:
    """Short contexts in large batches leave the memory idle."""
    roofline = bounds("google/gemma-2-27b-it", "h200", (16, 16), engine={"max_num_seqs": 1024})

    assert roofline.decode[-1].batch == 1024
    assert roofline.decode[-1].bound_by == "arithmetic"


def test_fp8_decodes_faster_where_memory_binds() -> None:
    """Between one and two times: the head and the cache stay in bf16."""
    bf16 = decode(bounds("google/gemma-3-27b-it", "h100"), 1).tokens_per_s
    fp8 = decode(bounds("google/gemma-3-27b-it", "h100", dtype="fp8"), 1).tokens_per_s

    assert 1.7 < fp8 / bf16 < 2


def test_fp8_prefills_at_its_own_peak() -> None:
    """All matrices but the head are FP8, so that long prompts are read at its FLOP/s."""
    bf16 = bounds("google/gemma-3-27b-it", "h100").prefill_tokens_per_s
    fp8 = bounds("google/gemma-3-27b-it", "h100", dtype="fp8").prefill_tokens_per_s

    assert fp8 / bf16 == pytest.approx(1979 / 989, rel=1e-3)


def test_fp8_on_an_a100_computes_in_bf16() -> None:
    """It has no FP8 arithmetic, so that its prefill gains nothing."""
    bf16 = bounds("google/gemma-3-12b-it", "a100-80").prefill_tokens_per_s
    fp8 = bounds("google/gemma-3-12b-it", "a100-80", dtype="fp8").prefill_tokens_per_s

    assert fp8 == bf16


def test_experts_make_large_batches_read_more() -> None:
    """One token reads an eighth of the experts' sixteenth; thirty-two read most of them."""
    roofline = bounds("google/gemma-4-26B-A4B-it", "h100")
    speedup = decode(roofline, 32).tokens_per_s / decode(roofline, 1).tokens_per_s

    assert 3 < speedup < 16


def test_no_bounds_for_a_device_whose_speed_is_not_known() -> None:
    """A CPU has no datasheet here."""
    assert report_of(subject(TWO_CORES, model="embedded/gemma-3-270m"), 100, 10).roofline is None
