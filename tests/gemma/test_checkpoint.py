"""What a checkpoint says about itself, and which ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING, Gemma4Config

from gemma_serve.errors import ModelError
from gemma_serve.gemma.architecture import _DEFAULTS
from gemma_serve.gemma.checkpoint import check_servable, read_checkpoint
from gemma_serve.gemma.family import Family, Generation
from gemma_serve.profile.schema import Profile
from tests.engine.derive import checkpoint_of
from tests.tiny_gemma import make_tiny_gemma


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gemma(tmp_path_factory.mktemp("tiny") / "gemma")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Gemma, to be damaged."""
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refusal(model: Path | str, **keys: Any) -> str:
    with pytest.raises(ModelError) as caught:
        check_servable(
            read_checkpoint(str(model), download=False), Profile(model=str(model), **keys)
        )
    return caught.value.message


# --- reading


def test_local_directory_is_read(tiny: Path) -> None:
    """A directory's own config.json, template and weights are what counts."""
    checkpoint = read_checkpoint(str(tiny), download=False)
    weights = sum(file.stat().st_size for file in tiny.glob("*.safetensors"))
    assert checkpoint.config_source == "local"
    assert checkpoint.path == tiny
    assert checkpoint.generation == Generation.GEMMA_3
    assert checkpoint.has_chat_template is True
    assert checkpoint.weight_bytes == weights > 0
    check_servable(checkpoint, Profile(model=str(tiny)))


def test_hub_cache_comes_before_the_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config.json in the Hugging Face cache is believed over the packaged facts."""
    snapshot = tmp_path / "models--google--gemma-3-4b-it" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    config = {"model_type": "gemma3", "text_config": {"num_attention_heads": 2}}
    (snapshot / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    checkpoint = read_checkpoint("google/gemma-3-4b-it", download=False)
    assert (checkpoint.config_source, checkpoint.num_attention_heads) == ("hub cache", 2)
    assert (checkpoint.path, checkpoint.commit) == (None, "a" * 40)
    assert checkpoint.has_chat_template is None
    pinned = read_checkpoint("google/gemma-3-4b-it", "b" * 40, download=False)
    assert (pinned.config_source, pinned.commit) == ("packaged facts", "a" * 40)


def test_facts_stand_in_for_a_config_that_is_not_here() -> None:
    """An official id needs neither network nor weights."""
    checkpoint = read_checkpoint("google/gemma-3-27b-it", download=False)
    assert checkpoint.config_source == "packaged facts"
    assert checkpoint.num_attention_heads == 32
    assert checkpoint.bidirectional_image_attention


def test_family_of_a_directory(copy: Path) -> None:
    """The tokenizer and generation_config.json are read too, and decide the family."""
    checkpoint = read_checkpoint(str(copy), download=False)
    assert checkpoint.generation_config["eos_token_id"] == [1, 106]
    assert checkpoint.added_tokens["<end_of_turn>"] == 106
    assert checkpoint.family == Family(Generation.GEMMA_3, True, False)
    assert checkpoint.tool_call_parser == "pythonic"

    file = copy / "tokenizer.json"
    text = file.read_text()
    for old, new in (
        ("<unused42>", "<start_function_call>"),
        ("<unused43>", "<end_function_call>"),
    ):
        text = text.replace(old, new)
    file.write_text(text.replace("<unused46>", "<escape>"))
    renamed = read_checkpoint(str(copy), download=False)
    assert renamed.family == Family(Generation.GEMMA_3, True, True)
    assert renamed.tool_call_parser == "functiongemma"


def test_family_without_a_tokenizer(copy: Path) -> None:
    """A directory with a config.json alone is known by it."""
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (copy / name).unlink()
    (copy / "chat_template.jinja").unlink()
    checkpoint = read_checkpoint(str(copy), download=False)
    assert (checkpoint.added_tokens, checkpoint.generation_config) == ({}, {})
    assert checkpoint.family == Family(Generation.GEMMA_3, True, False)


def test_family_of_the_facts() -> None:
    """The packaged facts tell FunctionGemma from the Gemma 3 whose size it has."""
    function = read_checkpoint("google/functiongemma-270m-it", download=False)
    plain = read_checkpoint("google/gemma-3-270m", download=False)
    assert function.family == Family(Generation.GEMMA_3, True, True)
    assert plain.family == Family(Generation.GEMMA_3, False, False)


def test_broken_tokenizer_is_refused(copy: Path) -> None:
    """A tokenizer.json that was cut off is refused by name, before the engine would be."""
    (copy / "tokenizer.json").write_text('{"added_tokens": [')
    assert refusal(copy).startswith(
        f"The tokenizer.json of model '{copy}' can't be read (Expecting"
    )


@pytest.mark.parametrize("model_type", sorted(_DEFAULTS))
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    """A key that a config.json leaves out has the value that transformers gives it."""
    config_class = CONFIG_MAPPING[model_type]
    ours = _DEFAULTS[model_type]
    # Neither is an attribute there: a pattern becomes layer_types, global_head_dim a layer's own.
    known = {
        k: v for k, v in ours.items() if k not in ("sliding_window_pattern", "global_head_dim")
    }
    assert {key: getattr(config_class, key) for key in known} == known
    layer_types = getattr(config_class(), "layer_types", None) or ["full_attention"]
    assert layer_types.index("full_attention") + 1 == ours.get("sliding_window_pattern", 1)


def test_sparse_config_of_gemma_3_4b() -> None:
    """The published gemma-3-4b-it config names no heads and no towers' sizes; both are known."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "sliding_window": 1024}
    checkpoint = checkpoint_of({"model_type": "gemma3", "text_config": text})
    assert checkpoint.num_attention_heads == 8
    assert checkpoint.head_dims == {256}
    assert checkpoint.sliding_window == 1024
    assert checkpoint.is_multimodal


