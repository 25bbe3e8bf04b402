"""
What vLLM itself makes of engine arguments, without weights: python -m tests.engine.vllm_configs DIR

Reads a JSON list of {"config": a config.json, "engine_args": ...} from standard input, and prints
a JSON list of what create_engine_config answered; DIR has the files of a tokenizer, which some
arguments need. In a process of its own, as vLLM reads its environment when it is imported.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gemma_serve.engine.vllm import engine

# The words of AsyncEngineArgs -> where VllmConfig has what came of them.
WHERE = {
    "quantization": "model_config.quantization",
    "max_model_len": "model_config.max_model_len",
    "served_model_name": "model_config.served_model_name",
    "max_num_seqs": "scheduler_config.max_num_seqs",
    "scheduling_policy": "scheduler_config.policy",
    "kv_cache_dtype": "cache_config.cache_dtype",
    "kv_cache_memory_bytes": "cache_config.kv_cache_memory_bytes",
    "tensor_parallel_size": "parallel_config.tensor_parallel_size",
    "reasoning_parser": "structured_outputs_config.reasoning_parser",
}


def answer(case: dict[str, Any], directory: Path) -> dict[str, Any]:
    """What vLLM's config says, in the words of its arguments; or its refusal."""
    shutil.copytree(sys.argv[1], directory, dirs_exist_ok=True)
    (directory / "config.json").write_text(json.dumps(case["config"]), encoding="utf-8")
    arguments = case["engine_args"] | {"model": str(directory)}
    try:
        args = engine.AsyncEngineArgs(**engine.with_config_objects(arguments))
        config = args.create_engine_config(engine.UsageContext.OPENAI_API_SERVER)
    except Exception as error:  # whatever it is, the test shows it
        return {"refused": f"{type(error).__name__}: {error}"}
    found = {name: _at(config, path) for name, path in WHERE.items()}
    attention, multimodal = config.attention_config, config.model_config.multimodal_config
    return found | {
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "attention_backend": attention.backend.name if attention.backend else None,
        "use_trtllm_attention": attention.use_trtllm_attention,
        "ignored_layers": config.quant_config.ignored_layers if config.quant_config else None,
        "images": multimodal.get_limit_per_prompt("image") if multimodal else None,
    }


def _at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def main() -> None:
    """Answer all cases."""
    answers = []
    for case in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as directory:
            answers.append(answer(case, Path(directory)))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
