"""What can't be converted: one clear line, and no destination."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gemma_serve.errors import GemmaServeError, ModelError, QuantizeError
from gemma_serve.quantize import run
from gemma_serve.quantize.source import open_source
from tests.quantize.checkpoints import (
    INDEX,
    change_config,
    change_weights,
    copy_of,
    in_shards,
    quantize,
    tensors_of,
    with_unused_keys,
    write_json,
)
from tests.sizing.styles import STYLES

SHARD = "model-00002-of-00003.safetensors"
DOWN = "model.layers.0.mlp.down_proj.weight"


def truncate(source: Path) -> None:
    """Cut a shard in the middle."""
    content = (source / SHARD).read_bytes()
    (source / SHARD).write_bytes(content[: len(content) // 2])


def lose(source: Path) -> None:
    """Delete a shard."""
    (source / SHARD).unlink()


def rename_in_index(source: Path) -> None:
    """Let the index name a tensor that no shard holds."""
    index = json.loads((source / INDEX).read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = SHARD
    write_json(source / INDEX, index)


def mix_models(source: Path) -> None:
    """Let config.json describe a larger model."""
    change_config(source, hidden_size=512)


def widen(source: Path) -> None:
    """Let config.json describe a wider MLP."""
    change_config(source, intermediate_size=512)


def behead(source: Path) -> None:
    """Let config.json describe fewer heads."""
    change_config(source, num_attention_heads=2)


def add_layer(source: Path) -> None:
    """Let config.json describe a layer more than there is."""
    types = ["sliding_attention", "full_attention", "full_attention"]
    change_config(source, num_hidden_layers=3, layer_types=types)


def drop_layer(source: Path) -> None:
    """Let config.json describe a layer less than there is."""
    change_config(source, num_hidden_layers=1, layer_types=["sliding_attention"])


def lose_unindexed(source: Path) -> None:
    """Delete a shard, and the index that would tell."""
    lose(source)
    (source / INDEX).unlink()


def repeat(source: Path) -> None:
    """Put the tensors of one shard in another too."""
    (source / "model-00003-of-00003.safetensors").write_bytes((source / SHARD).read_bytes())


def spoil(value: float) -> Callable[[Path], None]:
    """Put a value in one weight, in a norm's too far for a first look."""

    def change(source: Path) -> None:
        def put(name: str, tensor: torch.Tensor) -> torch.Tensor:
            if name == DOWN:
                tensor[-1, -1] = value
            return tensor

        change_weights(source, put)

    return change


