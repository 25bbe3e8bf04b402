"""From a Triton model repository to a profile that loads, with a reason for every setting."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.errors import ProfileError
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.profile.load import load_profile
from gemma_serve.triton.contracts import CONTRACTS
from gemma_serve.triton.importing import Finding, Imported, import_model, model_to_import
from gemma_serve.triton.importing.config import HANDLERS, Configuration, import_config
from gemma_serve.triton.importing.findings import Draft
from gemma_serve.triton.importing.profile_text import profile_text
from gemma_serve.triton.importing.reasons import (
    DYNAMIC_BATCHING,
    INSTANCE_GROUP,
    QUEUE_POLICY,
    REMOVED_ENGINE_ARGS,
)
from gemma_serve.triton.repository import ModelDirectory, read_repository
from tests.triton.repositories import (
    BLS_CONFIG,
    ENGINE_CONFIG,
    MODEL_PY,
    PYTHON_CONFIG,
    VLLM_CONFIG,
    python_backend,
    tensorrt_llm,
    vllm_backend,
    write_files,
)

BOUND_S = 120
# Enough of AsyncEngineArgs, with the schemas that the installed vLLM gives.
FIELDS: dict[str, dict[str, Any]] = {
    "enforce_eager": {"type": "boolean"},
    "gpu_memory_utilization": {"type": "number"},
    "max_model_len": {"type": "integer"},
    "max_num_seqs": {"type": "integer"},
    "quantization": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "kv_cache_dtype": {"enum": ["auto", "fp8", "fp8_e5m2"]},
    "distributed_executor_backend": {},
    "limit_mm_per_prompt": {"type": "object"},
    "hf_overrides": {"type": "object"},
}
GEMMA = {"model": "google/gemma-3-4b-it"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles and messages are relative to the working directory."""
    monkeypatch.chdir(tmp_path)


def imported(
    path: Path,
    *,
    model: str | None = None,
    hf_model: str | None = None,
    fields: dict[str, dict[str, Any]] | None = None,
) -> Imported:
    """Import a repository; the profile loads, and its YAML says what its values are."""
    result = import_model(model_to_import(read_repository(path), model), hf_model, fields)
    file = path / "profile-of-the-test.yaml"
    file.write_text(result.text, encoding="utf-8")
    loaded = load_profile(str(file), engine_fields=fields)
    assert loaded.profile.model_dump(exclude_unset=True) == result.profile
    return result