def test_both_head_sizes_of_gemma_4_are_seen() -> None:
    """A config.json that transformers writes for Gemma 4 gives the local and the global size."""
    config = json.loads(Gemma4Config().to_json_string())
    assert checkpoint_of(config).head_dims == {256, 512}


@pytest.mark.parametrize(
    ("model", "modalities", "bidirectional"),
    [
        ("google/gemma-3-1b-it", (), False),
        ("google/gemma-3-4b-it", ("image",), True),
        ("google/gemma-3n-E2B-it", ("image", "audio"), False),
        ("google/gemma-4-E4B-it", ("image", "audio", "video"), False),
        ("google/gemma-4-12B-it", ("image", "audio", "video"), True),
        ("google/gemma-4-31B-it", ("image", "video"), True),
    ],
)
def test_modalities_and_image_attention(
    model: str, modalities: tuple[str, ...], bidirectional: bool
) -> None:
    """What a model takes besides text, and whether its image tokens see each other both ways."""
    checkpoint = read_checkpoint(model, download=False)
    assert checkpoint.modalities == modalities
    assert checkpoint.bidirectional_image_attention is bidirectional


@pytest.mark.parametrize(
    ("quantization", "is_fp8", "is_block_fp8", "is_int4"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, True, True, False),
        ({"quant_method": "fp8"}, True, False, False),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, True, False, False),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, False, False, False),
        ({"quant_method": "gptq", "bits": 4}, False, False, True),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8}}},
            },
            True,
            False,
            False,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 4}}},
            },
            False,
            False,
            True,
        ),
    ],
)
def test_kind_of_quantisation(
    quantization: dict[str, Any], is_fp8: bool, is_block_fp8: bool, is_int4: bool
) -> None:
    """FP8, block FP8 and 4-bit integers are told apart, whoever wrote them."""
    checkpoint = checkpoint_of({"model_type": "gemma3_text", "quantization_config": quantization})
    found = (checkpoint.is_fp8, checkpoint.is_block_fp8, checkpoint.is_int4)
    assert found == (is_fp8, is_block_fp8, is_int4)


