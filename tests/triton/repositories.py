"""Triton model repositories, written to disk as teams have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PYTHON_CONFIG = """\
name: "gemma"
backend: "python"
max_batch_size: 0
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "max_length" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
  { name: "max_new_tokens" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
  { name: "do_sample" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "top_k" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
  { name: "top_p" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "temperature" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "repetition_penalty" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true }
]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
parameters { key: "enable_inference_trace" value { string_value: "true" } }
instance_group [ { count: 1 kind: KIND_GPU } ]
"""

MODEL_PY = """\
import os

import torch
import triton_python_backend_utils as pb_utils
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL_ID = os.environ.get("MODEL_ID", "google/gemma-2-2b-it")


class TritonPythonModel:
    def initialize(self, args):
        self.model_name = args["model_name"]
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_ID)
        self.model = AutoModelForCausalLM.from_pretrained(
            MODEL_ID, torch_dtype=torch.float16, device_map="auto"
        )
        open("was-run", "w").write("yes")
"""

VLLM_CONFIG = """\
# Note: You do not need to change any fields in this configuration.
backend: "vllm"
instance_group [
  {
    count: 1
    kind: KIND_MODEL
  }
]
"""

TENSORS = """\
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "stop_words" data_type: TYPE_STRING dims: [ -1 ] optional: true },
  { name: "lora_task_id" data_type: TYPE_UINT64 dims: [ 1 ] optional: true }
]
output [
  { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "context_logits" data_type: TYPE_FP32 dims: [ -1, -1 ] }
]
"""
ENSEMBLE_CONFIG = f"""\
name: "ensemble"
platform: "ensemble"
max_batch_size: 64
{TENSORS}
ensemble_scheduling {{
  step [
    {{ model_name: "preprocessing" model_version: -1
       input_map {{ key: "QUERY" value: "text_input" }} }},
    {{ model_name: "tensorrt_llm" model_version: -1
       input_map {{ key: "lora_task_id", value: "lora_task_id" }} }},
    {{ model_name: "postprocessing" model_version: -1
       output_map {{ key: "OUTPUT" value: "text_output" }} }}
  ]
}}
"""
BLS_CONFIG = f"""\
name: "tensorrt_llm_bls"
backend: "python"
max_batch_size: 64
model_transaction_policy {{ decoupled: true }}
{TENSORS}
parameters: {{ key: "accumulate_tokens" value: {{ string_value: "false" }} }}
parameters: {{ key: "tensorrt_llm_model_name" value: {{ string_value: "tensorrt_llm" }} }}
"""
ENGINE_CONFIG = """\
name: "tensorrt_llm"
backend: "tensorrtllm"
max_batch_size: 64
dynamic_batching { default_queue_policy: { max_queue_size: 256 } }
input [ { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
output [ { name: "output_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] } ]
parameters: { key: "gpt_model_path" value: { string_value: "/engines/gemma" } }
parameters: { key: "exclude_input_in_output" value: { string_value: "True" } }
parameters: { key: "kv_cache_free_gpu_mem_fraction" value: { string_value: "0.9" } }
parameters: { key: "max_beam_width" value: { string_value: "${max_beam_width}" } }
"""
PREPROCESSING_CONFIG = """\
name: "preprocessing"
backend: "python"
max_batch_size: 64
input [ { name: "QUERY" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "INPUT_ID" data_type: TYPE_INT32 dims: [ -1 ] } ]
parameters { key: "tokenizer_dir" value { string_value: "/models/gemma-2-9b-it" } }
parameters { key: "add_special_tokens" value { string_value: "true" } }
"""
POSTPROCESSING_CONFIG = """\
name: "postprocessing"
backend: "python"
max_batch_size: 64
input [ { name: "TOKENS_BATCH" data_type: TYPE_INT32 dims: [ -1, -1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_STRING dims: [ -1 ] } ]
"""
TENSORRT_LLM = {
    "ensemble": ENSEMBLE_CONFIG,
    "postprocessing": POSTPROCESSING_CONFIG,
    "preprocessing": PREPROCESSING_CONFIG,
    "tensorrt_llm": ENGINE_CONFIG,
    "tensorrt_llm_bls": BLS_CONFIG,
}


def write_files(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files by their paths below a directory; a path that ends in / is a directory."""
    for name, content in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def python_backend(
    root: Path, config: str = PYTHON_CONFIG, code: str | bytes = MODEL_PY, name: str = "gemma"
) -> Path:
    """A repository of one python backend, with the spelling config.pbxt."""
    return write_files(root, {f"{name}/config.pbxt": config, f"{name}/1/model.py": code})


def vllm_backend(
    root: Path,
    args: Mapping[str, Any] | str,
    config: str | None = VLLM_CONFIG,
    adapters: Mapping[str, str] | None = None,
) -> Path:
    """A repository like the vLLM backend's sample."""
    text = args if isinstance(args, str) else json.dumps(args, indent=2)
    files = {"vllm_model/1/model.json": text}
    files |= {} if config is None else {"vllm_model/config.pbtxt": config}
    files |= {} if adapters is None else {"vllm_model/1/multi_lora.json": json.dumps(adapters)}
    return write_files(root, files)


def tensorrt_llm(root: Path, **changed: str) -> Path:
    """TensorRT-LLM's repository of five models."""
    for name, config in (TENSORRT_LLM | changed).items():
        write_files(root, {f"{name}/config.pbtxt": config, f"{name}/1/": ""})
    return root