def refusal(path: Path, **options: Any) -> str:
    """Why a repository can't be imported, in one line."""
    with pytest.raises(ProfileError) as caught:
        imported(path, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def found(result: Imported, setting: str, file: str | None = None) -> Finding:
    """The one finding of a setting."""
    [finding] = [
        each for each in result.findings if each.setting == setting and file in (None, each.file)
    ]
    return finding


def became(result: Imported, setting: str) -> str:
    """What became of a setting: its outcome, and as what."""
    finding = found(result, setting)
    return f"{finding.outcome} {finding.target or ''}".strip()


# --- the python backend


def test_python_backend(tmp_path: Path) -> None:
    """The repository of a transformers python backend, with config.pbxt, as it stands."""
    result = imported(python_backend(tmp_path / "models"))
    assert result.text == (
        "# Imported by gemma-serve import-triton: model gemma of the Triton model repository "
        "models.\n"
        "# From AutoModelForCausalLM on line 14 in 1/model.py.\n"
        "model: google/gemma-2-2b-it\n"
        "# 1/model.py had torch_dtype torch.float16: Gemma overflows in fp16; bf16 takes the same "
        "memory\n"
        "dtype: bf16\n"
        "served_model_name: gemma\n"
        "server:\n"
        "  # As Triton listens. No key is asked for unless GEMMA_SERVE_API_KEYS or api_keys_file "
        "says so.\n"
        "  host: 0.0.0.0\n"
        "  port: 8000\n"
        "  grpc_port: 8001\n"
        "  metrics_port: 8002\n"
        "triton:\n"
        "  contract: python-backend\n"
        '  model_version: "1"\n'
        "  inference_trace: true\n"
    )
    assert became(result, "parameters enable_inference_trace") == (
        "renamed triton.inference_trace: true"
    )
    assert became(result, "backend") == "renamed triton.contract: python-backend"
    assert became(result, "max_batch_size") == "kept"
    assert found(result, "input").value == (
        "text_input, max_length, max_new_tokens, do_sample, top_k, top_p, temperature, "
        "repetition_penalty, stream"
    )
    assert became(result, "instance_group.kind") == "dropped"
    assert "triton.default_inputs" in found(result, "(the code)").reason


def test_the_profile_of_the_docs(tmp_path: Path) -> None:
    """The profile that docs/from-triton.md shows is the one that is written."""
    page = (Path(__file__).parents[2] / "docs" / "from-triton.md").read_text(encoding="utf-8")
    shown = page.partition("```yaml\n")[2].partition("```")[0]
    assert imported(python_backend(tmp_path / "models")).text == shown


def test_code_is_never_run(tmp_path: Path) -> None:
    """model.py is read as text: what it would do on import or start does not happen."""
    code = "open('imported', 'w')\n" + MODEL_PY
    assert imported(python_backend(tmp_path, code=code)).profile["model"] == "google/gemma-2-2b-it"
    assert not list(tmp_path.rglob("imported"))
    assert not list(tmp_path.rglob("was-run"))


def test_tensors_that_differ(tmp_path: Path) -> None:
    """An input of another name or datatype is named, with what its clients will get."""
    config = PYTHON_CONFIG.replace(
        '{ name: "top_k" data_type: TYPE_INT32 dims: [ 1 ] optional: true }',
        '{ name: "top_k" data_type: TYPE_INT64 dims: [ 1 ] optional: true },'
        '{ name: "top_p2" data_type: TYPE_FP32 dims: [ 1 ] optional: true },'
        '{ name: "max_length2" data_type: TYPE_INT32 dims: [ 1 ] }',
    ).replace(
        "output [",
        'output [ { name: "score" data_type: TYPE_FP32 dims: [ 1 ] },',
    )
    config = config.replace(
        '"stream" data_type: TYPE_BOOL dims: [ 1 ]', '"stream" data_type: TYPE_BOOL dims: [ 2 ]'
    )
    result = imported(python_backend(tmp_path, config))
    assert found(result, "input top_k").reason == (
        "here it is INT32: clients that name another datatype get 400"
    )
    assert found(result, "input stream").reason == "here its shape is [1]: another one gets 400"
    assert found(result, "input top_p2").outcome == "dropped"
    assert found(result, "input top_p2").reason == (
        "python-backend has no such input: a request that sends it gets 400"
    )
    assert found(result, "output score").reason == (
        "python-backend has no such output: answers lack it, and asking for it gets 400"
    )


@pytest.mark.parametrize(
    ("inputs", "contract"),
    [
        ("", "python-backend"),
        ("sampling_parameters", "vllm-backend"),
        ("max_tokens", "tensorrtllm"),
    ],
)
def test_tensors_decide(tmp_path: Path, inputs: str, contract: str) -> None:
    """Whose clients a python backend has is told by its inputs, not by its name."""
    more = f'{{ name: "{inputs}" data_type: TYPE_STRING dims: [ 1 ] }},' if inputs else ""
    config = PYTHON_CONFIG.replace("input [", f"input [ {more}")
    assert imported(python_backend(tmp_path, config)).profile["triton"]["contract"] == contract


@pytest.mark.parametrize(
    ("batch", "contract", "outcome"),
    [
        (0, "python-backend", "kept"),
        (8, "python-backend", "changed"),
        (0, "tensorrtllm", "changed"),
        (1, "tensorrtllm", "kept"),
        (8, "tensorrtllm", "changed"),
    ],
)
def test_batch_dimension(tmp_path: Path, batch: int, contract: str, outcome: str) -> None:
    """A batch dimension that appears or goes changes the shapes that clients send."""
    more = '{ name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] },'
    config = PYTHON_CONFIG.replace("max_batch_size: 0", f"max_batch_size: {batch}")
    if contract == "tensorrtllm":
        config = config.replace("input [", f"input [ {more}")
    assert found(imported(python_backend(tmp_path, config)), "max_batch_size").outcome == outcome


@pytest.mark.parametrize(("decoupled", "outcome"), [("false", "kept"), ("true", "changed")])
def test_decoupled(tmp_path: Path, decoupled: str, outcome: str) -> None:
    """Streams are served either way; that /config says something else is told."""
    said = f"model_transaction_policy {{ decoupled: {decoupled} }}"
    row = found(
        imported(python_backend(tmp_path, PYTHON_CONFIG + said)),
        "model_transaction_policy.decoupled",
    )
    assert row.outcome == outcome
    assert ("/config says false, as the contract python-backend does" in row.reason) is (
        outcome == "changed"
    )


@pytest.mark.parametrize(
    ("word", "dtype", "outcome"),
    [
        ("torch.float16", "bf16", "changed"),
        ("'half'", "bf16", "changed"),
        ("torch.bfloat16", "bf16", "renamed"),
        ("'auto'", "bf16", "renamed"),
        ("torch.float32", "fp32", "renamed"),
        ("pick_dtype()", None, "dropped"),
    ],
)
def test_precision_of_the_code(tmp_path: Path, word: str, dtype: str | None, outcome: str) -> None:
    """torch_dtype becomes dtype; fp16 never does."""
    code = f"M.from_pretrained('google/gemma-2-2b-it', torch_dtype={word})"
    result = imported(python_backend(tmp_path, code=code))
    assert result.profile.get("dtype") == dtype
    assert found(result, "torch_dtype", "1/model.py").outcome == outcome


def test_precision_that_was_not_said(tmp_path: Path) -> None:
    """transformers loaded float32 where nothing was said, and here it is bf16."""
    code = "M.from_pretrained('google/gemma-2-2b-it', revision='abc', token='hf_x')"
    result = imported(python_backend(tmp_path, code=code))
    assert found(result, "torch_dtype").value == "not said"
    assert found(result, "torch_dtype").outcome == "changed"
    assert result.profile["revision"] == "abc"
    assert found(result, "token").value == "(hidden)"


def test_checkpoint_in_a_parameter(tmp_path: Path) -> None:
    """A parameter that names the checkpoint is surer than a default in the code."""
    said = 'parameters { key: "model_id" value { string_value: "google/gemma-3-1b-it" } }'
    result = imported(python_backend(tmp_path, PYTHON_CONFIG + said))
    assert became(result, "parameters model_id") == "renamed model: google/gemma-3-1b-it"
    assert "# From parameters model_id in config.pbxt.\nmodel: google/gemma-3-1b-it" in result.text


def test_checkpoint_of_the_tokenizer_alone(tmp_path: Path) -> None:
    """The tokenizer's name is taken where the model's does not stand in the file."""
    code = "M.from_pretrained(path)\nAutoTokenizer.from_pretrained('google/gemma-3-1b-it')"
    assert imported(python_backend(tmp_path, code=code)).profile["model"] == "google/gemma-3-1b-it"


def test_adapter_in_the_code(tmp_path: Path) -> None:
    """An adapter is never taken for the model, and has a place in a profile."""
    code = "M.from_pretrained('google/gemma-2-2b-it')\nPeftModel.from_pretrained('org/adapter')"
    result = imported(python_backend(tmp_path, code=code))
    assert result.profile["model"] == "google/gemma-2-2b-it"
    assert found(result, "PeftModel on line 2").reason == (
        "name the adapter's directory in lora.adapters"
    )


@pytest.mark.parametrize("directory", ["/models/gemma", "./gemma", "~/gemma"])
def test_local_directory(tmp_path: Path, directory: str) -> None:
    """A directory stays one, and must be there where gemma-serve runs."""
    result = imported(python_backend(tmp_path, code=f"M.from_pretrained({directory!r})"))
    assert result.profile["model"] == directory
    assert found(result, "M on line 1").reason == (
        "a local directory: it must be there where gemma-serve runs"
    )


def test_not_gemma(tmp_path: Path) -> None:
    """Another model is imported too; the finding says who will refuse it."""
    result = imported(python_backend(tmp_path, code="M.from_pretrained('org/llama')"))
    assert "gemma-serve check refuses" in found(result, "M on line 1").reason


NOT_SAID = "; say it with --hf-model, for example --hf-model google/gemma-3-4b-it."


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "M.from_pretrained(path)",
            "The files of 'gemma' do not say which checkpoint it loads (the parameters of "
            f"config.pbxt, the strings of 1/model.py){NOT_SAID}",
        ),
        (
            "def f(:",
            "The files of 'gemma' do not say which checkpoint it loads (the parameters of "
            "config.pbxt, 1/model.py: It is not valid Python (invalid syntax on line 1))"
            f"{NOT_SAID}",
        ),
        (
            b"\xff\xfe",
            "The files of 'gemma' do not say which checkpoint it loads (the parameters of "
            "config.pbxt, 1/model.py: The byte 0xff is not UTF-8; save the file as UTF-8)"
            f"{NOT_SAID}",
        ),
        (
            "M.from_pretrained('a/gemma')\nM.from_pretrained('b/gemma')",
            "1/model.py of 'gemma' names several checkpoints (a/gemma, b/gemma); choose one with "
            "--hf-model.",
        ),
    ],
)
def test_checkpoint_that_is_not_known(tmp_path: Path, code: str | bytes, message: str) -> None:
    """No or several checkpoints: the line says where was looked, and how to say it."""
    python_backend(tmp_path, code=code)
    assert refusal(tmp_path) == message
    result = imported(tmp_path, hf_model="google/gemma-3-4b-it")
    assert result.profile["model"] == "google/gemma-3-4b-it"


