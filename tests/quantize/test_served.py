"""Quantised checkpoints on real vLLM: what they are for."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from gemma_serve.gemma import embedded
from gemma_serve.quantize.layers import is_quantised
from tests.commands import running
from tests.conftest import TINY, ServeProfile
from tests.quantize.checkpoints import change_weights, config_of, copy_of, tensors_of
from tests.quantize.test_q4_0 import drawn
from tests.tiny_gemma import BOS, VOCAB_SIZE

CPU_CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
CAPITALS = "Germany: Berlin. Italy: Rome. Spain: Madrid. France:"


@pytest.fixture(scope="module")
def embedded_fp8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in block FP8, made by the command."""
    out = tmp_path_factory.mktemp("embedded") / "out"
    words = ["quantize", embedded.MODEL_ID, out, "--scheme", "fp8-block"]
    with running(words, out.with_name("log")) as command:
        assert command.ended() == 0, command.output()
        assert f"Next: gemma-serve serve {out}" in command.output()
    return out


def test_embedded_in_block_fp8(embedded_fp8: Path) -> None:
    """The embedded model's matrices become FP8; its embeddings, most of it, stay bf16."""
    weights = tensors_of(embedded_fp8)

    assert config_of(embedded_fp8)["quantization_config"]["quant_method"] == "fp8"
    assert sum(weight.dtype == torch.float8_e4m3fn for weight in weights.values()) == 18 * 7
    assert weights["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_embedded_in_block_fp8_is_served_or_refused(
    serve_profile: ServeProfile, embedded_fp8: Path, tmp_path: Path
) -> None:
    """With AMX it is served, its weights in FP8; without, where vLLM can't, one line says so."""
    if torch.cpu._is_amx_tile_supported():
        shown = {"VLLM_LOGGING_LEVEL": "INFO"}
        with serve_profile(embedded_fp8, ["kv_cache_memory_gib=0.25"], shown) as server:
            assert "Selected CPUFp8BlockScaledMMKernel for Fp8LinearMethod" in server.output()
            with server.client() as client:
                assert complete(client, CAPITALS)["text"].startswith(" Paris")
                assert client.get("/v1/models").json()["data"][0]["id"] == "out"
        return
    why = "is stored in block FP8, for which vLLM's CPU kernel needs AMX"
    assert_refused(embedded_fp8, tmp_path / "log", why)


def assert_refused(checkpoint: Path, log: Path, why: str) -> None:
    """The start says at once what this CPU lacks."""
    with running(["serve", checkpoint, "--set", "server.port=0"], log) as command:
        assert command.ended() == 3
        assert command.last_line().startswith(f"gemma-serve: {checkpoint} {why}")


def complete(client: httpx.Client, prompt: str | list[int], **options: object) -> dict:
    """The greedy completion, short."""
    body = {"model": "out", "prompt": prompt, "temperature": 0, "max_tokens": 2} | options
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def test_q4_0(serve_profile: ServeProfile, blocky_model: Path, tmp_path: Path) -> None:
    """
    A QAT checkpoint in 4 bits, negative scales and all, says what its bf16 weights say; or one line
    says what the CPU lacks.
    """
    source = change_weights(
        copy_of(blocky_model, tmp_path / "qat"),
        lambda name, tensor: (
            drawn(tensor.numel() // 32).view(tensor.shape) if is_quantised(name) else tensor
        ),
    )
    is_served = "avx512" in CPU_CAPABILITY
    words = ["--scheme", "q4_0"]
    words += ["--quality", "--quality-tokens", "2000"] if is_served else []
    with running(["quantize", source, tmp_path / "out", *words], tmp_path / "log") as command:
        assert command.ended() == 0, command.output()
    if not is_served:
        why = "has 4-bit weights, for which vLLM's CPU kernel needs AVX-512"
        assert_refused(tmp_path / "out", tmp_path / "refused", why)
        return
    card = (tmp_path / "out" / "README.md").read_text()
    assert "come back bit for bit" in card
    [top1] = re.findall(r"\| top-1 agreement \| ([\d.]+)% \|", card)
    assert float(top1) > 99
    prompt = [BOS, *range(300, 340)]
    overrides = [f"{key}={TINY[key]}" for key in ("max_model_len", "kv_cache_memory_gib")]
    with (
        serve_profile(tmp_path / "out", [*overrides, "engine.enforce_eager=true"]) as server,
        server.client() as client,
    ):
        ours = logprobs_by_server(client, prompt)
    theirs = logprobs_by_transformers(source, prompt)

    assert furthest(ours, theirs) < 0.05
    # The prompt tells these weights from others: any weights would give log(1 / vocabulary).
    assert max(abs(a + math.log(VOCAB_SIZE)) for a in theirs) > 0.3


def logprobs_by_server(client: httpx.Client, prompt: list[int]) -> list[float]:
    """Of each token of a prompt but the first."""
    served = complete(client, prompt, max_tokens=1, echo=True, logprobs=1)
    found: list[float] = served["logprobs"]["token_logprobs"][1 : len(prompt)]
    return found


def logprobs_by_transformers(
    checkpoint: Path, prompt: list[int], cache: DynamicCache | None = None
) -> list[float]:
    """The same in float32, without vLLM and without our conversion."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt]), past_key_values=cache).logits[0]
    return [float(logits.log_softmax(-1)[at, token]) for at, token in enumerate(prompt[1:])]


def furthest(ours: list[float], theirs: list[float]) -> float:
    """The largest difference."""
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


class CutOff(DynamicCache):
    """An FP8 KV cache whose scales are 1, but for its rounding: 448 is the most that it holds."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states.clamp(-448, 448), value_states.clamp(-448, 448)


def test_scales_of_the_kv_cache(
    serve_profile: ServeProfile, tiny_model: Path, calibration_text: Path, tmp_path: Path
) -> None:
    """
    Calibrated scales of an FP8 KV cache are loaded and used, on values that scales of 1 would cut
    off; or one line says what the CPU lacks.
    """
    source = change_weights(
        copy_of(tiny_model, tmp_path / "loud"),
        lambda name, tensor: tensor * 2**16 if name.endswith(".v_proj.weight") else tensor,
    )
    words = ["--scheme", "kv-fp8", "--calibration-text", calibration_text]
    with running(["quantize", source, tmp_path / "out", *words], tmp_path / "log") as command:
        assert command.ended() == 0, command.output()
    if not ("avx512" in CPU_CAPABILITY or torch.cpu._is_amx_tile_supported()):
        with running(["serve", tmp_path / "out", "--set", "server.port=0"], tmp_path / "no") as it:
            assert it.ended() == 3
            assert it.last_line().startswith("gemma-serve: kv_cache_dtype 'fp8' needs AVX-512 or")
        return
    prompt = [BOS, *range(300, 340)]
    overrides = [f"{key}={TINY[key]}" for key in ("max_model_len", "kv_cache_memory_gib")]
    overrides.append("engine.enforce_eager=true")
    with serve_profile(tmp_path / "out", overrides) as server, server.client() as client:
        settings = client.get("/v1/info").json()["settings"]
        assert ("kv_cache_dtype", "fp8") in [(each["key"], each["value"]) for each in settings]
        ours = logprobs_by_server(client, prompt)
        assert "KV cache scaling factor 1.0" not in server.output()

    theirs = logprobs_by_transformers(source, prompt)
    cut_off = logprobs_by_transformers(source, prompt, CutOff())
    assert furthest(ours, theirs) < furthest(cut_off, theirs) / 4
