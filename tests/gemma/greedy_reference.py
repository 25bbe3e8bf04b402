"""
Greedy decoding by transformers, one prompt at a time; a program, so that its memory ends with it.

Reads {"directory", "dtype", "max_tokens", "prompts": [[token id]]} as JSON, writes one
{"ids": [token id], "best": [[[token id, logit]]]} a prompt: the five best logits of each step.
"""

from __future__ import annotations

import json
import sys

import gemma_serve.engine.torchvision_ops  # noqa: F401  # transformers imports torchvision

NUM_BEST = 5


def main() -> None:
    """Answer the one question on standard input."""
    import torch
    from transformers import AutoModelForCausalLM

    question = json.load(sys.stdin)
    model = AutoModelForCausalLM.from_pretrained(
        question["directory"], dtype=getattr(torch, question["dtype"])
    ).eval()
    # The server is asked to ignore the stop ids, so they may not end the reference either.
    model.generation_config.eos_token_id = None
    answers = []
    for prompt in question["prompts"]:
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            top_k=None,
            top_p=None,
            temperature=None,
            max_new_tokens=question["max_tokens"],
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = [step[0].float().topk(NUM_BEST) for step in output.logits]
        answers.append(
            {
                "ids": output.sequences[0, len(prompt) :].tolist(),
                "best": [
                    list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
                    for top in best
                ],
            }
        )
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