def test_hf_model_wins(tmp_path: Path) -> None:
    """What the user says wins over what the files say, and they are not silently ignored."""
    result = imported(python_backend(tmp_path), hf_model="google/gemma-3-4b-it")
    assert result.profile["model"] == "google/gemma-3-4b-it"
    assert found(result, "AutoModelForCausalLM on line 14").reason == "--hf-model says another"
    assert refusal(tmp_path, hf_model="") == (
        "(command line): --hf-model can't be taken over: model must be a string that is not empty, "
        "not ''."
    )


def test_tensors_in_the_code(tmp_path: Path) -> None:
    """A python backend that declares its tensors in model.py is known by their names in there."""
    code = MODEL_PY + "\nINPUTS = ['text_input', 'top_k']\nOUTPUTS = ['text_output']\n"
    result = imported(python_backend(tmp_path, 'backend: "python"', code))
    assert result.profile["triton"]["contract"] == "python-backend"
    write_files(tmp_path, {"bare/1/model.py": code})
    result = imported(tmp_path / "bare")
    assert found(result, "(the file)").value == "missing"
    assert became(result, "backend") == "renamed triton.contract: python-backend"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """A token among the parameters is neither printed nor written."""
    token = "hf_" + "a" * 30
    said = (
        f'parameters {{ key: "HF_TOKEN" value {{ string_value: "{token}" }} }}'
        f'parameters {{ key: "anything" value {{ string_value: "{token}" }} }}'
    )
    result = imported(python_backend(tmp_path, PYTHON_CONFIG + said))
    assert found(result, "parameters HF_TOKEN").value == "(hidden)"
    assert token not in f"{result.text}{result.findings}"


# --- the fields of a model configuration


def test_dynamic_batching(tmp_path: Path) -> None:
    """Priorities and the queue's length are taken over; the batches are vLLM's business."""
    said = """
    dynamic_batching {
      preferred_batch_size: [ 4, 8 ]
      max_queue_delay_microseconds: 100
      priority_levels: 3
      default_priority_level: 2
      default_queue_policy { max_queue_size: 64 default_timeout_microseconds: 10 }
      priority_queue_policy { key: 1 value { max_queue_size: 3 } }
    }
    """
    result = imported(python_backend(tmp_path, PYTHON_CONFIG + said))
    prefix = "dynamic_batching"
    assert result.profile["triton"]["default_priority_level"] == 2
    assert result.profile["limits"] == {"max_queued_requests": 64}
    assert found(result, f"{prefix}.preferred_batch_size").value == "4, 8"
    assert found(result, f"{prefix}.max_queue_delay_microseconds").outcome == "dropped"
    assert found(result, f"{prefix}.priority_levels").outcome == "dropped"
    assert found(result, f"{prefix}.priority_queue_policy").value == "1"
    policy = f"{prefix}.default_queue_policy"
    assert found(result, f"{policy}.max_queue_size").outcome == "changed"
    assert found(result, f"{policy}.default_timeout_microseconds").outcome == "dropped"


