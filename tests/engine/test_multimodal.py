"""Engine arguments of images: how many, how large, and what has no effect."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gemma_serve.engine.args import resolve
from gemma_serve.engine.explain import print_report
from gemma_serve.engine.platform import simulated
from gemma_serve.engine.settings import Resolved, Setting
from gemma_serve.errors import ProfileError
from gemma_serve.gemma.checkpoint import read_checkpoint
from tests.engine.derive import EIGHT_CORES, FIELDS, checkpoint_of, derive, load

GEMMA_2 = "google/gemma-2-9b-it"
GEMMA_3_TEXT = "google/gemma-3-270m-it"
GEMMA_3 = "google/gemma-3-4b-it"
GEMMA_3N = "google/gemma-3n-E4B-it"
GEMMA_4_E = "google/gemma-4-E4B-it"
GEMMA_4 = "google/gemma-4-31B-it"
WITH_PROCESSOR = FIELDS | {"mm_processor_kwargs"}
CROPS = "an image that is not square comes with up to 4 crops: up to 1280 tokens instead of 256"


def derived(directory: Path, **keys: Any) -> Resolved:
    """Resolve a profile for a GPU that serves every Gemma."""
    return derive(directory, "b200", fields=WITH_PROCESSOR, **keys)


def setting(resolved: Resolved, key: str) -> Setting | None:
    """The engine argument of this name, if there is one."""
    return next((found for found in resolved.engine_args if found.key == key), None)


def notes_about(resolved: Resolved, key: str) -> list[str]:
    """The notes that begin with the key's name."""
    return [note for note in resolved.notes if note.startswith(f"{key} ")]


# --- how many


@pytest.mark.parametrize(
    ("model", "limits"),
    [
        (GEMMA_3, {"image": 4}),
        (GEMMA_3N, {"image": 4, "audio": 0}),
        (GEMMA_4_E, {"image": 4, "audio": 0, "video": 0}),
        (GEMMA_4, {"image": 4, "video": 0}),
    ],
)
def test_images_are_all_that_comes_beside_text(
    tmp_path: Path, model: str, limits: dict[str, int]
) -> None:
    """Audio and video are shut off where the model takes them: no request can carry them."""
    assert derived(tmp_path, model=model).engine_kwargs()["limit_mm_per_prompt"] == limits


def test_reason_names_what_is_shut_off(tmp_path: Path) -> None:
    """The reason says why a modality that the model takes is 0, by default and when asked."""
    limits = setting(derived(tmp_path, model=GEMMA_4_E), "limit_mm_per_prompt")
    assert limits is not None
    assert limits.reason == (
        "vLLM would take 999 images in one request; "
        "no audio or video: requests carry text and images only"
    )
    limits = setting(derived(tmp_path, model=GEMMA_4, images_per_prompt=2), "limit_mm_per_prompt")
    assert limits is not None
    assert limits.value == {"image": 2, "video": 0}
    assert limits.reason == "as the profile asks; no video: requests carry text and images only"
    assert limits.origin.endswith("mine.yaml:2")


def test_shutting_off_audio_and_video_keeps_image_attention(tmp_path: Path) -> None:
    """Gemma 4 with images still attends in both directions: only all zeros would end that."""
    resolved = derived(tmp_path, model=GEMMA_4)
    assert resolved.engine_kwargs()["attention_config"] == {}
    assert any("image tokens attend in both directions" in note for note in resolved.notes)


def test_engine_section_may_say_otherwise(tmp_path: Path) -> None:
    """Who wants vLLM's limits word for word gets them."""
    engine = {"limit_mm_per_prompt": {"image": 1, "video": 1}}
    resolved = derived(tmp_path, model=GEMMA_4, engine=engine)
    assert resolved.engine_kwargs()["limit_mm_per_prompt"] == {"image": 1, "video": 1}


# --- what the processor makes of an image


def test_nothing_is_asked_of_the_processor_by_default(tmp_path: Path) -> None:
    """Without the keys, vLLM's processor works as the checkpoint says."""
    for model in (GEMMA_3, GEMMA_3N, GEMMA_4):
        assert setting(derived(tmp_path, model=model), "mm_processor_kwargs") is None


def test_pan_and_scan(tmp_path: Path) -> None:
    """Gemma 3 is shown crops, and the reason says what they cost."""
    resolved = derived(tmp_path, model=GEMMA_3, images={"pan_and_scan": True})
    found = setting(resolved, "mm_processor_kwargs")
    assert found is not None
    assert (found.value, found.reason) == ({"do_pan_and_scan": True}, CROPS)
    assert found.origin.endswith("mine.yaml:3")


def test_cost_of_crops_is_the_checkpoints(tmp_path: Path) -> None:
    """A checkpoint with another number of tokens an image is not told of 256."""
    config = {"model_type": "gemma3", "mm_tokens_per_image": 64}
    keys = {"model": "someone/model", "images": {"pan_and_scan": True}}
    found = setting(
        derived(tmp_path, checkpoint=checkpoint_of(config), **keys), "mm_processor_kwargs"
    )
    assert found is not None
    assert found.reason.endswith("up to 320 tokens instead of 64")


