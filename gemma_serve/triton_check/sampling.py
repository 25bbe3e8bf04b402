"""
Whether two answers to a request should say the same: greedy ones should, sampled ones can't.

The three backends name their settings alike; the vLLM backend has them in a JSON string too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemma_serve.triton_check.answers import infer_inputs, unwrapped
from gemma_serve.triton_check.golden import Pair, Request
from gemma_serve.triton_check.json_values import parse_json

SEEDS = ("seed", "random_seed")


def why_not_comparable(pair: Pair) -> str | None:
    """Why the texts of two answers to this request may differ; None where they may not."""
    if pair.varies:
        return "the recorded server gave two different answers"
    return _why_sampled(_options(pair.request))


def _why_sampled(options: Mapping[str, Any]) -> str | None:
    temperature, top_k, top_p = (
        _number(options.get(name)) for name in ("temperature", "top_k", "top_p")
    )
    do_sample = options.get("do_sample")
    is_greedy = do_sample is False or temperature == 0 or top_k == 1
    if is_greedy or any(options.get(name) is not None for name in SEEDS):
        return None
    if do_sample is True:
        return "sampled: do_sample is true"
    for name, value in (("temperature", temperature), ("top_k", top_k), ("top_p", top_p)):
        if value:
            return f"sampled: {name} is {value:g} and there is no seed"
    if options.get("sampling_parameters") is not None:
        return "sampled: sampling_parameters has no temperature, which is 1 in the vLLM backend"
    return None


def _options(request: Request) -> dict[str, Any]:
    """What a request sets, by name, wherever it may stand."""
    body = request.body if request.body_base64 is None else None
    sent = dict(body) if isinstance(body, dict) else {}
    sent |= infer_inputs(request)
    parameters = sent.get("parameters")
    sent |= parameters if isinstance(parameters, dict) else {}
    inner = sent.get("sampling_parameters")
    inner = parse_json(inner.encode()) if isinstance(inner, str) else inner
    sent |= inner if isinstance(inner, dict) else {}
    return {name: unwrapped(value) for name, value in sent.items()}


def _number(value: Any) -> float | None:
    """A number, also one that is written as a string."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