def test_instance_groups(tmp_path: Path) -> None:
    """Every group is named, and GPUs have their variable."""
    said = "instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_GPU gpus: [ 0, 1 ] } ]"
    config = PYTHON_CONFIG.replace("instance_group [ { count: 1 kind: KIND_GPU } ]", said)
    result = imported(python_backend(tmp_path, config))
    assert found(result, "instance_group[0].kind").value == "KIND_CPU"
    assert found(result, "instance_group[1].gpus").value == "0, 1"
    assert "CUDA_VISIBLE_DEVICES" in found(result, "instance_group[1].gpus").reason


def test_versions(tmp_path: Path) -> None:
    """The highest available version is served; requests for the others are told apart."""
    python_backend(tmp_path, PYTHON_CONFIG + "version_policy { all {} }")
    write_files(tmp_path, {"gemma/2/model.py": MODEL_PY.replace("2-2b", "2-9b")})
    result = imported(tmp_path)
    assert result.profile["triton"]["model_version"] == "2"
    assert result.profile["model"] == "google/gemma-2-9b-it"
    assert found(result, "(version)", "1/").reason == (
        "one version is served: a request that names 1 gets 404"
    )


def test_version_that_no_profile_can_have(tmp_path: Path) -> None:
    """A version that is a date and a time is too long for a profile, and says so."""
    write_files(tmp_path, {"gemma/config.pbtxt": PYTHON_CONFIG})
    write_files(tmp_path, {"gemma/20240131120000/model.py": MODEL_PY})
    result = imported(tmp_path)
    assert "model_version" not in result.profile["triton"]
    assert found(result, "(version)").outcome == "dropped"


def test_name_that_is_not_the_directory(tmp_path: Path) -> None:
    """Triton wants the name to be the directory's; that one is kept."""
    config = PYTHON_CONFIG.replace('name: "gemma"', 'name: "other"', 1)
    result = imported(python_backend(tmp_path, config))
    assert result.profile["served_model_name"] == "gemma"
    assert found(result, "name").reason == (
        "the directory is 'gemma', and Triton wants both to be equal"
    )


@pytest.mark.parametrize("text", ["TRUE", " 1 ", "on"])
def test_trace_is_a_boolean(tmp_path: Path, text: str) -> None:
    """Parameters are strings, also those that mean true."""
    config = PYTHON_CONFIG.replace('"true"', f'"{text}"')
    profile = imported(python_backend(tmp_path, config)).profile
    assert profile["triton"]["inference_trace"] is True


def test_trace_that_is_no_boolean(tmp_path: Path) -> None:
    """A word that is neither true nor false is dropped, and said."""
    result = imported(python_backend(tmp_path, PYTHON_CONFIG.replace('"true"', '"maybe"')))
    assert "inference_trace" not in result.profile["triton"]
    assert became(result, "parameters enable_inference_trace") == "dropped"


CONFIG_FIELDS = list(model_config_pb2.ModelConfig.DESCRIPTOR.fields)


def test_every_field_has_a_handler() -> None:
    """The protobuf has no field that the importer has not thought of."""
    assert set(HANDLERS) == {field.name for field in CONFIG_FIELDS}


@pytest.mark.parametrize(
    ("message", "reasons", "elsewhere"),
    [
        ("ModelInstanceGroup", INSTANCE_GROUP, set()),
        (
            "ModelDynamicBatching",
            DYNAMIC_BATCHING,
            {"default_priority_level", "default_queue_policy"},
        ),
        ("ModelQueuePolicy", QUEUE_POLICY, {"max_queue_size"}),
    ],
)
def test_every_inner_field_has_a_reason(
    message: str, reasons: Mapping[str, str], elsewhere: set[str]
) -> None:
    """Nor have the messages of which each field is reported."""
    fields = model_config_pb2.DESCRIPTOR.message_types_by_name[message].fields
    assert {*reasons, *elsewhere} == {field.name for field in fields}


def with_field(field: Any) -> Any:
    """A configuration in which one field is set, to what it is not by default."""
    config = model_config_pb2.ModelConfig()
    kind, value = field.message_type, getattr(config, field.name)
    if kind and kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"].message_type
        if inner:
            value["key"].SetInParent()
        else:
            value["key"] = "value"
    elif kind and hasattr(value, "add"):
        value.add()
    elif kind:
        value.SetInParent()
    else:
        setattr(config, field.name, 7 if isinstance(value, int) else "word")
    assert [each.name for each, _ in config.ListFields()] == [field.name]
    return config


@pytest.mark.parametrize("field", CONFIG_FIELDS, ids=lambda field: field.name)
@pytest.mark.parametrize("contract", CONTRACTS)
def test_no_field_is_forgotten(tmp_path: Path, field: Any, contract: str) -> None:
    """Whatever a configuration sets has a finding that names it and gives a reason."""
    draft = Draft()
    model = ModelDirectory("m", tmp_path, with_field(field), "config.pbtxt", (1, 2))
    import_config(Configuration(draft, model, CONTRACTS[contract]))
    mine = [each for each in draft.findings if each.setting.startswith(field.name)]
    assert mine
    assert all(each.reason for each in mine)


# --- the vLLM backend


