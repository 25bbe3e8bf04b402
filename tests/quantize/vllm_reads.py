"""
What vLLM makes of quantised checkpoints, without an engine: python -m tests.quantize.vllm_reads

Reads a JSON list of directories from standard input. Of each it builds vLLM's own model on this
CPU, by vLLM's own reading of config.json, and lets it load the weights: kernels are chosen and
weights stored, and nothing is computed. Prints a JSON list of what it found, and writes what each
model holds to DIRECTORY.safetensors. In a process of its own, as vLLM's distributed state is one
for a process.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gemma_serve.engine.vllm import engine


def read(directory: str, store: str) -> dict[str, Any]:
    """What runs each module, and the parameters without a weight; or why there is no model."""
    args = engine.AsyncEngineArgs(model=directory, enforce_eager=True, max_model_len=1024)
    config = args.create_engine_config(engine.UsageContext.OPENAI_API_SERVER)
    distributed = import_module("vllm.distributed")
    bf16 = import_module("vllm.utils.torch_utils").set_default_torch_dtype(torch.bfloat16)
    with import_module("vllm.config").set_current_vllm_config(config), bf16:
        distributed.init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
        distributed.ensure_model_parallel_initialized(1, 1)
        try:
            model = import_module("vllm.model_executor.model_loader.utils").initialize_model(config)
        except (NotImplementedError, ValueError) as error:  # no kernel for it on this CPU
            return {"quantization": config.model_config.quantization, "refused": str(error)}
        loaded = model.load_weights(_weights(Path(directory)))
    parameters = {name: value.data for name, value in model.named_parameters()}
    save_file(parameters, f"{directory}.safetensors")
    return {
        "quantization": config.model_config.quantization,
        "run_by": {name: run_by(module) for name, module in model.named_modules()},
        "not_loaded": sorted(parameters.keys() - loaded),
    }


def _weights(directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                yield name, stored.get_tensor(name)


def run_by(module: torch.nn.Module) -> str | None:
    """The scheme of a linear layer, the method of any other module that may be quantised."""
    found = getattr(module, "scheme", None) or getattr(module, "quant_method", None)
    return type(found).__name__ if found is not None else None


def main() -> None:
    """Read all."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([read(path, f"{folder}/store") for path in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
