"""
What transformers would choose at each step of given answers; a program, so that its memory ends.

Reads {"directory", "dtype", "answers": [[[prompt token id], [answer token id]]]} as JSON, writes
one [[best token id, its logit, the answer's logit]] an answer, a triple a step. Greedy decoding
gives an answer exactly if it is the best token at each step after the prompt and the steps before,
so that one forward pass over both tells it.
"""

from __future__ import annotations

import json
import sys

import gemma_serve.engine.torchvision_ops  # noqa: F401  # transformers imports torchvision


def main() -> None:
    """Answer the one question on standard input."""
    import torch
    from transformers import AutoModelForCausalLM

    question = json.load(sys.stdin)
    model = AutoModelForCausalLM.from_pretrained(
        question["directory"], dtype=getattr(torch, question["dtype"])
    ).eval()
    judged = []
    for prompt, answer in question["answers"]:
        ids = torch.tensor([prompt + answer[:-1]])
        with torch.inference_mode():
            logits = model(ids, logits_to_keep=len(answer)).logits[0].float()
        best = logits.max(dim=-1)
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        steps = zip(best.indices.tolist(), best.values.tolist(), chosen.tolist(), strict=True)
        judged.append(list(steps))
    json.dump(judged, sys.stdout)


if __name__ == "__main__":
    main()