def test_vllm_sample(tmp_path: Path) -> None:
    """The sample of Triton's vLLM backend, with a Gemma."""
    args = {**GEMMA, "gpu_memory_utilization": 0.1, "enforce_eager": True}
    result = imported(vllm_backend(tmp_path / "model_repository", args), fields=FIELDS)
    assert result.text == (
        "# Imported by gemma-serve import-triton: model vllm_model of the Triton model repository\n"
        "# model_repository.\n"
        "model: google/gemma-3-4b-it\n"
        "served_model_name: vllm_model\n"
        "server:\n"
        "  # As Triton listens. No key is asked for unless GEMMA_SERVE_API_KEYS or api_keys_file "
        "says so.\n"
        "  host: 0.0.0.0\n"
        "  port: 8000\n"
        "  grpc_port: 8001\n"
        "  metrics_port: 8002\n"
        "triton:\n"
        "  contract: vllm-backend\n"
        '  model_version: "1"\n'
        "engine:\n"
        "  gpu_memory_utilization: 0.1\n"
        "  enforce_eager: true\n"
    )


def test_vllm_without_a_configuration(tmp_path: Path) -> None:
    """The vLLM backend completes its configuration; so does the importer."""
    result = imported(vllm_backend(tmp_path, GEMMA, config=None), fields=FIELDS)
    assert result.profile["triton"]["contract"] == "vllm-backend"
    assert found(result, "(the file)").reason.startswith("there is none")


@pytest.mark.parametrize(
    ("args", "profile", "outcome"),
    [
        ({"dtype": "half"}, {"dtype": "bf16"}, "changed"),
        ({"dtype": "float16"}, {"dtype": "bf16"}, "changed"),
        ({"dtype": "auto"}, {"dtype": "bf16"}, "renamed"),
        ({"dtype": "bfloat16"}, {"dtype": "bf16"}, "renamed"),
        ({"dtype": "float32"}, {"dtype": "fp32"}, "renamed"),
        ({"dtype": "int3"}, {}, "dropped"),
        ({"quantization": "fp8"}, {"dtype": "fp8"}, "renamed"),
        ({"quantization": "awq"}, {"engine": {"quantization": "awq"}}, "kept"),
        ({"quantization": None}, {}, "dropped"),
        ({"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "fp8"}, "kept"),
        ({"kv_cache_dtype": "fp8_e4m3"}, {"kv_cache_dtype": "fp8"}, "renamed"),
        ({"kv_cache_dtype": "fp8_e5m2"}, {"engine": {"kv_cache_dtype": "fp8_e5m2"}}, "kept"),
        ({"tensor_parallel_size": 2}, {"tensor_parallel_size": 2}, "kept"),
        ({"tensor_parallel_size": "2"}, {"tensor_parallel_size": 2}, "changed"),
        ({"tensor_parallel_size": "two"}, {}, "dropped"),
        ({"max_model_len": 4096}, {"max_model_len": 4096}, "kept"),
        ({"max_model_len": -1}, {"engine": {"max_model_len": -1}}, "kept"),
        ({"revision": "abc"}, {"revision": "abc"}, "kept"),
        ({"tokenizer": "a/b"}, {"tokenizer": "a/b"}, "kept"),
        ({"distributed_executor_backend": "ray"}, {"distributed_executor_backend": "ray"}, "kept"),
        (
            {"distributed_executor_backend": "uni"},
            {"engine": {"distributed_executor_backend": "uni"}},
            "kept",
        ),
        ({"limit_mm_per_prompt": {"image": 2}}, {"images_per_prompt": 2}, "renamed"),
        (
            {"limit_mm_per_prompt": {"image": {"count": 2}}},
            {"engine": {"limit_mm_per_prompt": {"image": {"count": 2}}}},
            "kept",
        ),
        ({"max_num_queued_reqs": 9}, {"limits": {"max_queued_requests": 9}}, "renamed"),
        (
            {"speculative_config": {"method": "ngram"}},
            {"speculative": {"method": "ngram"}},
            "renamed",
        ),
        (
            {"speculative_config": '{"method": "ngram"}'},
            {"speculative": {"method": "ngram"}},
            "changed",
        ),
        ({"language_model_only": True}, {"text_only": True}, "renamed"),
        ({"enforce_eager": "True"}, {"engine": {"enforce_eager": True}}, "changed"),
        ({"max_num_seqs": "many"}, {}, "dropped"),
        (
            {"hf_overrides": {"a": [1, {"b": None}]}},
            {"engine": {"hf_overrides": {"a": [1, {"b": None}]}}},
            "kept",
        ),
        ({"hf_overrides": {"api_key": "x"}}, {}, "dropped"),
        ({"trust_remote_code": True}, {}, "dropped"),
        ({"served_model_name": "x"}, {}, "dropped"),
        ({"hf_token": "x"}, {}, "dropped"),
        ({"disable_log_stats": True}, {}, "dropped"),
        ({"disable_log_requests": True}, {}, "dropped"),
        ({"swap_space": 4}, {}, "dropped"),
        ({"no_such": 4}, {}, "dropped"),
        ({"revision": "a\0b"}, {}, "dropped"),
        ({"revision": "\ud800"}, {}, "dropped"),
    ],
    ids=str,
)
def test_engine_arguments(
    tmp_path: Path, args: dict[str, Any], profile: dict[str, Any], outcome: str
) -> None:
    """Each argument has its place in the profile, or its reason for having none."""
    plain = imported(vllm_backend(tmp_path / "plain", GEMMA), fields=FIELDS).profile
    result = imported(vllm_backend(tmp_path / "with", {**GEMMA, **args}), fields=FIELDS)
    assert {key: value for key, value in result.profile.items() if plain.get(key) != value} == (
        profile
    )
    [name] = args
    assert found(result, name).outcome == outcome
    assert found(result, name).reason


def test_fp8_beside_a_dtype(tmp_path: Path) -> None:
    """quantization fp8 is dtype fp8, whatever dtype said; one of the two is dropped aloud."""
    args = {**GEMMA, "dtype": "half", "quantization": "fp8"}
    result = imported(vllm_backend(tmp_path, args), fields=FIELDS)
    assert result.profile["dtype"] == "fp8"
    assert found(result, "dtype").reason == "dtype: fp8 is said already"


def test_removed_argument_says_what_took_its_place(tmp_path: Path) -> None:
    """An argument that vLLM had once is dropped with its successor; an unknown one plainly."""
    args = {**GEMMA, "worker_use_ray": True, "no_such": 1}
    result = imported(vllm_backend(tmp_path, args), fields=FIELDS)
    assert found(result, "worker_use_ray").reason == (
        "vLLM calls it distributed_executor_backend: ray"
    )
    assert found(result, "no_such").reason == "the installed vLLM has no such argument"


def test_without_vllm(tmp_path: Path) -> None:
    """Where no vLLM is installed, arguments are passed on but for those known to be gone."""
    args = {**GEMMA, "max_num_seqs": 4, "swap_space": 4}
    result = imported(vllm_backend(tmp_path, args))
    assert result.profile["engine"] == {"max_num_seqs": 4}
    assert found(result, "max_num_seqs").reason == (
        "passed on unchecked: no vLLM is installed here"
    )
    assert found(result, "swap_space").outcome == "dropped"


def test_removed_arguments_are_removed() -> None:
    """What we say vLLM has no more, the installed vLLM has not."""
    installed = installed_vllm(cache_dir())
    if installed is None:
        pytest.skip("vLLM is not installed")
    assert not REMOVED_ENGINE_ARGS.keys() & installed.fields.keys()


def test_lora(tmp_path: Path) -> None:
    """enable_lora and multi_lora.json become lora, with the sizes as numbers."""
    args = {**GEMMA, "enable_lora": "true", "max_lora_rank": "32", "max_loras": 2}
    adapters = {"sql": "/adapters/sql", "on": "/adapters/on"}
    result = imported(vllm_backend(tmp_path, args, adapters=adapters), fields=FIELDS)
    assert result.profile["lora"] == {"adapters": adapters, "max_loras": 2, "max_lora_rank": 32}
    assert became(result, "enable_lora") == "renamed lora.adapters: a map of 2"
    assert found(result, "sql", "1/multi_lora.json").outcome == "kept"


@pytest.mark.parametrize("enable", [False, "false", None, True])
def test_no_lora(tmp_path: Path, enable: Any) -> None:
    """Without adapters, or not enabled, nothing of LoRA is left, and each part says so."""
    adapters = None if enable is True else {"sql": "/adapters/sql"}
    args = {**GEMMA, "enable_lora": enable, "max_loras": 2}
    result = imported(vllm_backend(tmp_path, args, adapters=adapters), fields=FIELDS)
    assert "lora" not in result.profile
    assert {found(result, name).outcome for name in ("enable_lora", "max_loras")} == {"dropped"}
    assert adapters is None or found(result, "(the file)").reason == (
        "enable_lora is not true in model.json"
    )


def test_broken_adapters(tmp_path: Path) -> None:
    """An adapter without a directory is refused, since a client would miss it."""
    vllm_backend(tmp_path, {**GEMMA, "enable_lora": True})
    write_files(tmp_path, {"vllm_model/1/multi_lora.json": '{"sql": 3}'})
    assert refusal(tmp_path, fields=FIELDS) == (
        "vllm_model/1/multi_lora.json has an adapter that can't be served: lora.adapters.sql must "
        'be a string, not 3; put it in quotes: "3".'
    )


def test_vllm_parameters(tmp_path: Path) -> None:
    """What the vLLM backend switches on by parameters is always on."""
    said = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "true" }} }}'
        for key in ("REPORT_CUSTOM_METRICS", "ENABLE_VLLM_HEALTH_CHECK")
    )
    result = imported(vllm_backend(tmp_path, GEMMA, VLLM_CONFIG + said), fields=FIELDS)
    assert found(result, "parameters REPORT_CUSTOM_METRICS").reason.startswith("always on")
    assert found(result, "parameters ENABLE_VLLM_HEALTH_CHECK").reason.startswith("always on")


