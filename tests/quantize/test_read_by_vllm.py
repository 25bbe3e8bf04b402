"""
What vLLM reads in quantised checkpoints: the scheme of every layer, and every weight and scale.

Its own model is built of each, on this CPU, and loads the files; nothing is computed. So FP8 that
only GPUs run is read too. What a GPU alone could tell: its kernels, and what they compute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.quantize.checkpoints import EXPERTS, mixture_of_experts, quantize, tensors_of

ROOT = Path(__file__).resolve().parents[2]
READ_S = 300  # a bound: importing vLLM takes most of it
LAYERS = ["model.layers.0", "model.layers.1"]
LINEAR = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
# vLLM puts these side by side in one matrix.
MERGED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Reading:
    """One checkpoint: what is stored, and what vLLM made of it."""

    stored: Tensors
    found: Mapping[str, Any]
    held: Tensors  # by vLLM's model

    def run_by(self, part: str) -> set[str]:
        """What runs the modules of this name, in all layers."""
        return {self.found["run_by"][f"{layer}.{part}"] for layer in LAYERS}

    def assert_loaded(self, suffix: str) -> None:
        """Every linear layer holds what is stored of its parts."""
        for layer in LAYERS:
            for module in LINEAR:
                parts = MERGED.get(module, (module,))
                stored = torch.cat([self.stored[f"{layer}.{part}.{suffix}"] for part in parts])
                assert same(self.held[f"{layer}.{module}.{suffix}"], stored), (module, suffix)

    def assert_whole(self) -> None:
        """No weight is missing, and none was left over: of the cache's scales there are none."""
        assert all(".self_attn.attn." in name for name in self.found["not_loaded"])


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """The same bytes in the same shape."""
    return ours.dtype == theirs.dtype and torch.equal(
        ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8)
    )


@pytest.fixture(scope="module")
def readings(
    tiny_model: Path,
    blocky_model: Path,
    calibration_text: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Reading]:
    """Every scheme, and a mixture of experts, read in one process."""
    folder = tmp_path_factory.mktemp("read")
    text = {"calibration_text": calibration_text}
    quantize(blocky_model, folder / "fp8-block", "fp8-block")
    quantize(tiny_model, folder / "fp8-dynamic", "fp8-dynamic")
    quantize(tiny_model, folder / "fp8-static", "fp8-static", **text)
    quantize(tiny_model, folder / "q4_0", "q4_0", allow_off_grid=True)
    quantize(tiny_model, folder / "kv-fp8", "kv-fp8", **text)
    quantize(mixture_of_experts(folder / "source"), folder / "mixture", "fp8-dynamic")
    names = ["fp8-block", "fp8-dynamic", "fp8-static", "q4_0", "kv-fp8", "mixture"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.quantize.vllm_reads"],
        input=json.dumps([str(folder / name) for name in names]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        timeout=READ_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(names, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return {
        name: Reading(
            tensors_of(folder / name),
            found[name],
            {} if "refused" in found[name] else load_file(folder / f"{name}.safetensors"),
        )
        for name in names
    }


def test_dynamic(readings: dict[str, Reading]) -> None:
    """FP8 weights with a scale for each channel, in every linear layer; head and embeddings not."""
    reading = readings["fp8-dynamic"]

    assert reading.found["quantization"] == "compressed-tensors"
    assert {run for part in LINEAR for run in reading.run_by(part)} == {"CompressedTensorsW8A8Fp8"}
    for module in ("lm_head", "model.embed_tokens"):
        assert reading.found["run_by"][module] == "UnquantizedEmbeddingMethod"
    reading.assert_loaded("weight")
    reading.assert_loaded("weight_scale")
    assert not [name for name in reading.held if name.endswith("input_scale")]
    reading.assert_whole()


def test_static(readings: dict[str, Reading]) -> None:
    """FP8 weights with a scale a tensor, and the calibrated ones of what enters."""
    reading = readings["fp8-static"]

    assert {run for part in LINEAR for run in reading.run_by(part)} == {"CompressedTensorsW8A8Fp8"}
    for suffix in ("weight", "weight_scale", "input_scale"):
        reading.assert_loaded(suffix)
    reading.assert_whole()


def test_q4_0(readings: dict[str, Reading]) -> None:
    """Four bits in groups, signed scales and all."""
    reading = readings["q4_0"]

    assert {run for part in LINEAR for run in reading.run_by(part)} == {"CompressedTensorsWNA16"}
    reading.assert_loaded("weight_packed")
    reading.assert_loaded("weight_scale")
    assert bool((reading.held[f"{LAYERS[0]}.mlp.down_proj.weight_scale"] < 0).any())
    reading.assert_whole()


def test_kv_cache(readings: dict[str, Reading]) -> None:
    """Weights in bf16, and the scales of each layer's keys and values where attention has them."""
    reading = readings["kv-fp8"]

    assert {run for part in LINEAR for run in reading.run_by(part)} == {"UnquantizedLinearMethod"}
    assert reading.run_by("self_attn.attn") == {"CompressedTensorsKVCacheMethod"}
    reading.assert_loaded("weight")
    for layer in LAYERS:
        for scale in ("k_scale", "v_scale"):
            held = reading.held[f"{layer}.self_attn.attn.{scale}"]
            assert float(held) == float(reading.stored[f"{layer}.self_attn.{scale}"]) != 1
            assert f"{layer}.self_attn.attn.{scale}" not in reading.found["not_loaded"]


def test_mixture(readings: dict[str, Reading]) -> None:
    """Experts that were taken apart are put together again as they were; routers stay bf16."""
    reading = readings["mixture"]

    assert reading.run_by("experts.routed_experts") == {"CompressedTensorsW8A8Fp8MoEMethod"}
    assert reading.run_by("router.proj") == {"UnquantizedLinearMethod"}
    assert {run for part in LINEAR for run in reading.run_by(part)} == {"CompressedTensorsW8A8Fp8"}
    for layer in LAYERS:
        for suffix in ("weight", "weight_scale"):
            for held, parts in (("w13", ("gate_proj", "up_proj")), ("w2", ("down_proj",))):
                experts = [
                    torch.cat([reading.stored[f"{layer}.experts.{e}.{p}.{suffix}"] for p in parts])
                    for e in range(EXPERTS)
                ]
                found = reading.held[f"{layer}.experts.routed_experts.{held}_{suffix}"]
                assert same(found, torch.stack(experts)), (layer, held, suffix)
        assert same(
            reading.held[f"{layer}.router.proj.weight"],
            reading.stored[f"{layer}.router.proj.weight"],
        )
    reading.assert_whole()


def test_block(readings: dict[str, Reading]) -> None:
    """Block FP8 is read where the CPU has AMX, which alone has a kernel for it; vLLM says so."""
    reading = readings["fp8-block"]

    assert reading.found["quantization"] == "fp8"
    if not torch.cpu._is_amx_tile_supported():
        assert "requires AMX tile support" in reading.found["refused"]
        return
    assert {run for part in LINEAR for run in reading.run_by(part)} == {"Fp8LinearMethod"}
    reading.assert_loaded("weight")
    reading.assert_loaded("weight_scale_inv")
