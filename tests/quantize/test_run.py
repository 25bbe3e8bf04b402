"""The conversion as a whole: shards, interruptions, a full disk, memory, and what lies beside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from gemma_serve.errors import QuantizeError
from gemma_serve.gemma import embedded
from gemma_serve.profile.load import load_profile
from gemma_serve.quantize.card import write_card, write_quality
from gemma_serve.quantize.partial import Partial, check_space, growing
from tests.commands import running
from tests.quantize.checkpoints import (
    INDEX,
    change_config,
    copy_of,
    in_shards,
    quantize,
    tensors_of,
    write_json,
)
from tests.tiny_gemma import VOCAB_SIZE, make_tiny_gemma

MIB = 1024 * 1024


HIDDEN, WIDE, LAYERS = 2048, 12 * 1024, 3
SHARDS = 3 * LAYERS
LARGE = {"gate_proj": (WIDE, HIDDEN), "up_proj": (WIDE, HIDDEN), "down_proj": (HIDDEN, WIDE)}
# 4 heads x 32, of queries, keys and values.
SMALL = dict.fromkeys(("q_proj", "k_proj", "v_proj"), (128, HIDDEN)) | {"o_proj": (HIDDEN, 128)}
SHAPE = {"hidden_size": HIDDEN, "intermediate_size": WIDE, "num_key_value_heads": 4}
TYPES = ["full_attention"] * LAYERS
NORMS = ("input_layernorm", "post_attention_layernorm")
NORMS += ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def large_matrices() -> list[str]:
    """The names of the matrices of 48 MiB, a shard each."""
    return [f"model.layers.{layer}.mlp.{name}.weight" for layer in range(LAYERS) for name in LARGE]


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder of a Gemma in 9 shards of 48 MiB: larger than what a conversion may hold."""
    directory = make_tiny_gemma(tmp_path_factory.mktemp("large"))
    for file in directory.glob("*.safetensors"):
        file.unlink()
    change_config(directory, **SHAPE, num_hidden_layers=LAYERS, layer_types=TYPES)
    weight_map = {}
    for number, name in enumerate(large_matrices()):
        shard = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        layer, _, module = name.removesuffix(".weight").rpartition(".mlp.")
        tensors = {name: torch.full(LARGE[module], 0.5 + number, dtype=torch.bfloat16)}
        if module == "gate_proj":
            tensors |= {
                f"{layer}.self_attn.{small}.weight": torch.ones(shape, dtype=torch.bfloat16)
                for small, shape in SMALL.items()
            }
        save_file(tensors, directory / shard)
        weight_map |= dict.fromkeys(tensors, shard)
    write_json(directory / INDEX, {"metadata": {}, "weight_map": weight_map})
    return directory


def test_shards(blocky_model: Path, tmp_path: Path) -> None:
    """Many shards become as many, and together what one would become."""
    source = in_shards(copy_of(blocky_model, tmp_path / "source"), 5)
    quantize(source, tmp_path / "out", "fp8-block")
    quantize(blocky_model, tmp_path / "straight", "fp8-block")
    sharded, straight = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "straight")

    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 5
    weight_map = json.loads((tmp_path / "out" / INDEX).read_text())["weight_map"]
    assert weight_map.keys() == sharded.keys() == straight.keys()
    assert all(torch.equal(sharded[name], straight[name]) for name in straight)


