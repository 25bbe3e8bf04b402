"""Which attention backend a profile gets on which GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemma_serve.errors import StartupError
from tests.engine.derive import FIELDS, TWO_CORES, checkpoint_of, derive

FLASHINFER = {"backend": "FLASHINFER"}
FLASHINFER_WITH_SOFTCAP = {"backend": "FLASHINFER", "use_trtllm_attention": False}
AUTO: dict[str, Any] = {}
AUTO_WITH_SOFTCAP = {"use_trtllm_attention": False}
IMAGES = "image tokens attend in both directions, which it does not support"


@pytest.mark.parametrize(
    ("model", "gpu", "text_only", "config"),
    [
        ("google/gemma-2-9b-it", "h100", False, FLASHINFER_WITH_SOFTCAP),
        ("google/gemma-2-9b-it", "b200", False, FLASHINFER_WITH_SOFTCAP),
        ("google/gemma-2-2b-it", "l4", False, FLASHINFER_WITH_SOFTCAP),
        ("google/gemma-3-270m-it", "a100", False, FLASHINFER),
        ("google/gemma-3-1b-it", "l4", False, FLASHINFER),
        ("google/gemma-3-4b-it", "l4", False, AUTO),
        ("google/gemma-3-4b-it", "l4", True, FLASHINFER),
        ("google/gemma-3-27b-it", "h100", False, AUTO),
        ("google/gemma-3-27b-it", "h100", True, FLASHINFER),
        ("google/gemma-3n-E4B-it", "l4", False, FLASHINFER),
        ("google/gemma-4-E2B-it", "l4", False, FLASHINFER),
        ("google/gemma-4-E4B-it", "h200", False, FLASHINFER),
        ("google/gemma-4-12B-it", "a100", False, AUTO),
        ("google/gemma-4-12B-it", "a100", True, FLASHINFER),
        ("google/gemma-4-26B-A4B-it", "h100", False, AUTO),
        ("google/gemma-4-31B-it", "b200", False, AUTO),
        ("google/gemma-4-31B-it", "b200", True, FLASHINFER),
    ],
)
def test_default_backend(
    tmp_path: Path, model: str, gpu: str, text_only: bool, config: dict[str, Any]
) -> None:
    """FLASHINFER where it is valid, vLLM's own choice where images rule it out; as modelled."""
    resolved = derive(tmp_path, gpu, model=model, text_only=text_only)
    assert resolved.engine_kwargs()["attention_config"] == config
    expected = config.get("backend")
    assert resolved.env_dict().get("VLLM_ATTENTION_BACKEND") == expected


def test_preferring_says_why_it_falls_back(tmp_path: Path) -> None:
    """Where FLASHINFER is invalid, `prefer` leaves the choice to vLLM and gives the reason."""
    resolved = derive(tmp_path, "h100", model="google/gemma-3-27b-it")
    assert f"attention_backend FLASHINFER falls back to auto: {IMAGES}." in resolved.notes
    (setting,) = [s for s in resolved.engine_args if s.key == "attention_config"]
    assert setting.reason == (
        f"FLASHINFER is invalid here ({IMAGES}), so vLLM chooses for each layer"
    )


def test_requiring_refuses_before_anything_is_loaded(tmp_path: Path) -> None:
    """Where FLASHINFER is invalid, `require` refuses and names every way out."""
    keys = {"model": "google/gemma-3-27b-it", "attention_policy": "require"}
    with pytest.raises(StartupError) as caught:
        derive(tmp_path, "h100", **keys)
    assert caught.value.message == (
        f"attention_backend 'FLASHINFER' can't serve google/gemma-3-27b-it on NVIDIA H100 "
        f"({IMAGES}); use attention_policy: prefer, attention_backend: auto or text_only: true."
    )
    resolved = derive(tmp_path, "h100", text_only=True, **keys)
    assert resolved.engine_kwargs()["attention_config"] == FLASHINFER


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"dtype": "fp32"}, "it does not support fp32"),
        (
            {"engine": {"disable_hybrid_kv_cache_manager": True}},
            "local and global layers share a KV group without the hybrid KV cache manager",
        ),
    ],
)
def test_other_reasons_against_flashinfer(tmp_path: Path, keys: dict[str, Any], fault: str) -> None:
    """Precision and the KV cache manager can rule FLASHINFER out."""
    resolved = derive(tmp_path, "h100", model="google/gemma-3-1b-it", **keys)
    assert f"attention_backend FLASHINFER falls back to auto: {fault}." in resolved.notes