def test_modelopt_details_in_a_file_of_their_own(copy: Path) -> None:
    """An older modelopt checkpoint says how it is quantised in hf_quant_config.json."""
    (copy / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    checkpoint = read_checkpoint(str(copy), download=False)
    assert checkpoint.quant_method == "modelopt"
    assert checkpoint.is_fp8


# --- refusing


def test_other_model_is_refused(copy: Path) -> None:
    """A model that is not Gemma is refused, unless the profile allows it."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (copy / "config.json").write_text(json.dumps(config))
    assert refusal(copy) == (
        f"Model '{copy}' is not Gemma 1 to 4 (its config.json says 'LlamaForCausalLM'); "
        "serve a Gemma checkpoint, or set allow_other_models: true."
    )
    checkpoint = read_checkpoint(str(copy), download=False)
    check_servable(checkpoint, Profile(model=str(copy), allow_other_models=True))


def test_embedding_model_is_refused(copy: Path) -> None:
    """A Gemma that generates nothing is refused by its architecture."""
    config = {"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"]}
    (copy / "config.json").write_text(json.dumps(config))
    assert refusal(copy) == (
        f"Model '{copy}' does not generate text (its architecture is 'Gemma3TextModel'); "
        "serve a causal Gemma checkpoint, or set allow_other_models: true."
    )


@pytest.mark.parametrize(
    ("model", "size", "sentence"),
    [
        (
            "google/gemma-3-270m",
            3,
            "tensor_parallel_size 3 does not divide the 4 attention heads of "
            "google/gemma-3-270m; use 1, 2 or 4.",
        ),
        (
            "google/gemma-3-27b-it",
            64,
            "tensor_parallel_size 64 does not divide the 32 attention heads of "
            "google/gemma-3-27b-it; use 1, 2, 4, 8, 16 or 32.",
        ),
    ],
)
def test_heads_that_do_not_divide_are_refused(model: str, size: int, sentence: str) -> None:
    """A tensor-parallel size must divide the attention heads; the sizes that do are named."""
    assert refusal(model, tensor_parallel_size=size) == sentence
    assert refusal(model, engine={"tensor_parallel_size": size}) == sentence


def test_missing_directory_is_refused() -> None:
    """A path that does not exist is not looked for on the Hub."""
    assert refusal("./no-such-model") == (
        "Model './no-such-model' does not exist; name a directory with a checkpoint, or a Hugging "
        "Face id such as google/gemma-3-4b-it."
    )


def test_directory_without_config_is_refused(copy: Path) -> None:
    """A directory that holds no checkpoint is refused."""
    (copy / "config.json").unlink()
    assert refusal(copy) == (
        f"Model '{copy}' has no config.json; name a directory that holds a Hugging Face "
        "checkpoint (config.json, tokenizer.json, *.safetensors)."
    )


def test_broken_config_is_refused(copy: Path) -> None:
    """A config.json that was cut off is refused by name."""
    (copy / "config.json").write_text('{"model_type": ')
    assert refusal(copy).startswith(f"The config.json of model '{copy}' can't be read (Expecting")


def test_directory_without_weights_is_refused(copy: Path) -> None:
    """A checkpoint without weights is refused, unless the loader needs none."""
    for file in copy.glob("*.safetensors"):
        file.unlink()
    assert refusal(copy) == (
        f"Model '{copy}' has no *.safetensors weights; fetch the whole checkpoint."
    )
    dummy = Profile(model=str(copy), engine={"load_format": "dummy"})
    check_servable(read_checkpoint(str(copy), download=False), dummy)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "pytorch_model.bin",
            "has only pickled weights, which can run code when they are loaded; "
            "convert them to safetensors.",
        ),
    ],
)
def test_other_weight_formats_are_refused(copy: Path, name: str, sentence: str) -> None:
    """Pickles are not taken for weights."""
    for file in copy.glob("*.safetensors"):
        file.unlink()
    (copy / name).write_bytes(b"weights")
    assert refusal(copy) == f"Model '{copy}' {sentence}"


def test_directory_of_gguf_is_refused(copy: Path) -> None:
    """Of a directory that holds GGUF files alone, the file to name is named."""
    for file in copy.glob("*.safetensors"):
        file.unlink()
    (copy / "model.gguf").write_bytes(b"GGUF")
    assert refusal(copy) == (
        f"Model '{copy}' holds GGUF weights and no *.safetensors; name the file itself "
        f"(model: {copy / 'model.gguf'}), which needs a GPU and vllm-gguf-plugin."
    )


def test_missing_shard_is_named(copy: Path) -> None:
    """An index that names a shard which is not there names it."""
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert refusal(copy) == (
        f"Model '{copy}' lacks model-00001-of-00002.safetensors and 1 more, which its index names; "
        "fetch it again."
    )


def test_incomplete_weights_are_refused(copy: Path) -> None:
    """A download that stopped early is found by its size, before minutes of loading."""
    (file,) = copy.glob("*.safetensors")
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-10])
    assert refusal(copy) == (
        f"Model '{copy}': {file.name} has {size - 10} bytes instead of {size}; fetch it again."
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer instead of weights",
        ),
        (b"", "is not a complete safetensors file"),
        ((9).to_bytes(8, "little") + b"not json!", "is not a safetensors file"),
    ],
)
def test_files_that_are_no_weights_are_refused(copy: Path, content: bytes, fault: str) -> None:
    """A pointer, an empty file or another format under the right name is told apart."""
    (file,) = copy.glob("*.safetensors")
    file.write_bytes(content)
    assert refusal(copy) == f"Model '{copy}': {file.name} {fault}; fetch it again."


def test_unknown_model_without_network() -> None:
    """An id that is nowhere on this machine says what to do."""
    assert refusal("someone/gemma-tune") == (
        "The config.json of model 'someone/gemma-tune' is neither in the Hugging Face cache nor "
        "packaged with gemma-serve; fetch the checkpoint first, or name a local directory."
    )


def test_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Hub that does not answer ends in one line, not in a stack of network errors."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(ModelError) as caught:
        read_checkpoint("someone/gemma-tune", download=True)
    assert caught.value.message.startswith(
        "The config.json of model 'someone/gemma-tune' can't be fetched from the Hugging Face Hub ("
    )
    assert caught.value.message.endswith("); check the network, or name a local directory.")


def test_impossible_id_is_not_a_stack_trace() -> None:
    """A name that can't be a repository is refused in one sentence."""
    assert refusal("google/gemma 3").startswith(
        "Model 'google/gemma 3' is neither a local directory nor a repository"
    )


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (
            {"trust_remote_code": True},
            "engine.trust_remote_code true runs code from the model's repository, and no Gemma "
            "needs any; remove it, or set allow_other_models: true.",
        ),
        (
            {"load_format": "pt"},
            "engine.load_format 'pt' reads pickled weights, which can run code when they are "
            "loaded; convert them to safetensors.",
        ),
    ],
)
def test_code_of_the_model_is_refused(tiny: Path, engine: dict[str, Any], sentence: str) -> None:
    """Nothing that comes with a checkpoint is run."""
    assert refusal(tiny, engine=engine) == sentence