def test_gpus_of_the_vllm_backend(tmp_path: Path) -> None:
    """Which GPUs the backend took is a matter of the environment here."""
    said = 'parameters { key: "GPU_DEVICE_IDS" value { string_value: "0,1" } }'
    result = imported(vllm_backend(tmp_path, GEMMA, VLLM_CONFIG + said), fields=FIELDS)
    gpus = found(result, "parameters GPU_DEVICE_IDS")
    assert (gpus.outcome, gpus.value) == ("dropped", "0,1")
    assert gpus.reason == "set CUDA_VISIBLE_DEVICES in the server's environment"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"model":\n"a" "b"}',
            "vllm_model/1/model.json:2: This is not valid JSON (Expecting ',' delimiter); mend it.",
        ),
        (
            "{}",
            "The files of 'vllm_model' do not say which checkpoint it loads (the parameters of "
            f"config.pbtxt, 1/model.json){NOT_SAID}",
        ),
        (
            '{"model": 3}',
            "1/model.json: model can't be taken over: model must be a string that is not empty, "
            'not 3; put it in quotes: "3".',
        ),
    ],
)
def test_broken_engine_arguments(tmp_path: Path, text: str, message: str) -> None:
    """A model.json without a usable model is one line."""
    assert refusal(vllm_backend(tmp_path, text), fields=FIELDS) == message


