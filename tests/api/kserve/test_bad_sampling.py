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
# A schema of nothing but itself, which the engine's grammar gives up on.
ENDLESS = {"structured_outputs": {"json": {"$ref": "#"}}, "max_tokens": 2}


def test_bad_sampling_parameters(vllm_backend_server: Server) -> None:
    """Each is refused whole and streamed, and leaves no harm; what the engine fails on is a 500."""
    witness = Witness(vllm_backend_server, {"text_input": "Rome is", "parameters": GREEDY})
    wrong = [
        f"{path} {str(body)[:200]} {fault}"
        for body in bad_bodies()
        for path in (GENERATE, STREAM)
        for fault in _faults(witness.http, path, body)
    ]
    assert not wrong, "\n".join(wrong)
    witness.check_unharmed()
    _check_failure_of_the_engine(witness.http)
    witness.check_idle()


def _faults(http: httpx.Client, path: str, body: dict[str, Any]) -> list[str]:
    answer = http.post(path, content=json.dumps(body))
    if answer.status_code != 400:
        return [f"is {answer.status_code}: {answer.text[:200]}"]
    return faults(answer.json()["error"])


def _check_failure_of_the_engine(http: httpx.Client) -> None:
    """No empty answer with 200: the whole fails, and the stream ends with an error."""
    body = {"text_input": "Rome is", "sampling_parameters": json.dumps(ENDLESS)}
    for path in (GENERATE, STREAM):
        answer = http.post(path, json=body)
        assert answer.status_code == 500, answer.text
        assert answer.json() == {
            "error": "The engine failed on this request; its log has the details."
        }
