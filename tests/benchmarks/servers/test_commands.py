"""From a target to the words that start it; profiles are resolved by the real `check`."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from benchmarks.servers import ServerError, parse_target
from benchmarks.servers.commands import Command, command
from benchmarks.servers.llamacpp import cmake_args


def made(text: str) -> Command:
    """The command of a target on port 1234."""
    return asyncio.run(command(parse_target(text), 1234))


def test_profile() -> None:
    """Our server gets the target's settings and the port."""
    how = made("profile:p.yaml,--set max_model_len=64")

    assert " ".join(how.words[1:]) == (
        "-m gemma_serve serve p.yaml --set max_model_len=64 --set server.port=1234"
    )
    assert how.ready_path == "/readyz"


def test_profile_that_is_spoken_to_as_triton() -> None:
    """Our server gets the contract and the gRPC port; spoken to as OpenAI's it gets neither."""
    spec = parse_target("profile:p,protocol=triton-grpc,contract=vllm-backend,--set a=b")
    spec = dataclasses.replace(spec, grpc="127.0.0.1:5678")
    words = asyncio.run(command(spec, 1234)).words

    assert " ".join(words[3:]) == (
        "serve p --set a=b --set triton.contract=vllm-backend --set server.grpc_port=5678 "
        "--set server.port=1234"
    )
    assert "triton" not in " ".join(made("profile:p,protocol=openai-chat").words)


def test_vllm_gets_what_check_shows(tmp_path: Path) -> None:
    """vLLM's server gets the engine arguments and the environment of the profile, settings too."""
    profile = tmp_path / "p.yaml"
    profile.write_text(yaml.safe_dump({"model": "google/gemma-3-4b-it", "max_model_len": 4096}))

    how = made(f"vllm:{profile},--set max_model_len=2048")
    words = list(how.words)

    assert "vllm.entrypoints.openai.api_server" in words
    assert words[words.index("--model") + 1] == "google/gemma-3-4b-it"
    assert words[words.index("--max-model-len") + 1] == "2048"
    assert "--no-trust-remote-code" in words
    assert how.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert how.ready_path == "/health"


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_others_are_held_to_what_the_profile_promises(kind: str, tmp_path: Path) -> None:
    """Servers that publish no SLO get the one of the profile that they are started from."""
    profile = tmp_path / "p.yaml"
    model = "google/gemma-3-4b-it"
    profile.write_text(yaml.safe_dump({"model": model, "slo": {"ttft_ms": 500, "itl_ms": 40}}))

    how = made(f"{kind}:{profile},--set slo.itl_ms=50" if kind == "vllm" else f"{kind}:{profile}")

    assert dict(how.slo) == {"ttft_ms": 500.0, "itl_ms": 50.0 if kind == "vllm" else 40.0}
    assert dict(made(f"profile:{profile}").slo) == {}


def test_unknown_profile_is_told_in_checks_own_words() -> None:
    """A profile that is none is told as `gemma-serve check` tells it."""
    with pytest.raises(ServerError, match="gemma-3-270x"):
        made("vllm:gemma-3-270x")


def test_transformers_takes_a_directory_as_it_is(tmp_path: Path) -> None:
    """A directory is a checkpoint, and no profile is looked for."""
    how = made(f"transformers:{tmp_path}")

    assert list(how.words[2:]) == [
        "benchmarks.servers.transformers_server",
        str(tmp_path),
        "--port",
        "1234",
    ]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="instruction sets of x86")
def test_llama_cpp_is_built_for_this_processor() -> None:
    """Only instruction sets that the processor has are on; AVX-512 needs all its parts."""
    partly = cmake_args({"avx2", "fma", "f16c", "avx512f"})
    wholly = cmake_args({"avx2", "fma", "avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"})

    assert partly.split() == [
        "-DGGML_NATIVE=OFF",
        "-DGGML_AVX2=ON",
        "-DGGML_FMA=ON",
        "-DGGML_F16C=ON",
        "-DGGML_AVX512=OFF",
    ]
    assert "-DGGML_AVX512=ON" in wholly
    assert "-DGGML_F16C=OFF" in wholly
