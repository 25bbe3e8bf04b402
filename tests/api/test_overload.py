"""A small server that gets more than it can serve: who is refused, how fast, and who is not."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.bad_messages import message, tensor
from tests.api.kserve.triton_clients import metric, wait_until
from tests.faults.overload import Answer, Request, storm
from tests.servers import Server, serving

pytestmark = pytest.mark.engine
NOISY, QUIET = "noisy-secret", "quiet-secret"
BATCH, UNFINISHED = 4, 12
TURN = [{"role": "user", "content": "Tell me of the sea."}]
TOKENS = 48
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURN, "max_tokens": TOKENS, "ignore_eos": True},
    "/v1/completions": {"prompt": "The sea", "max_tokens": TOKENS, "ignore_eos": True},
    "/v1/messages": {"messages": TURN, "max_tokens": TOKENS},
    "/v2/models/tiny/generate": {"text_input": "The sea", "max_new_tokens": TOKENS},
}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keys with names."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"{NOISY} noisy\n{QUIET} quiet\n")
    return file


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What its flight recorder writes."""
    return tmp_path_factory.mktemp("flights") / "flights.jsonl"


@pytest.fixture(scope="module")
def server(
    tiny_profile: Path,
    engine_slot: contextlib.ExitStack,
    keys_file: Path,
    flights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Server:
    """A server of four places that takes twelve requests, and promises a TTFT."""
    overrides = [
        f"engine.max_num_seqs={BATCH}",
        f"limits.max_queued_requests={UNFINISHED}",
        f"server.api_keys_file={keys_file}",
        "server.grpc_port=0",
        "slo.ttft_ms=5000",
        f"observability.flight_recorder={flights}",
    ]
    log = tmp_path_factory.mktemp("log") / "small.log"
    engine_slot.close()
    started = engine_slot.enter_context(serving(tiny_profile, overrides, log, dict(os.environ)))
    started.headers["x-api-key"] = QUIET
    return started


def of_one_key(server: Server, num_requests: int) -> list[Answer]:
    """Many requests of one key in one second, over all protocols in turn."""
    paths = [list(ROUTES)[at % len(ROUTES)] for at in range(num_requests)]
    headers = {"x-api-key": NOISY}
    requests = [Request(path, headers, {"model": "tiny", **ROUTES[path]}) for path in paths]
    return storm(server.base_url, requests)


def test_ten_times_more_than_the_queue_takes(server: Server, flights: Path) -> None:
    """The excess is refused at once and told when to retry; what was accepted is answered whole."""
    answers = of_one_key(server, 10 * UNFINISHED)
    taken = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert len(taken) >= UNFINISHED
    assert len(refused) >= UNFINISHED
    for answer in taken:
        usage = answer.body.get("usage", {})
        if "completion_tokens" in usage:
            assert usage["completion_tokens"] == TOKENS
    for answer in refused:
        anthropics = answer.path == "/v1/messages"
        assert answer.status == (529 if anthropics else 503), answer.body
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        if anthropics:
            assert answer.body["error"]["type"] == "overloaded_error"
        elif answer.path.startswith("/v1"):
            assert answer.body["error"]["code"] == "engine_overloaded"
    # 100 ms is the promise; these two cores run the clients and the engine as well.
    assert statistics.median(answer.seconds for answer in refused) < 1
    assert max(answer.seconds for answer in refused) < 5
    rejections = metric(server, "gemma_serve_admission_rejections_total", reason="requests")
    assert rejections == len(refused)
    assert metric(server, "gemma_serve_key_requests_total", key="noisy", outcome="taken") == len(
        taken
    )
    wait_until(lambda: _info(server)["running_requests"] == 0, "nothing runs")
    assert metric(server, "gemma_serve_admission_waiting_requests") == 0
    recorded = [json.loads(line) for line in flights.read_text().splitlines()]
    reasons = Counter(line.get("reason") for line in recorded)
    assert reasons == {"engine_overloaded": len(refused), None: len(taken)}
    assert all(line["ttft_ms"] > 0 for line in recorded if "reason" not in line)


def _info(server: Server) -> dict[str, Any]:
    with server.client() as http:
        admission: dict[str, Any] = http.get("/v1/info").json()["admission"]
    return admission


def test_limits_are_shown(server: Server) -> None:
    """/v1/info has the limits, and the prefill rate that the one of tokens follows from."""
    info = _info(server)
    assert (info["max_running_requests"], info["max_queued_requests"]) == (BATCH + 1, UNFINISHED)
    assert info["max_running_requests_of_key"] == BATCH - 1
    assert 1 <= info["max_running_requests_beside_others"] <= BATCH - 1
    assert info["step_ms"] > 0  # measured before the server was ready, as there are two keys
    assert info["step_ms_each"] >= 0
    assert info["prefill_tokens_per_s"] > 100
    assert info["max_queued_tokens"] == pytest.approx(info["prefill_tokens_per_s"] * 5, rel=0.01)


@contextlib.contextmanager
def noise(server: Server) -> Iterator[Counter[int]]:
    """Sixteen clients of one key, each of whom asks again at once, whatever it is told."""
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def ask() -> None:
        headers = {"x-api-key": NOISY}
        body = {"model": "tiny", **ROUTES["/v1/completions"]}
        with httpx.Client(base_url=server.base_url, timeout=60, headers=headers) as client:
            while not stop.is_set():
                answer = client.post("/v1/completions", json=body)
                statuses[answer.status_code] += 1
                if answer.status_code != 200:
                    stop.wait(0.05)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ttft_s(client: httpx.Client) -> float:
    body = {"model": "tiny", "prompt": "The river", "max_tokens": 8, "stream": True}
    began_s = time.perf_counter()
    with client.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["choices"]
        ttft_s = time.perf_counter() - began_s
        assert list(lines)[-2] == "data: [DONE]"
    return ttft_s


def test_a_noisy_key_does_not_take_the_others_place(server: Server) -> None:
    """While one key fills batch and queue, another's requests are all taken, and soon begin."""
    with server.client() as client:
        alone_s = statistics.median(_ttft_s(client) for _ in range(10))
        with noise(server) as statuses:
            wait_until(lambda: sum(statuses.values()) > 30, "the noise has begun")
            for _ in range(20):  # a place is kept, also while nobody else asks for it
                assert _info(server)["running_requests"] < BATCH
            beside_s = statistics.median(_ttft_s(client) for _ in range(10))
    assert statuses[200] > 0
    assert statuses.keys() <= {200, 429, 503}
    assert statuses[429] + statuses[503] > 0
    # Without a place of its own it would wait for a whole answer of TOKENS tokens, and the line.
    assert beside_s < 10 * alone_s + 0.5, (alone_s, beside_s)


def test_a_key_that_is_taken_away(server: Server, keys_file: Path) -> None:
    """It is refused over HTTP and gRPC within a second, without a restart; other keys go on."""
    request = message(tensor())

    def status(key: str) -> tuple[int, str]:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
        answer = httpx.post(
            f"{server.base_url}/v1/completions", json=body, headers={"x-api-key": key}
        )
        try:
            stub.ModelInfer(request, metadata=[("x-api-key", key)])
        except grpc.RpcError as error:
            return answer.status_code, error.code().name
        return answer.status_code, "OK"

    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert status(NOISY) == (200, "OK")
        keys_file.write_text(f"{QUIET} quiet\nlater-secret later\n")
        time.sleep(1)
        assert status(NOISY) == (401, "UNAUTHENTICATED")
        assert status(QUIET) == (200, "OK")
        assert status("later-secret") == (200, "OK")
    server.wait_for("its 2 keys from now on")
