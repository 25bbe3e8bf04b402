"""Bad requests over KServe's HTTP: a 4xx in Triton's shape each, and a server that is unharmed."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.api.kserve.bad_bodies import bad_bodies
from tests.api.kserve.bad_requests import bad_requests
from tests.api.kserve.bad_tensors import bad_tensors
from tests.api.kserve.http_requests import BadRequest
from tests.api.kserve.refusals import Witness, client_of, faults
from tests.servers import Server

REFUSALS = (400, 404, 405, 413, 415)
BATCH = 50
REQUESTS = [*bad_tensors(), *bad_requests(), *bad_bodies()]
BATCHES = [REQUESTS[start : start + BATCH] for start in range(0, len(REQUESTS), BATCH)]


@pytest.fixture(scope="module")
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A client that sends targets as they stand."""
    with client_of(tiny_server) as client:
        yield client


def _faults(http: httpx.Client, request: BadRequest) -> list[str]:
    """What is wrong with the answer to a request that must be refused."""
    answer = http.request(
        request.method,
        "/",
        content=request.body,
        headers=dict(request.headers),
        extensions={"target": request.path.encode()},
    )
    if answer.status_code not in REFUSALS:
        return [f"is {answer.status_code}: {answer.text[:200]}"]
    if answer.headers["content-type"] != "application/json":
        return [f"is {answer.headers['content-type']}: {answer.text[:200]}"]
    body = answer.json()
    return faults(body["error"]) if set(body) == {"error"} else [f"has the body {body}"]


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch[0].name[:40])
def test_refused(http: httpx.Client, witness: Witness, batch: list[BadRequest]) -> None:
    """Every one of fifty is refused in Triton's shape; then all is as it was."""
    wrong = [
        f"{request.name} ({request.method} {request.path[:80]}) {fault}"
        for request in batch
        for fault in _faults(http, request)
    ]
    assert not wrong, "\n".join(wrong)
    witness.check_unharmed()
