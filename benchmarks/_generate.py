"""
transformers.generate, one request at a time: the worker process of baseline_transformers.

Reads its task as JSON from stdin and writes what it measured to stdout.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks._machine import Watch, measure_quiet


def main() -> None:
    """Generate for the last prompt to warm up, then for the others in order, and report."""
    task = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.bfloat16).eval()
    prompts, max_tokens = task["prompts"], task["max_tokens"]
    _generate(model, tokenizer, prompts.pop(), max_tokens)
    requests = measure_quiet(
        lambda number: _generate(model, tokenizer, prompts[number], max_tokens), task["requests"]
    )
    json.dump(requests, sys.stdout)


def _generate(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> dict[str, Any]:
    """One greedy chat of exactly `max_tokens` tokens, from text to text."""
    watch, began_s = Watch(lambda: 0.0), time.perf_counter()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        ids = model.generate(
            **inputs, do_sample=False, max_new_tokens=max_tokens, min_new_tokens=max_tokens
        )
    prompt_tokens = inputs["input_ids"].shape[1]
    tokenizer.decode(ids[0][prompt_tokens:])
    return {
        "seconds": time.perf_counter() - began_s,
        "prompt_tokens": prompt_tokens,
        "output_tokens": ids.shape[1] - prompt_tokens,
        **watch.stop(),
    }


if __name__ == "__main__":
    main()