def test_head_size_rules_flashinfer_out(tmp_path: Path) -> None:
    """A head size that FLASHINFER has no kernels for rules it out."""
    model = checkpoint_of({"model_type": "gemma3_text", "head_dim": 96})
    resolved = derive(tmp_path, "h100", checkpoint=model, model="someone/model")
    fault = "it does not support head size 96"
    assert f"attention_backend FLASHINFER falls back to auto: {fault}." in resolved.notes


@pytest.mark.parametrize(
    "keys", [{"images_per_prompt": 0}, {"engine": {"language_model_only": True}}]
)
def test_every_way_to_text_only_counts(tmp_path: Path, keys: dict[str, Any]) -> None:
    """A multimodal model that may see no images is as good as text-only."""
    resolved = derive(tmp_path, "h100", model="google/gemma-3-4b-it", **keys)
    assert resolved.engine_kwargs()["attention_config"] == FLASHINFER


def test_video_keeps_image_attention(tmp_path: Path) -> None:
    """Gemma 4 without images, and with video, needs what images need; without both it does not."""
    keys = {"model": "google/gemma-4-31B-it", "images_per_prompt": 0}
    with_video = {"engine": {"limit_mm_per_prompt": {"image": 0, "video": 1}}}
    kwargs = derive(tmp_path, "b200", **keys, **with_video).engine_kwargs()
    assert kwargs["attention_config"] == AUTO
    kwargs = derive(tmp_path, "b200", **keys).engine_kwargs()
    assert kwargs["attention_config"] == FLASHINFER


def test_auto_keeps_the_softcap(tmp_path: Path) -> None:
    """vLLM may choose FLASHINFER itself, so Gemma 2 gives up its TRT-LLM kernels then too."""
    keys = {"model": "google/gemma-2-9b-it", "attention_backend": "auto"}
    resolved = derive(tmp_path, "b200", **keys)
    assert resolved.engine_kwargs()["attention_config"] == AUTO_WITH_SOFTCAP
    assert "VLLM_ATTENTION_BACKEND" not in resolved.env_dict()


def test_other_backend_is_passed_on(tmp_path: Path) -> None:
    """A backend that we have no rules for goes to vLLM as it is."""
    keys = {"model": "google/gemma-2-9b-it", "attention_backend": "flash_attn"}
    resolved = derive(tmp_path, "h100", **keys)
    assert resolved.engine_kwargs()["attention_config"] == {"backend": "FLASH_ATTN"}
    assert resolved.env_dict()["VLLM_ATTENTION_BACKEND"] == "FLASH_ATTN"


def test_cpu_says_that_the_setting_has_no_effect(tmp_path: Path) -> None:
    """On CPU the variable is exported, the argument is not, and a note says that neither counts."""
    resolved = derive(tmp_path, TWO_CORES, model="google/gemma-3-1b-it")
    assert resolved.engine_kwargs()["attention_config"] == AUTO
    assert resolved.env_dict()["VLLM_ATTENTION_BACKEND"] == "FLASHINFER"
    assert (
        "attention_backend FLASHINFER has no effect on CPU: vLLM always uses CPU_ATTN there."
        in resolved.notes
    )


def test_cpu_can_not_be_required_to_use_flashinfer(tmp_path: Path) -> None:
    """A backend that was named and required is refused on CPU; the mere default is not."""
    keys = {"model": "google/gemma-3-1b-it", "attention_policy": "require"}
    assert derive(tmp_path, TWO_CORES, **keys)
    with pytest.raises(StartupError) as caught:
        derive(tmp_path, TWO_CORES, attention_backend="FLASHINFER", **keys)
    assert caught.value.message == (
        "attention_backend 'FLASHINFER' can't run on CPU, where vLLM always uses CPU_ATTN; "
        "use attention_policy: prefer or attention_backend: auto."
    )