def test_no_engine_arguments(tmp_path: Path) -> None:
    """The vLLM backend needs its model.json."""
    write_files(tmp_path, {"vllm_model/config.pbtxt": VLLM_CONFIG, "vllm_model/1/": ""})
    assert refusal(tmp_path, fields=FIELDS) == (
        "vllm_model/1/model.json: This is no file that can be read; is it a broken link?"
    )


# --- TensorRT-LLM


def test_tensorrt_llm(tmp_path: Path) -> None:
    """Of the five models the ensemble is served, under its own name and the script's."""
    result = imported(tensorrt_llm(tmp_path))
    assert result.profile["served_model_name"] == ["ensemble", "tensorrt_llm_bls"]
    assert result.profile["model"] == "/models/gemma-2-9b-it"
    assert result.profile["triton"] == {
        "contract": "tensorrtllm",
        "model_version": "1",
        "default_inputs": {"exclude_input_in_output": True},
    }
    assert result.profile["limits"] == {"max_queued_requests": 256}
    engine = "tensorrt_llm/config.pbtxt"
    assert found(result, "parameters gpt_model_path", engine).outcome == "dropped"
    assert found(result, "parameters max_beam_width", engine).reason == (
        "the template's placeholder was never filled in, so it said nothing"
    )
    assert found(result, "(the other fields)", engine).value == (
        "name, max_batch_size, input, output, backend"
    )
    assert found(result, "(the other fields)", "tensorrt_llm_bls/config.pbtxt").reason == (
        "the same engine answers under this name too, as the model that was imported"
    )
    assert found(result, "input lora_task_id").outcome == "dropped"
    assert found(result, "output context_logits").outcome == "dropped"
    assert not [each for each in result.findings if each.setting == "other model"]


def test_script_of_another_engine_is_no_alias(tmp_path: Path) -> None:
    """A model with the same tensors and another engine is not answered by this one."""
    bls = BLS_CONFIG.replace('string_value: "tensorrt_llm"', 'string_value: "other_engine"')
    other = ENGINE_CONFIG.replace('name: "tensorrt_llm"', 'name: "other_engine"')
    tensorrt_llm(tmp_path, tensorrt_llm_bls=bls, other_engine=other)
    result = imported(tmp_path, model="ensemble")
    assert result.profile["served_model_name"] == "ensemble"
    assert {each.value for each in result.findings if each.setting == "other model"} == {
        "other_engine",
        "tensorrt_llm_bls",
    }


def test_script_by_name(tmp_path: Path) -> None:
    """The script can be imported by its name; the ensemble's clients are answered too."""
    result = imported(tensorrt_llm(tmp_path), model="tensorrt_llm_bls")
    assert result.profile["served_model_name"] == ["tensorrt_llm_bls", "ensemble"]


# --- which model


def test_the_one_that_can_be_served(tmp_path: Path) -> None:
    """Among models of other backends and broken ones, the Gemma is found; the rest is named."""
    python_backend(tmp_path)
    onnx = 'platform: "onnxruntime_onnx"'
    write_files(tmp_path, {"onnx/config.pbtxt": onnx, "bad/config.pbtxt": "?", "onnx/1/": ""})
    result = imported(tmp_path)
    assert result.model_name == "gemma"
    assert [each.value for each in result.findings if each.setting == "other model"] == [
        "bad",
        "onnx",
    ]


def test_gemma_among_others(tmp_path: Path) -> None:
    """Of several that could be served, the one whose checkpoint says Gemma."""
    python_backend(tmp_path, name="one", code="M.from_pretrained('org/llama')")
    python_backend(tmp_path, name="two")
    assert imported(tmp_path).model_name == "two"


def test_two_gemmas(tmp_path: Path) -> None:
    """Of two Gemmas the user chooses."""
    python_backend(python_backend(tmp_path, name="one"), name="two")
    assert refusal(tmp_path) == (
        "Several models could be served (one, two); choose one with --model."
    )
    assert imported(tmp_path, model="two").model_name == "two"


def test_unknown_model(tmp_path: Path) -> None:
    """A misspelt name gets the closest one; any other all there are."""
    tensorrt_llm(tmp_path)
    assert refusal(tmp_path, model="ensembel") == (
        "The repository has no model 'ensembel'; the closest is 'ensemble'."
    )
    assert refusal(tmp_path, model="zzz") == (
        "The repository has no model 'zzz'; use ensemble, postprocessing, preprocessing, "
        "tensorrt_llm, tensorrt_llm_bls."
    )


def test_broken_model_by_name(tmp_path: Path) -> None:
    """A broken configuration is named with its line, also where others are whole."""
    python_backend(tmp_path)
    write_files(tmp_path, {"bad/config.pbtxt": "\nbackned: 1"})
    assert refusal(tmp_path, model="bad").startswith("bad/config.pbtxt:2: ")


PLACE = "gemma-serve takes the place of python, vllm, tensorrtllm or an ensemble of TensorRT-LLM"
STEP = "step [ { model_name: 'a' model_version: -1 } ]"


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ('platform: "onnxruntime_onnx"', f"has the backend 'onnxruntime_onnx'; {PLACE}"),
        ('backend: "pytorch"', f"has the backend 'pytorch'; {PLACE}"),
        ("max_batch_size: 4", f"names no backend; {PLACE}"),
        (
            'backend: "python" input [ { name: "IMAGE" }, { name: "SIZE" } ]',
            "takes IMAGE, SIZE and has no text_input",
        ),
        ('backend: "python"', "declares no inputs and has no text_input"),
        (
            'backend: "python" input [ { name: "text_input" } ] output [ { name: "EMBEDDING" } ]',
            "gives EMBEDDING and has no text_output",
        ),
        (
            f'platform: "ensemble" ensemble_scheduling {{ {STEP} }}',
            "is an ensemble of a, which is not TensorRT-LLM's",
        ),
        (
            ENGINE_CONFIG,
            "takes token ids; name the model that takes text_input, such as ensemble",
        ),
    ],
)
def test_foreign_model(tmp_path: Path, config: str, what: str) -> None:
    """A model that gemma-serve can't stand in for is one line that says why."""
    write_files(tmp_path, {"m/config.pbtxt": config, "m/1/": ""})
    assert refusal(tmp_path) == f"The model 'm' can't be imported: it {what}."