def spoil_norm(source: Path) -> None:
    """Put an infinity in a tensor that is only copied."""

    def put(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(torch.inf) if name == "model.norm.weight" else tensor

    change_weights(source, put)


def quantise_before(source: Path) -> None:
    """Say that it is quantised."""
    change_config(source, quantization_config={"quant_method": "compressed-tensors"})


def become_llama(source: Path) -> None:
    """Say that it is another model."""
    change_config(source, model_type="llama", architectures=["LlamaForCausalLM"])


BROKEN = {
    truncate: rf"{SHARD} has \d+ bytes instead of \d+; fetch it again\.",
    lose: rf"lacks {SHARD}, which its index names; fetch it again\.",
    rename_in_index: r"The index of '.*' names tensor 'model.layers.9.mlp.up_proj.weight' in "
    rf"{SHARD}, which does not hold it; fetch the checkpoint again\.",
    mix_models: r"Tensor '.*_proj.weight' of '.*' is BF16 \[\d+, 256\], and its config.json says "
    r"that it has \[\d+, 512\]; the files are of different models, fetch the checkpoint again\.",
    widen: r"Tensor '.*\.mlp\..*' of '.*' is BF16 \[.*384.*\], and its config.json says that it "
    r"has \[.*512.*\]; the files are of different models",
    behead: r"Tensor '.*\.self_attn\.[qo]_proj.weight' of '.*' is BF16 \[.*128.*\], and its "
    r"config.json says that it has \[.*64.*\]; the files are of different models",
    add_layer: r"'.*' holds no weight of 'layers\.2\..*' and 6 more, which its config.json "
    r"describes; fetch the checkpoint again\.",
    drop_layer: r"Tensor 'model.layers.1\..*' of '.*' is .*, and its config.json says nothing of "
    r"it; the files are of different models",
    lose_unindexed: r"'.*' holds no weight of 'layers\..*' and \d more, which its config.json "
    r"describes",
    repeat: r"Tensor '.*' of '.*' is in model-00002.* and in model-00003.*; fetch .* again\.",
    spoil(torch.nan): rf"Tensor '{DOWN}' in model-.* holds NaN or infinite values, which no scale "
    r"fits; fetch the checkpoint again, or repair it\.",
    spoil(-torch.inf): rf"Tensor '{DOWN}' in model-.* holds NaN or infinite values",
    spoil_norm: r"Tensor 'model.norm.weight' in model-.* holds NaN or infinite values",
    quantise_before: r"'.*' is already quantised \(compressed-tensors\); name the checkpoint that "
    r"it was made of, in bf16\.",
    become_llama: r"Model '.*' is not Gemma 1 to 4 \(its config.json says 'LlamaForCausalLM'\)",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_broken_source(breaks: Callable[[Path], None], blocky_model: Path, tmp_path: Path) -> None:
    """Each is one sentence, and the destination does not appear."""
    source = in_shards(copy_of(blocky_model, tmp_path / "source"), 3)
    breaks(source)

    with pytest.raises((QuantizeError, ModelError)) as caught:
        quantize(source, tmp_path / "out", "fp8-block")

    assert re.search(BROKEN[breaks], str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_such_source(tmp_path: Path) -> None:
    """A name that is neither a directory nor in the cache says how to get it."""
    with pytest.raises(QuantizeError, match="'google/gemma-3-99b' is neither a directory nor in"):
        quantize("google/gemma-3-99b", tmp_path / "out", "fp8-block")
    with pytest.raises(ModelError, match=r"'\./nothing' does not exist"):
        quantize("./nothing", tmp_path / "out", "fp8-block")


def test_revision_of_nothing(blocky_model: Path, tmp_path: Path) -> None:
    """A directory and the embedded model have no revisions; a hint to fetch one names it."""
    for source in (str(blocky_model), "embedded/gemma-3-270m"):
        with pytest.raises(QuantizeError, match=rf"--revision 'main' .*, and '{source}' is none;"):
            quantize(source, tmp_path / "out", "fp8-block", revision="main")
    with pytest.raises(QuantizeError, match="'hf download google/gemma-3-99b --revision v2'"):
        quantize("google/gemma-3-99b", tmp_path / "out", "fp8-block", revision="v2")


@pytest.mark.parametrize("style", STYLES)
def test_every_generation_is_as_its_config_says(style: str, tmp_path: Path) -> None:
    """Per-layer differences of 2, 3n and 4 are no mismatch."""
    source = with_unused_keys(STYLES[style](tmp_path / "source"))

    assert open_source(str(source), None, print).num_bytes > 0


def test_destination_is_there(blocky_model: Path, tmp_path: Path) -> None:
    """What stands at the destination stays as it is."""
    (tmp_path / "out").mkdir()

    with pytest.raises(QuantizeError, match="is there already; name another destination"):
        quantize(blocky_model, tmp_path / "out", "fp8-block")

    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert list((tmp_path / "out").iterdir()) == []


TEXT = Path(__file__)
OPTIONS = [
    ("fp8", {}, "There is no scheme 'fp8'; use fp8-block, fp8-dynamic, fp8-static, q4_0 or kv-fp8"),
    ("fp8-static", {}, "--scheme fp8-static measures the model on text of yours; name a file with"),
    ("kv-fp8", {}, "--scheme kv-fp8 measures the model on text of yours"),
    ("fp8-block", {"calibration_text": TEXT}, "leave --calibration-text out"),
    ("fp8-block", {"allow_off_grid": True}, "leave --allow-off-grid out"),
    ("kv-fp8", {"calibration_text": Path("/nothing")}, "'/nothing' is not a file"),
    ("kv-fp8", {"calibration_text": Path("/proc/version")}, "give at least 512 "),
    ("kv-fp8", {"calibration_text": Path("/bin/sh")}, "can't be read"),
]


@pytest.mark.parametrize(("scheme", "options", "message"), OPTIONS)
def test_bad_options(
    scheme: str, options: dict[str, object], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    """An option too few or too many, and a text that tells nothing."""
    with pytest.raises(QuantizeError, match=message):
        quantize(tiny_model, tmp_path / "out", scheme, **options)

    assert not (tmp_path / "out").exists()


def test_repaired_source(blocky_model: Path, tmp_path: Path) -> None:
    """Where a bad shard is fetched again, the run goes on with those that were finished."""
    source = in_shards(copy_of(blocky_model, tmp_path / "source"), 3)
    whole = {file.name: file.read_bytes() for file in source.glob("*.safetensors")}
    spoil_norm(source)
    with pytest.raises(GemmaServeError, match="NaN or infinite"):
        quantize(source, tmp_path / "out", "fp8-block")
    for name, content in whole.items():
        (source / name).write_bytes(content)

    lines: list[str] = []
    run.quantize(run.Request(str(source), tmp_path / "out", "fp8-block"), lines.append)

    assert re.match(r"Going on in .*out.partial: [012] shards are finished", lines[0])
    quantize(blocky_model, tmp_path / "straight", "fp8-block")
    resumed, straight = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "straight")
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
