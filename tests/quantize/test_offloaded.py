"""Calibration, which runs a model from its files, against the same model loaded whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from gemma_serve.errors import QuantizeError
from gemma_serve.quantize import calibrate, offloaded
from gemma_serve.quantize.layers import decoder_module
from tests.quantize.checkpoints import change_weights, copy_of, mixture_of_experts
from tests.sizing.styles import STYLES
from tests.tiny_gemma import BOS

MODELS = STYLES | {"mixture": mixture_of_experts}
VALUES = "model.layers.0.self_attn.v_proj"


@pytest.fixture
def short_text(calibration_text: Path, tmp_path: Path) -> Path:
    """Two rows of tokens, of which the second is short."""
    file = tmp_path / "short.txt"
    file.write_text(calibration_text.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    return file


def whole(checkpoint: Path) -> Any:
    """The model in memory, with Gemma 2's soft-cap."""
    options = {"attn_implementation": "eager"} if "gemma2" in checkpoint.name else {}
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16, **options).eval()


@pytest.mark.parametrize("name", MODELS)
def test_inputs(name: str, short_text: Path, tmp_path: Path) -> None:
    """What enters each matrix is what enters it in the whole model, in every generation."""
    checkpoint = MODELS[name](tmp_path / name)
    expected: dict[str, float] = defaultdict(float)

    def observe(key: str) -> Callable[..., None]:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            expected[key] = max(expected[key], float(inputs[0].abs().max()))

        return hook

    model = whole(checkpoint)
    for module_name, module in model.named_modules():
        if (key := decoder_module(module_name)) is not None:
            module.register_forward_pre_hook(observe(key))
    with torch.inference_mode():
        for row in calibrate._sequences(checkpoint, short_text, lambda _line: None):
            model(input_ids=row)

    found = calibrate.input_peaks(checkpoint, short_text, lambda _line: None)

    # Rows in a batch are summed up in another order than one by one.
    assert found == pytest.approx(dict(expected), rel=0.05)


def test_keys_and_values_of_every_token(tiny_model: Path, short_text: Path, tmp_path: Path) -> None:
    """The first token of a row as long as the sliding window counts too: BOS is unlike all else."""

    def favour_bos(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == f"{VALUES}.weight":
            tensor[0] = bos * 100
        return tensor

    embeddings = whole(tiny_model).get_input_embeddings()
    bos = embeddings(torch.tensor([BOS]))[0].detach()
    checkpoint = change_weights(copy_of(tiny_model, tmp_path / "model"), favour_bos)
    model = whole(checkpoint)
    first: list[float] = []
    others: list[float] = []

    def observe(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        first.append(float(output[:, 0].abs().max()))
        others.append(float(output[:, 1:].abs().max()))

    model.get_submodule(VALUES).register_forward_hook(observe)
    rows = calibrate._sequences(checkpoint, short_text, lambda _line: None)[:1]
    assert rows[0].shape[1] == model.config.sliding_window
    with torch.inference_mode():
        model(input_ids=rows[0])
    assert max(first) > 1.5 * max(others)

    found = calibrate.kv_peaks(checkpoint, short_text, lambda _line: None)

    assert found["layers.0.self_attn.v"] == pytest.approx(max(first), rel=0.05)


def test_without_accelerate(
    tiny_model: Path, short_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one package that vLLM does not bring is named, with how to get it."""
    monkeypatch.setattr(offloaded, "find_spec", lambda _name: None)

    with pytest.raises(
        QuantizeError, match=r"through accelerate, .* install gemma-serve\[quantize\]"
    ):
        calibrate.input_peaks(tiny_model, short_text, lambda _line: None)