def test_only_foreign_models(tmp_path: Path) -> None:
    """Several models and none that can be served: all are named."""
    for name in ("a", "b"):
        write_files(tmp_path, {f"{name}/config.pbtxt": 'backend: "pytorch"', f"{name}/1/": ""})
    assert refusal(tmp_path) == (
        "None of the models a, b can be served (python, vllm, tensorrtllm or an ensemble of "
        "TensorRT-LLM with text_input); name one with --model to see why."
    )


# --- the text of a profile


@pytest.mark.parametrize("text", ["1e5", "010", "on", "null", "", "a: b", "#x", " x", "a\nb", "1"])
def test_text_stays_text(text: str) -> None:
    """What YAML would read as something else is put in quotes."""
    written = profile_text("title", {"model": "m", "revision": text}, {})
    assert yaml.safe_load(written)["revision"] == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Any text that a profile may hold is read back as it was; no comment can break out."""
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    values = {"model": "m", "revision": text, "engine": {"hf_overrides": {text: [text]}}}
    file.write_text(profile_text(text, values, {("model",): text}), encoding="utf-8")
    assert load_profile(str(file)).profile.model_dump(exclude_unset=True) == values


# --- the command


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`gemma-serve import-triton WORDS`, to its end."""
    command = [sys.executable, "-m", "gemma_serve", "import-triton", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=BOUND_S, check=False
    )


def test_command(tmp_path: Path) -> None:
    """The profile is written to ./MODEL.yaml and shown, with the findings; then comes what next."""
    done = run(python_backend(tmp_path / "models"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "gemma.yaml").read_text()
    assert done.stdout.startswith(written)
    assert "triton.inference_trace" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "Written to gemma.yaml. Next: gemma-serve check gemma.yaml, then gemma-serve serve "
        "gemma.yaml"
    )
    assert str(tmp_path) not in written
    assert load_profile(str(tmp_path / "gemma.yaml")).profile.server.grpc_port == 8001


def test_command_as_json(tmp_path: Path) -> None:
    """--json prints profile, findings and file, and nothing else."""
    repository = vllm_backend(tmp_path / "models", {**GEMMA, "swap_space": 4, "max_num_seqs": 8})
    done = run(repository, "--json", "--output", "out.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["output"] == "out.yaml"
    assert report["profile"]["engine"] == {"max_num_seqs": 8}
    assert yaml.safe_load((tmp_path / "out.yaml").read_text()) == report["profile"]
    [swap] = [each for each in report["findings"] if each["setting"] == "swap_space"]
    assert swap == {
        "file": "1/model.json",
        "setting": "swap_space",
        "value": "4",
        "outcome": "dropped",
        "target": None,
        "reason": "vLLM does not swap the KV cache; it computes again",
    }


def test_command_does_not_overwrite(tmp_path: Path) -> None:
    """A file that is there stays, unless --force is said."""
    repository = python_backend(tmp_path / "models")
    (tmp_path / "gemma.yaml").write_text("mine")
    done = run(repository, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "gemma-serve: 'gemma.yaml' is there already; name another file with --output, or replace "
        "it with --force.\n",
    )
    assert (tmp_path / "gemma.yaml").read_text() == "mine"
    assert run(repository, "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "gemma.yaml").read_text() != "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gemma.yaml", "models"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("models", "--output 'models' is a directory; name a file in it."),
        (
            "nosuch/p.yaml",
            "The profile can't be written to 'nosuch/p.yaml': No such file or directory.",
        ),
    ],
)
def test_output_that_cannot_be(tmp_path: Path, output: str, message: str) -> None:
    """A place where no file can be written is one line."""
    done = run(python_backend(tmp_path / "models"), "--output", output, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"gemma-serve: {message}\n")


def test_command_refuses_in_one_line(tmp_path: Path) -> None:
    """What can't be imported is exit code 2 and one line, and nothing is written."""
    write_files(tmp_path, {"models/m/config.pbtxt": 'backend: "pytorch"', "models/m/1/": ""})
    done = run("models", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"gemma-serve: The model 'm' can't be imported: it has the backend "
        f"'pytorch'; {PLACE}.\n"
    )
    assert not (tmp_path / "m.yaml").exists()


def test_profile_that_would_not_load_is_not_written(tmp_path: Path) -> None:
    """Values too deep for a profile are refused by the profile's own reader, before a file is."""
    deep: Any = 1
    for _ in range(60):
        deep = {"a": deep}
    repository = vllm_backend(tmp_path / "models", {**GEMMA, "hf_overrides": deep})
    done = run(repository, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "gemma-serve: No profile can be made of 'vllm_model': The YAML is nested deeper"
    )
    assert not (tmp_path / "vllm_model.yaml").exists()


def test_help_needs_no_protobuf() -> None:
    """The command's own imports wait until it runs."""
    code = (
        "import sys, gemma_serve.cli; "
        "sys.exit(any(name in sys.modules for name in ('tritonclient', 'google.protobuf')))"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=BOUND_S, check=False)
    assert done.returncode == 0
