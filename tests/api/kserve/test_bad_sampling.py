"""Sampling parameters that vLLM can't take, by the contract of Triton's vLLM backend."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.api.kserve.http_requests import GENERATE, STREAM
from tests.api.kserve.refusals import Witness, faults
from tests.api.kserve.sampling_cases import bad_bodies
from tests.servers import Server

GREEDY = {"max_tokens": 8, "temperature": 0}


def test_bad_sampling_parameters(vllm_backend_server: Server) -> None:
    """Each is refused whole and streamed, and leaves no harm."""
    witness = Witness(vllm_backend_server, {"text_input": "Rome is", "parameters": GREEDY})
    wrong = [
        f"{path} {str(body)[:200]} {fault}"
        for body in bad_bodies()
        for path in (GENERATE, STREAM)
        for fault in _faults(witness.http, path, body)
    ]
    assert not wrong, "\n".join(wrong)
    witness.check_unharmed()


def _faults(http: httpx.Client, path: str, body: dict[str, Any]) -> list[str]:
    answer = http.post(path, content=json.dumps(body))
    if answer.status_code != 400:
        return [f"is {answer.status_code}: {answer.text[:200]}"]
    return faults(answer.json()["error"])
