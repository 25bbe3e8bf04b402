"""The packaged profiles on every machine: what they become, and what vLLM says to that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.errors import GemmaServeError
from gemma_serve.gemma.architecture import quantization_of
from gemma_serve.gemma.checkpoint import Checkpoint, read_checkpoint
from gemma_serve.gemma.family import Generation
from gemma_serve.profile.chain import packaged_names
from gemma_serve.profile.load import load_profile
from tests.engine.derive import checkpoint_of, derive
from tests.engine.packaged import GOLDEN, MACHINES, golden_of, resolve_packaged
from tests.tiny_gemma import TOKENIZER_CONFIG, train_tokenizer, write_json
from tests.tiny_gemma4 import GEMMA_4_TOKENS

ROOT = Path(__file__).resolve().parents[2]
Answers = dict[tuple[str, str], dict[str, Any]]

# What vLLM's config can't judge without the GPU that it is for: why -> a profile, and arguments
# that such a machine would refuse when it builds the model or measures its memory.
JUDGED_ONLY_ON_A_GPU: dict[str, tuple[str, dict[str, Any]]] = {
    "a backend is held against model and GPU when layers are built: images rule FLASHINFER out": (
        "gemma-3-27b-it",
        {"attention_config": {"backend": "FLASHINFER"}},
    ),
    "FP8 kernels are chosen when layers are built: neither A100 nor CPU has those for channels": (
        "gemma-3-27b-it-fp8",
        {"quantization": "fp8_per_channel"},
    ),
    "memory is measured when weights are there: one H100 holds no 262,144 tokens beside 58 GiB": (
        "gemma-4-31B-it",
        {"tensor_parallel_size": 1, "max_model_len": 262_144},
    ),
}
# What it does judge here, without weights: a profile, arguments, and words of the refusal.
JUDGED_HERE: list[tuple[str, dict[str, Any], str]] = [
    ("gemma-2-9b-it", {"tensor_parallel_size": 3}, "must be divisible by tensor parallel size"),
    ("gemma-2-9b-it", {"max_model_len": 8193}, "max_model_len (8193) is greater than"),
    ("gemma-2-9b-it", {"dtype": "float16"}, "float16"),
    ("gemma-2-9b-it-fp8", {"quantization": "fp8_per_tensor"}, "Quantization method"),
    ("gemma-3-27b-it", {"attention_config": {"backend": "FLASHINFERR"}}, "FLASHINFERR"),
    ("gemma-4-E4B-it", {"reasoning_parser": "gemma44"}, "gemma44"),
]


@pytest.mark.parametrize("name", packaged_names())
def test_it_becomes_what_is_recorded(name: str) -> None:
    """Every value, note and refusal on every machine; tests/engine/make_golden.py records anew."""
    assert golden_of(name) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_only_packaged_profiles_are_recorded() -> None:
    """No record outlives its profile."""
    assert sorted(file.stem for file in GOLDEN.glob("*.json")) == packaged_names()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What vLLM's create_engine_config says to every case, from one process."""
    cases = dict(_cases())
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(GEMMA_4_TOKENS).save(str(tokenizer / "tokenizer.json"))
    write_json(tokenizer / "tokenizer_config.json", TOKENIZER_CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.vllm_configs", str(tokenizer)],
        input=json.dumps(list(cases.values())),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", packaged_names())
def test_vllm_takes_every_argument(name: str, machine: str, answers: Answers) -> None:
    """vLLM's own config of the model, without weights, has what the profile resolved to."""
    if (name, machine) not in answers:
        with pytest.raises(GemmaServeError):
            resolve_packaged(name, machine)
        return
    checkpoint = read_checkpoint(load_profile(name).profile.model, download=False)
    arguments = resolve_packaged(name, machine).engine_kwargs()
    assert answers[name, machine] == _expected(arguments, checkpoint)


@pytest.mark.parametrize("why", JUDGED_ONLY_ON_A_GPU)
def test_what_is_judged_only_on_a_gpu(why: str, answers: Answers) -> None:
    """vLLM's config takes it here; should it refuse one day, the tests above prove more."""
    assert "refused" not in answers["only on a GPU", why]


@pytest.mark.parametrize("number", range(len(JUDGED_HERE)))
def test_what_is_judged_here(number: int, answers: Answers) -> None:
    """A mistake in size, length, precision, quantisation or name would not pass the tests above."""
    assert JUDGED_HERE[number][2] in answers["here", str(number)]["refused"]


def test_a_branch_is_not_pinned(tmp_path: Path) -> None:
    """A branch may move as well as what no revision names; the commit that is here is told."""
    model = "google/gemma-3-4b-it"
    here = checkpoint_of(read_checkpoint(model, download=False).config, commit="c" * 40)
    notes = derive(tmp_path, "h100", checkpoint=here, model=model, revision="main").notes
    assert (
        f"{model} at revision 'main' may change on the Hub between two starts; set revision to the "
        f"commit that was tested ({'c' * 40} is on this machine)."
    ) in notes


def test_another_commit_is_here(tmp_path: Path) -> None:
    """What a start would fetch, although the model is here, is told with how to serve that."""
    model, here, pinned = "google/gemma-3-4b-it", "c" * 40, "d" * 40
    found = checkpoint_of(read_checkpoint(model, download=False).config, commit=here)
    notes = derive(tmp_path, "h100", checkpoint=found, model=model, revision=pinned).notes
    assert (
        f"{model} is on this machine at commit {here}, and the profile's revision {pinned} will be "
        f"fetched; to serve what is here: --set revision={here}."
    ) in notes


def _cases() -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for name in packaged_names():
        for machine in MACHINES:
            try:
                yield (name, machine), _case(name, machine)
            except GemmaServeError:
                continue  # refused before vLLM is asked; the records have the sentence
    for why, (name, changes) in JUDGED_ONLY_ON_A_GPU.items():
        yield ("only on a GPU", why), _case(name, "h100", changes)
    for number, (name, changes, _) in enumerate(JUDGED_HERE):
        yield ("here", str(number)), _case(name, "h100", changes)


def _case(name: str, machine: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    arguments = resolve_packaged(name, machine).engine_kwargs() | (changes or {})
    return {"config": _config_json(load_profile(name).profile.model), "engine_args": arguments}


def _config_json(model: str) -> dict[str, Any]:
    """The packaged facts as transformers reads them: with the kind of each layer."""
    config: dict[str, Any] = json.loads(json.dumps(read_checkpoint(model, download=False).config))
    text = config.get("text_config", config)
    pattern = text.pop("sliding_window_pattern")
    text["layer_types"] = [
        "sliding_attention" if number % pattern else "full_attention"
        for number in range(1, text["num_hidden_layers"] + 1)
    ]
    return config


def _expected(arguments: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """vLLM's config in the words of its arguments; what is left out has a default."""
    defaults = {
        "scheduling_policy": "fcfs",
        "reasoning_parser": "",
        "max_num_seqs": 128,  # for a CPU, where this runs
        "kv_cache_memory_bytes": None,
    }
    copied = (
        *("max_model_len", "served_model_name", "tensor_parallel_size", "dtype", "kv_cache_dtype"),
        *defaults,
    )
    attention = arguments["attention_config"]
    return {key: (defaults | arguments)[key] for key in copied} | {
        "attention_backend": attention.get("backend", _own_choice(checkpoint)),
        "use_trtllm_attention": attention.get("use_trtllm_attention"),
        "quantization": arguments["quantization"] or checkpoint.quant_method,
        "ignored_layers": _ignored_layers(arguments, checkpoint),
        "images": _images(arguments),
    }


def _own_choice(checkpoint: Checkpoint) -> str | None:
    """
    The backend in vLLM's config where we leave it to vLLM.

    None until layers are built; but Gemma 4 has a rule that asks the machine for FlashAttention 4,
    so that only a GPU can show what it chooses there.
    """
    return "TRITON_ATTN" if checkpoint.generation is Generation.GEMMA_4 else None


def _ignored_layers(arguments: dict[str, Any], checkpoint: Checkpoint) -> list[str] | None:
    if arguments["quantization"]:
        ignored: list[str] = arguments.get("quantization_config", {}).get("ignore", [])
        return ignored
    return quantization_of(checkpoint.config).get("ignored_layers")


def _images(arguments: dict[str, Any]) -> int | None:
    if arguments.get("language_model_only"):
        return 0
    images: int | None = arguments.get("limit_mm_per_prompt", {}).get("image")
    return images
