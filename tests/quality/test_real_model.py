"""The lower bound of the KL divergence, held against the divergence itself on the real 270M."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gemma_serve.gemma import embedded
from gemma_serve.quality.corpus import read_text
from gemma_serve.quality.figures import kl_divergence
from gemma_serve.quality.record import NUM_TOP, Scores

NUM_TOKENS = 48


def logprobs_of(model: torch.nn.Module, token_ids: torch.Tensor) -> torch.Tensor:
    """What the model says behind each token but the last: (windows, tokens - 1, vocabulary)."""
    with torch.inference_mode():
        return model(input_ids=token_ids).logits[:, :-1].log_softmax(-1)


def kept(token_ids: torch.Tensor, logprobs: torch.Tensor) -> Scores:
    """What a record keeps of it."""
    top = logprobs.topk(NUM_TOP)
    return Scores(
        token_ids.numpy().astype(np.int32),
        logprobs.gather(2, token_ids[:, 1:, None]).squeeze(2).numpy().astype(np.float32),
        top.indices.numpy().astype(np.int32),
        top.values.numpy().astype(np.float32),
        np.zeros((0, 0), dtype=np.int32),
    )


def round_to_fp8(model: torch.nn.Module) -> None:
    """Every matrix of the decoder through e4m3, with one scale a row."""
    for module in model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            scale = module.weight.abs().amax(1, keepdim=True) / 448
            rounded = (module.weight / scale).to(torch.float8_e4m3fn).float() * scale
            module.weight = torch.nn.Parameter(rounded, requires_grad=False)


def test_bound_is_near_the_divergence() -> None:
    """Of 262,144 log-probabilities 64 are kept, and three quarters of the divergence are seen."""
    checkpoint = embedded.prepare()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    token_ids = torch.tensor(
        [tokenizer(read_text(name)).input_ids[:NUM_TOKENS] for name in ("en", "ko")]
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    reference = logprobs_of(model, token_ids)
    round_to_fp8(model)
    candidate = logprobs_of(model, token_ids)

    exact = (reference.exp() * (reference - candidate)).sum(-1).numpy()
    bound = kl_divergence(kept(token_ids, reference), kept(token_ids, candidate))
    assert (bound <= exact + 1e-4).all()
    assert bound.mean() > 0.75 * exact.mean() > 0.001
