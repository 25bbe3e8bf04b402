"""What the model is, in the words of KServe's metadata and of Triton's model configuration."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from gemma_serve import __version__
from gemma_serve.profile.schema import Triton
from gemma_serve.triton.contracts import Contract, TensorSpec
from gemma_serve.triton.contracts.check import declared_shape

EXTENSIONS = (
    "binary_tensor_data",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)


def server_metadata() -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "gemma-serve", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(contract: Contract, model: str, version: str) -> dict[str, Any]:
    """The model's name, version, platform, inputs and outputs."""

    def tensor(spec: TensorSpec) -> dict[str, Any]:
        return {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": declared_shape(contract, spec),
        }

    return {
        "name": model,
        "versions": [version],
        "platform": contract.backend,
        "inputs": [tensor(spec) for spec in contract.inputs],
        "outputs": [tensor(spec) for spec in contract.outputs],
    }


def model_config(contract: Contract, model: str, settings: Triton) -> dict[str, Any]:
    """
    The model configuration as Triton shows it: with every field, those at their default too.

    Source: model_config.proto of triton-inference-server/common; ModelConfigToJson and
    NormalizeModelConfig of triton-inference-server/core.
    """

    def tensor(spec: TensorSpec) -> dict[str, Any]:
        data_type = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
        return {"name": spec.name, "data_type": data_type, "dims": list(spec.dims)}

    trace = {"string_value": str(settings.inference_trace).lower()}
    said = {
        "name": model,
        "platform": "",
        "backend": contract.backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": contract.max_batch_size,
        "input": [tensor(spec) | {"optional": spec.optional} for spec in contract.inputs],
        "output": [tensor(spec) for spec in contract.outputs],
        "instance_group": [{"name": f"{model}_0", "kind": "KIND_MODEL", "count": 1}],
        "parameters": {"enable_inference_trace": trace},
        "optimization": {
            "input_pinned_memory": {"enable": True},
            "output_pinned_memory": {"enable": True},
        },
        "default_model_filename": "model.py" if contract.backend == "python" else "",
        "model_transaction_policy": {"decoupled": contract.decoupled},
    }
    return _with_defaults(said)


def _with_defaults(said: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = json_format.MessageToDict(
        json_format.ParseDict(said, ModelConfig()),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    for tensor in (*whole["input"], *whole["output"]):
        # As in Triton: protobuf would write 64-bit integers as strings.
        tensor["dims"] = [int(size) for size in tensor["dims"]]
    return whole
