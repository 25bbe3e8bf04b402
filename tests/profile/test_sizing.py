"""What the packaged profiles say of memory, against arithmetic."""

from __future__ import annotations

import pytest

from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.profile.chain import packaged_names
from gemma_serve.profile.load import LoadedProfile, load_profile
from gemma_serve.profile.source import PACKAGED_DIR
from tests.profile.arithmetic import kv_bytes_per_token, room_of, sentences

SHORT_CHAT_TOKENS = 500


@pytest.fixture(params=[name for name in packaged_names() if name != "gemma-3-270m"])
def loaded(request: pytest.FixtureRequest) -> LoadedProfile:
    """Each profile that was written for a GPU."""
    return load_profile(request.param)


def test_comments_have_the_numbers_of_the_arithmetic(loaded: LoadedProfile) -> None:
    """Weights, KV cache and the longest request stand in each file as code computes them."""
    lines = (PACKAGED_DIR / f"{loaded.name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = " ".join(line.strip().removeprefix("# ") for line in lines if "#" in line)
    for sentence in sentences(loaded):
        assert sentence in comments


def test_gpu_holds_what_the_profile_asks_for(loaded: LoadedProfile) -> None:
    """One request as long as the context fits, and max_num_seqs short chats at a time."""
    room, profile = room_of(loaded), loaded.profile
    assert profile.max_model_len is not None
    assert room.request_gib(profile.max_model_len) <= room.kv_cache_gib
    assert profile.engine["max_num_seqs"] * SHORT_CHAT_TOKENS <= room.tokens


@pytest.mark.parametrize(
    ("model", "whole_kib", "global_kib"),
    [
        ("google/gemma-2-2b-it", 104, 52),
        ("google/gemma-2-27b-it", 368, 184),
        ("google/gemma-3-270m-it", 18, 3),
        ("google/gemma-3-1b-it", 26, 4),
        ("google/gemma-3-4b-it", 136, 20),
        ("google/gemma-3-27b-it", 496, 80),
        ("google/gemma-3n-E2B-it", 40, 8),
        ("google/gemma-4-E2B-it", 18, 6),
        ("google/gemma-4-E4B-it", 56, 16),
        ("google/gemma-4-12B-it", 336, 16),
        ("google/gemma-4-26B-A4B-it", 220, 20),
        ("google/gemma-4-31B-it", 880, 80),
    ],
)
def test_kv_bytes_of_published_sizes(model: str, whole_kib: int, global_kib: int) -> None:
    """The bytes a token of each kind of layer pattern: shared layers, two head sizes, few heads."""
    found = kv_bytes_per_token(read_checkpoint(model, download=False))
    assert found == (whole_kib * 1024, global_kib * 1024)