def test_what_lies_beside(blocky_model: Path, tmp_path: Path) -> None:
    """Tokenizer and templates are copied; nothing of the work under way is left."""
    quantize(blocky_model, tmp_path / "out", "fp8-block")

    made = {file.name for file in (tmp_path / "out").iterdir()}
    assert made == {file.name for file in blocky_model.iterdir()} | {"README.md", "profile.yaml"}
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (blocky_model / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_card(blocky_model: Path, tmp_path: Path) -> None:
    """The card has scheme, source by its hashes, sizes, and what is known of the quality."""
    made = quantize(blocky_model, tmp_path / "out", "fp8-block")
    card = (tmp_path / "out" / "README.md").read_text()

    assert "`fp8-block`: FP8 (E4M3) weights with a scale for each 128 x 128 block." in card
    assert f"| model.safetensors | {made.source_sha256['model.safetensors']} |" in card
    assert re.search(r"[\d.]+ MB became [\d.]+ MB \(\d+%\)", card)
    assert "ai.google.dev/gemma/terms" in card
    assert card.endswith(
        "## Quality\n\nNot measured. Hold this checkpoint against its source before you serve it "
        "to anyone.\n"
    )

    write_quality(tmp_path / "out", {"perplexity": "12.3 (bf16: 12.1)"})

    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("## Quality") == 1
    assert card.endswith("| figure | value |\n| --- | --- |\n| perplexity | 12.3 (bf16: 12.1) |\n")


def test_card_names_repositories_alone(
    blocky_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """models/tiny is a path that looks like a Hub id, and is no base_model of anybody else."""
    monkeypatch.chdir(tmp_path)
    copy_of(blocky_model, Path("models/tiny"))
    made = quantize("models/tiny", tmp_path / "out", "fp8-block")
    assert "base_model" not in (tmp_path / "out" / "README.md").read_text()

    write_card(tmp_path, replace(made, source="google/gemma-3-4b-it", revision="093f9f3"))
    assert "\nbase_model: google/gemma-3-4b-it\n" in (tmp_path / "README.md").read_text()


def test_profile(blocky_model: Path, tmp_path: Path) -> None:
    """The directory can be served by its name."""
    quantize(blocky_model, tmp_path / "out", "fp8-block")

    profile = load_profile(str(tmp_path / "out")).profile
    assert (profile.model, profile.dtype) == (str(tmp_path / "out"), "fp8")
    assert profile.served_model_name == "out"


def test_profile_of_a_known_source(tmp_path: Path) -> None:
    """It extends the packaged profile of its source."""
    from gemma_serve.quantize.profile_text import write_profile
    from gemma_serve.quantize.schemes import SCHEMES

    about = SCHEMES["q4_0"]
    write_profile(tmp_path, tmp_path / "out", embedded.MODEL_ID, "q4_0", about)

    loaded = load_profile(str(tmp_path))
    assert yaml.safe_load((tmp_path / "profile.yaml").read_text())["extends"] == "gemma-3-270m"
    assert loaded.profile.max_model_len == 8192
    assert loaded.profile.env == {"VLLM_CPU_INT4_W4A8": "0"}


def test_interrupted(large_model: Path, tmp_path: Path) -> None:
    """Ctrl-C keeps the finished shards, and the same command goes on from there."""
    words = ["quantize", large_model, tmp_path / "out", "--scheme", "fp8-dynamic"]
    partial = tmp_path / "out.partial"
    record = partial / ".quantize.json"
    with running(words, tmp_path / "first.log") as command:
        command.until(
            lambda: record.exists() and bool(json.loads(record.read_text())["shards"]), "a shard"
        )
        os.kill(command.process.pid, signal.SIGINT)
        assert command.ended() == 130
        assert re.search(r"Stopped; \d finished shards stay in .*out.partial", command.output())
    finished = json.loads(record.read_text())["shards"]
    times = {name: (partial / name).stat().st_mtime_ns for name in finished}
    assert 1 <= len(finished) < SHARDS
    assert not (tmp_path / "out").exists()

    with running(words, tmp_path / "second.log") as command:
        assert command.ended() == 0, command.output()
        assert f"Going on in {partial}: {len(finished)} shards are finished" in command.output()

    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in finished} == times
    made = tensors_of(tmp_path / "out")
    for number, name in enumerate(large_matrices()):
        restored = made[name].float() * made[f"{name}_scale"]
        assert float(restored.min()) == float(restored.max()) == pytest.approx(0.5 + number)
    assert not partial.exists()


def test_finished_shards_are_checked(tmp_path: Path) -> None:
    """A shard that is not what the record says is made again, and so is one of other settings."""
    with stopped(tmp_path / "out", {"scheme": "any"}) as partial:
        (partial.directory / "a").write_bytes(b"whole")
        partial.finish("a", {"source_sha256": "x"})
    with stopped(tmp_path / "out", {"scheme": "any"}) as partial:
        assert partial.finished("a", "x") is not None
        assert partial.finished("a", "y") is None
        assert partial.finished("b", "x") is None
        (partial.directory / "a").write_bytes(b"hole!")
        assert partial.finished("a", "x") is None
    with growing(tmp_path / "out", {"scheme": "other"}, print) as partial:
        assert partial.shards == {}


@contextlib.contextmanager
def stopped(destination: Path, recipe: dict[str, str]) -> Iterator[Partial]:
    """A conversion that is interrupted at the end of the block."""
    with contextlib.suppress(KeyboardInterrupt), growing(destination, recipe, print) as partial:
        yield partial
        raise KeyboardInterrupt


def test_one_run_at_a_time(blocky_model: Path, tmp_path: Path) -> None:
    """A second run to the same destination is refused while the first writes."""
    with growing(tmp_path / "out", {}, print), pytest.raises(QuantizeError, match="Another run is"):
        quantize(blocky_model, tmp_path / "out", "fp8-block")


LIMITED = """
import resource, sys
from gemma_serve.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), -1))
main()
"""


def test_full_disk(large_model: Path, tmp_path: Path) -> None:
    """A disk that fills up is one line; with room again, the same command goes on."""
    words = ["quantize", str(large_model), str(tmp_path / "out"), "--scheme", "fp8-dynamic"]
    command = [sys.executable, "-c", LIMITED, str(4 * MIB), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        f"gemma-serve: '{tmp_path}/out' can't be written: the disk is full; make room or grant "
        "access and run the same command again, which goes on from the shards in "
        f"'{tmp_path}/out.partial'."
    )
    assert not (tmp_path / "out").exists()

    quantize(large_model, tmp_path / "out", "fp8-dynamic")

    assert len(tensors_of(tmp_path / "out")) == 2 * 7 * LAYERS  # each with its scales


def test_not_enough_room(tmp_path: Path) -> None:
    """Where a shard can't fit, it is not begun."""
    message = r"needs 1,000,000,000,000 MB more and [\d,]+ MB are free; free some and run the same"
    with pytest.raises(QuantizeError, match=message), growing(tmp_path / "out", {}, print) as begun:
        check_space(begun, 10**18)


def test_not_enough_room_for_all(
    large_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for some shards is not enough: none is begun, and what is needed is said of all."""
    room = shutil.disk_usage(tmp_path)._replace(free=100 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: room)

    with pytest.raises(QuantizeError, match=r"needs 2\d\d MB more and 105 MB are free"):
        quantize(large_model, tmp_path / "out", "fp8-dynamic")

    assert list((tmp_path / "out.partial").glob("*.safetensors")) == []


def random_model(directory: Path) -> Path:
    """A Gemma of the same shapes that runs: random weights, with norms and embeddings."""
    make_tiny_gemma(directory)
    (directory / "model.safetensors").unlink()
    change_config(directory, **SHAPE, num_hidden_layers=LAYERS, layer_types=TYPES)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    small = {
        "model.embed_tokens.weight": drawn(VOCAB_SIZE, HIDDEN),
        "model.norm.weight": drawn(HIDDEN),
    }
    shards = {}
    for layer in range(LAYERS):
        base = f"model.layers.{layer}"
        for name, shape in LARGE.items():
            shards[f"{layer}-{name}"] = {f"{base}.mlp.{name}.weight": drawn(*shape)}
        small |= {f"{base}.self_attn.{name}.weight": drawn(*shape) for name, shape in SMALL.items()}
        small |= {f"{base}.{name}.weight": drawn(HIDDEN) for name in NORMS}
        small |= {f"{base}.self_attn.{letter}_norm.weight": drawn(32) for letter in "qk"}
    weight_map = {}
    for shard, tensors in (shards | {"small": small}).items():
        save_file(tensors, directory / f"{shard}.safetensors")
        weight_map |= dict.fromkeys(tensors, f"{shard}.safetensors")
    write_json(directory / INDEX, {"metadata": {}, "weight_map": weight_map})
    return directory


MEASURED = """
import re, sys
from pathlib import Path
{modules}
def peak():  # not ru_maxrss: a child process inherits its parent's
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
{work}
print(before, peak())
"""
CONVERTING = MEASURED.format(
    modules="from gemma_serve.quantize import run",
    work="run.quantize(run.Request(sys.argv[1], Path(sys.argv[2]), 'fp8-block'), print)",
)
CALIBRATING = MEASURED.format(
    modules="import transformers.models.gemma3.modeling_gemma3, accelerate\n"
    "from gemma_serve.quantize import calibrate, offloaded, run",
    work="source, text = Path(sys.argv[1]), Path(sys.argv[2])\n"
    "assert calibrate.input_peaks(source, text, print) and calibrate.kv_peaks(source, text, print)",
)


def assert_bounded(script: str, *words: object) -> None:
    """At its peak it holds a shard and 1 GiB, libraries included, and not the checkpoint."""
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    before, peak = map(int, done.stdout.splitlines()[-1].split())

    assert peak < 48 * MIB + 1024 * MIB, (before, peak)
    # All 9 shards and what becomes of them are 650 MiB; without what becomes of them, 440.
    assert peak - before < 48 * MIB + 256 * MIB, (before, peak)


def test_memory(large_model: Path, tmp_path: Path) -> None:
    """Weights are read and written a slice at a time."""
    assert_bounded(CONVERTING, large_model, tmp_path / "out")


def test_memory_of_calibration(calibration_text: Path, tmp_path: Path) -> None:
    """A model that is calibrated runs from its files, though all of it is computed."""
    text = tmp_path / "short.txt"
    text.write_text(calibration_text.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    assert_bounded(CALIBRATING, random_model(tmp_path / "source"), text)
