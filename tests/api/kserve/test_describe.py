"""The model configuration as Triton writes it; no engine."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from gemma_serve.api.kserve.describe import model_config
from gemma_serve.profile.schema import Triton
from gemma_serve.triton.contracts import CONTRACTS

# Of a python backend's model; a oneof that nothing sets (its batching) is not shown.
KEYS = {
    *("name", "platform", "backend", "runtime", "version_policy", "max_batch_size", "input"),
    *("output", "batch_input", "batch_output", "optimization", "instance_group"),
    *("default_model_filename", "cc_model_filenames", "metric_tags", "parameters"),
    *("model_warmup", "model_transaction_policy"),
}


def config_of(contract: str) -> dict[str, Any]:
    """The configuration of a model of this contract."""
    return model_config(CONTRACTS[contract], "m", Triton())


def test_python_backend() -> None:
    """Every field of Triton's own JSON is there, at Triton's default."""
    config = config_of("python-backend")
    assert config.keys() >= KEYS
    assert config["input"][1] == {
        "name": "max_length",
        "data_type": "TYPE_INT32",
        "format": "FORMAT_NONE",
        "dims": [1],
        "is_shape_tensor": False,
        "allow_ragged_batch": False,
        "optional": True,
        "is_non_linear_format_io": False,
    }
    assert config["output"][0] == {
        "name": "text_output",
        "data_type": "TYPE_STRING",
        "dims": [-1],
        "label_filename": "",
        "is_shape_tensor": False,
        "is_non_linear_format_io": False,
    }
    assert config["optimization"] == {
        "priority": "PRIORITY_DEFAULT",
        "input_pinned_memory": {"enable": True},
        "output_pinned_memory": {"enable": True},
        "gather_kernel_buffer_threshold": 0,
        "eager_batching": False,
    }
    assert (config["batch_input"], config["model_warmup"]) == ([], [])
    assert (config["cc_model_filenames"], config["metric_tags"]) == ({}, {})
    assert config["default_model_filename"] == "model.py"
    assert config["instance_group"][0]["gpus"] == []


@pytest.mark.parametrize(
    ("contract", "decoupled"),
    [("python-backend", False), ("vllm-backend", True), ("tensorrtllm", True)],
)
def test_the_same_over_grpc(contract: str, decoupled: bool) -> None:
    """The JSON is a ModelConfig, and says whether the original is decoupled."""
    config = config_of(contract)
    message = json_format.ParseDict(config, ModelConfig())
    assert message.model_transaction_policy.decoupled is decoupled
    assert config["model_transaction_policy"] == {"decoupled": decoupled}
    assert list(message.input[0].dims) == config["input"][0]["dims"]
