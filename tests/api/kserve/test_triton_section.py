"""What a profile's `triton` section says, on a real engine: priorities, default inputs, traces."""

from __future__ import annotations

import contextlib
import json
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as grpcclient

from tests.api.kserve.triton_clients import (
    CHAT,
    GENERATE,
    GREEDY,
    PROMPTS,
    STREAM,
    TOOLS,
    generated_tokens,
    greedy,
    inputs_of,
    metric,
    num_tokens,
    running,
    wait_until,
)
from tests.servers import Server, serving

pytestmark = pytest.mark.engine

WAIT_S = 60
# How many requests wait outside the engine, in the one queue, and how many are in it.
WAITING = "gemma_serve_admission_waiting_requests"
# Long enough that the next one's end is told apart on a busy machine.
SHORT = {"text_input": PROMPTS[0], "max_new_tokens": 128, **GREEDY}
LONG = {"text_input": PROMPTS[0], "max_new_tokens": 4000, "stream": True, **GREEDY}


@pytest.fixture(scope="module")
def server(
    tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """The tiny model, one sequence at a time, with Triton's settings."""
    overrides = [
        "served_model_name=[tiny, spare]",
        "engine.max_num_seqs=1",
        "limits.max_queued_requests=16",
        "server.grpc_port=0",
        "chat.tool_call_parser=pythonic",
        "triton.default_priority_level=5",
        "triton.default_inputs={max_new_tokens: 64}",
        "triton.inference_trace=true",
    ]
    log = tmp_path_factory.mktemp("triton-section") / "server.log"
    engine_slot.close()
    return engine_slot.enter_context(serving(tiny_profile, overrides, log, {**os.environ}))


def test_counters_of_a_model_that_nobody_asked(http: httpx.Client) -> None:
    """Every served name has Triton's series from the start, at 0."""
    said = http.get("/metrics").text
    for name in ("count", "exec_count", "request_success", "queue_duration_us"):
        assert f'nv_inference_{name}{{model="spare",version="1"}} 0.0' in said


def test_lower_priorities_overtake(client: Any, http: httpx.Client, server: Server) -> None:
    """
    Of those that wait, the lower number runs first, over HTTP as over gRPC.

    None is triton.default_priority_level.
    """
    ended: queue.Queue[str] = queue.Queue()

    def ended_over_grpc(result: Any, error: Any) -> None:
        ended.put(str(error) if error else result.get_response().id)

    def ask(id_: str, **options: Any) -> None:
        inputs = inputs_of(grpcclient, SHORT)
        client.async_stream_infer("tiny", inputs, request_id=id_, **options)

    def ask_over_http(id_: str, **options: Any) -> None:
        answer = http.post(GENERATE, json={**SHORT, "id": id_, **options})
        ended.put(answer.json().get("id", answer.text))

    client.start_stream(ended_over_grpc)
    with ThreadPoolExecutor(2) as clients:
        with http.stream("POST", STREAM, json=LONG) as running_one:
            lines = running_one.iter_lines()  # held, as its end would be the stream's
            assert next(lines)
            # One more is in the engine, so that the place is taken in the next step.
            ask("in the engine", priority=1)  # or vLLM's own queue lets the next one overtake it
            wait_until(lambda: running(server) == 2, "one runs and one waits in the engine")
            waiting = [
                lambda: ask("7", priority=7),
                lambda: clients.submit(ask_over_http, "3", priority=3),
                lambda: ask("none"),
                lambda: clients.submit(ask_over_http, "1", priority=1),
                lambda: ask("2", priority=2),
            ]
            for number, send in enumerate(waiting, start=1):
                send()
                wait_until(lambda want=number: metric(server, WAITING) == want, f"{number} wait")
        # The long one's client has left.
        order = [ended.get(timeout=WAIT_S) for _ in range(1 + len(waiting))]
    client.stop_stream()
    assert order == ["in the engine", "1", "2", "3", "none", "7"]


def test_the_requests_length_wins(http: httpx.Client, server: Server) -> None:
    """max_length as sent, not the profile's max_new_tokens; which counts where neither is sent."""
    body = {"text_input": PROMPTS[0], **GREEDY}
    before = generated_tokens(server)
    assert http.post(GENERATE, json=body).status_code == 200
    assert generated_tokens(server) - before == 64
    assert http.post(GENERATE, json=body | {"max_length": 20}).status_code == 200
    assert generated_tokens(server) - before == 64 + 20 - num_tokens(server, PROMPTS[0])


def test_parameters_without_effect_are_traced(http: httpx.Client, server: Server) -> None:
    """A key that is no input changes nothing; the trace names it, unless it could be text."""
    body = {"text_input": PROMPTS[0], "max_new_tokens": 3, **GREEDY}
    unknown = {"max_tokens": 50, "a quokka": 1, "chat": False, "priority": 1}
    answer = http.post(GENERATE, json=body | unknown | {"id": "stray"})
    assert answer.json()["text_output"] == greedy(server, PROMPTS[0], 3).strip()
    server.wait_for("request stray: ")
    (line,) = [line for line in server.output().splitlines() if "request stray: " in line]
    assert "; without effect: max_tokens request_id=" in line
    assert "quokka" not in line


def test_the_engines_time_with_tools(http: httpx.Client) -> None:
    """An answer that vLLM's chat takes apart has its time in the statistics too."""

    def infer_ns() -> int:
        (stats,) = http.get("/v2/models/tiny/stats").json()["model_stats"]
        return int(stats["inference_stats"]["compute_infer"]["ns"])

    before = infer_ns()
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 4, "tools": TOOLS, **GREEDY}
    assert http.post(GENERATE, json=body).status_code == 200
    assert infer_ns() > before