def test_operators_variable_still_chooses(tmp_path: Path) -> None:
    """An operator who exports the variable gets what it says, which vLLM alone would ignore."""
    environ = {"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}
    resolved = derive(tmp_path, "h100", model="google/gemma-3-27b-it", environ=environ)
    (setting,) = [s for s in resolved.engine_args if s.key == "attention_config"]
    assert (setting.value, setting.origin) == ({"backend": "TRITON_ATTN"}, "environment")
    (variable,) = [s for s in resolved.env if s.key == "VLLM_ATTENTION_BACKEND"]
    assert (variable.value, variable.origin) == ("TRITON_ATTN", "environment")


def test_profile_chooses_over_the_operator(tmp_path: Path) -> None:
    """A backend that the profile names is both applied and exported, whatever was exported."""
    environ = {"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}
    keys = {"model": "google/gemma-3-1b-it", "attention_backend": "FLASHINFER"}
    resolved = derive(tmp_path, "h100", environ=environ, **keys)
    assert resolved.engine_kwargs()["attention_config"] == FLASHINFER
    assert resolved.env_dict()["VLLM_ATTENTION_BACKEND"] == "FLASHINFER"


def test_strict_environment_gets_no_variable(tmp_path: Path) -> None:
    """Where vLLM refuses unknown variables, ours is not exported and a set one is refused."""
    keys = {"model": "google/gemma-3-1b-it", "engine": {"fail_on_environ_validation": True}}
    resolved = derive(tmp_path, "h100", **keys)
    assert "VLLM_ATTENTION_BACKEND" not in resolved.env_dict()
    assert resolved.engine_kwargs()["attention_config"] == FLASHINFER
    with pytest.raises(StartupError) as caught:
        derive(tmp_path, "h100", environ={"VLLM_ATTENTION_BACKEND": "FLASHINFER"}, **keys)
    assert caught.value.message == (
        "VLLM_ATTENTION_BACKEND is set and engine.fail_on_environ_validation is true, so that vLLM "
        "would refuse to start; unset the variable and use attention_backend in the profile."
    )


@pytest.mark.parametrize(
    "engine",
    [{"attention_backend": "TRITON_ATTN"}, {"attention_config": {"backend": "TRITON_ATTN"}}],
)
def test_engine_section_wins(tmp_path: Path, engine: dict[str, Any]) -> None:
    """`engine:` decides word for word, and vLLM never gets both arguments."""
    keys = {"model": "google/gemma-3-1b-it", "attention_backend": "FLASHINFER"}
    resolved = derive(tmp_path, "h100", engine=engine, **keys)
    kwargs = resolved.engine_kwargs()
    given = {key: kwargs[key] for key in ("attention_backend", "attention_config") if key in kwargs}
    assert given == engine
    assert resolved.env_dict()["VLLM_ATTENTION_BACKEND"] == "TRITON_ATTN"
    (name,) = engine
    assert f"engine.{name} wins over attention_backend." in resolved.notes


def test_argument_is_detected_by_field(tmp_path: Path) -> None:
    """A vLLM with only the older argument gets that, one with neither only the variable."""
    older = FIELDS - {"attention_config"}
    resolved = derive(tmp_path, "h100", model="google/gemma-3-1b-it", fields=older)
    assert resolved.engine_kwargs()["attention_backend"] == "FLASHINFER"
    oldest = older - {"attention_backend"}
    resolved = derive(tmp_path, "h100", model="google/gemma-3-1b-it", fields=oldest)
    assert resolved.env_dict()["VLLM_ATTENTION_BACKEND"] == "FLASHINFER"
    assert not {"attention_backend", "attention_config"} & set(resolved.engine_kwargs())