@pytest.mark.parametrize("model", [GEMMA_4_E, GEMMA_4])
def test_soft_tokens(tmp_path: Path, model: str) -> None:
    """Gemma 4's token budget of an image reaches its processor."""
    resolved = derived(tmp_path, model=model, images={"max_soft_tokens": 560})
    found = setting(resolved, "mm_processor_kwargs")
    assert found is not None
    assert found.value == {"max_soft_tokens": 560}
    assert found.reason == "an image becomes at most this many tokens"
    assert found.origin.endswith("mine.yaml:3")


def test_soft_tokens_that_fill_the_context_are_refused(tmp_path: Path) -> None:
    """An image that leaves no room for text is refused before the start."""
    keys = {"model": GEMMA_4, "images": {"max_soft_tokens": 1120}}
    with pytest.raises(ProfileError) as caught:
        derived(tmp_path, max_model_len=1024, **keys)
    assert caught.value.message == (
        "images.max_soft_tokens 1120 leaves no room in a context of 1024 tokens; "
        "lower it, or raise max_model_len."
    )
    assert derived(tmp_path, max_model_len=2048, **keys)


def test_engine_section_wins_over_image_keys(tmp_path: Path) -> None:
    """Processor arguments under engine: replace ours, and say so."""
    engine = {"mm_processor_kwargs": {"do_pan_and_scan": False}}
    images = {"pan_and_scan": True}
    found = setting(
        derived(tmp_path, model=GEMMA_3, images=images, engine=engine), "mm_processor_kwargs"
    )
    assert found is not None
    assert found.value == {"do_pan_and_scan": False}
    assert found.reason == "set in engine:; wins over {'do_pan_and_scan': True}"


# --- what has no effect


@pytest.mark.parametrize(
    ("keys", "key", "note"),
    [
        (
            {"model": GEMMA_4, "images": {"pan_and_scan": True}},
            "images.pan_and_scan",
            "images.pan_and_scan has no effect: only Gemma 3 has it.",
        ),
        (
            {"model": GEMMA_3N, "images": {"pan_and_scan": True}},
            "images.pan_and_scan",
            "images.pan_and_scan has no effect: only Gemma 3 has it.",
        ),
        (
            {"model": GEMMA_3, "images": {"max_soft_tokens": 560}},
            "images.max_soft_tokens",
            "images.max_soft_tokens has no effect: only Gemma 4 has it.",
        ),
        (
            {"model": GEMMA_3_TEXT, "images": {"pan_and_scan": True}},
            "images.pan_and_scan",
            "images.pan_and_scan has no effect: the model takes text only.",
        ),
        (
            {"model": GEMMA_2, "images": {"max_soft_tokens": 70}},
            "images.max_soft_tokens",
            "images.max_soft_tokens has no effect: the model takes text only.",
        ),
        (
            {"model": GEMMA_3, "text_only": True, "images": {"pan_and_scan": True}},
            "images.pan_and_scan",
            "images.pan_and_scan has no effect: text_only leaves the image tower out.",
        ),
        (
            {"model": GEMMA_3, "text_only": True, "images_per_prompt": 2},
            "images_per_prompt",
            "images_per_prompt has no effect: text_only leaves the image tower out.",
        ),
        (
            {"model": GEMMA_4, "images_per_prompt": 0, "images": {"max_soft_tokens": 70}},
            "images.max_soft_tokens",
            "images.max_soft_tokens has no effect: images_per_prompt is 0.",
        ),
    ],
)
def test_keys_without_effect_say_so(
    tmp_path: Path, keys: dict[str, Any], key: str, note: str
) -> None:
    """A key that nothing comes of is named once, with the reason, and sets nothing."""
    resolved = derived(tmp_path, **keys)
    assert notes_about(resolved, key) == [note]
    assert setting(resolved, "mm_processor_kwargs") is None


@pytest.mark.parametrize("model", [GEMMA_2, GEMMA_3_TEXT, GEMMA_3, GEMMA_3N, GEMMA_4])
def test_keys_at_their_defaults_need_no_note(tmp_path: Path, model: str) -> None:
    """Who asks for nothing is told nothing about images."""
    images = {"pan_and_scan": False, "max_soft_tokens": None}
    for note in derived(tmp_path, model=model, images=images).notes:
        assert "images" not in note.split(" has no effect")[0]


def test_images_on_cpu_differ_only_where_there_are_any(tmp_path: Path) -> None:
    """The note about causal image attention on CPU is for those who can send images."""
    note = "On CPU, image tokens get causal attention: answers about images differ from a GPU's."
    assert note in derive(tmp_path, EIGHT_CORES, model=GEMMA_3).notes
    assert note not in derive(tmp_path, EIGHT_CORES, model=GEMMA_3, images_per_prompt=0).notes


# --- what people see


def test_check_prints_the_image_arguments(tmp_path: Path) -> None:
    """`gemma-serve check` shows value, origin and reason of both arguments."""
    loaded = load(tmp_path, model=GEMMA_4_E, images={"max_soft_tokens": 140})
    checkpoint, platform = read_checkpoint(GEMMA_4_E, download=False), simulated("h100")
    resolved = resolve(loaded, checkpoint, platform, WITH_PROCESSOR)
    text = StringIO()
    print_report(resolved, loaded, checkpoint, platform, Console(file=text, width=400))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    for key in ("limit_mm_per_prompt", "mm_processor_kwargs"):
        found = setting(resolved, key)
        assert found is not None
        assert f"{key} {found.value} {found.origin} {found.reason}" in lines
