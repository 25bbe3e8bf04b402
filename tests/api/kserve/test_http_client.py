"""KServe v2 over HTTP with Triton's own clients: what there is, infer, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as httpclient
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.api.kserve.triton_clients import (
    CHAT,
    GENERATE,
    GREEDY,
    PROMPTS,
    STREAM,
    events_of,
    generated_tokens,
    greedy,
    greedy_chat,
    inputs_of,
    metric,
    texts_of,
    wait_until_idle,
)
from tests.servers import Server

# --- what there is


def test_probes(http_client: Any) -> None:
    """The server and its model are there; another model or version is not."""
    assert http_client.is_server_live()
    assert http_client.is_server_ready()
    assert http_client.is_model_ready("tiny")
    assert http_client.is_model_ready("tiny", "1")
    assert not http_client.is_model_ready("tiny", "2")
    assert not http_client.is_model_ready("other")


def test_metadata_and_configuration(http_client: Any) -> None:
    """The tensors of the contract, in metadata's words and in Triton's."""
    server = http_client.get_server_metadata()
    assert server["name"] == "gemma-serve"
    assert {"generate", "binary_tensor_data", "statistics"} <= set(server["extensions"])

    for version in ("", "1"):
        metadata = http_client.get_model_metadata("tiny", version)
        assert (metadata["name"], metadata["versions"]) == ("tiny", ["1"])
        text = {"name": "text_input", "datatype": "BYTES", "shape": [-1]}
        assert metadata["inputs"][0] == text
        assert metadata["outputs"][0] == text | {"name": "text_output"}

        config = http_client.get_model_config("tiny", version)
        assert (config["backend"], config["max_batch_size"]) == ("python", 0)
        kinds = {one["name"]: (one["data_type"], one["dims"]) for one in config["input"]}
        assert kinds["text_input"] == ("TYPE_STRING", [-1])
        assert kinds["temperature"] == ("TYPE_FP32", [1])
        assert [one["name"] for one in config["input"] if not one["optional"]] == ["text_input"]
    for method in (http_client.get_model_metadata, http_client.get_model_config):
        with pytest.raises(InferenceServerException, match="no version '2'"):
            method("tiny", "2")


def test_index(http_client: Any, http: httpx.Client) -> None:
    """The repository has the served model; `ready` asks for those that are."""
    want = [{"name": "tiny", "version": "1", "state": "READY"}]
    assert http_client.get_model_repository_index() == want
    for body in ({}, {"ready": True}, {"ready": False}):
        assert http.post("/v2/repository/index", json=body).json() == want


def test_statistics(http_client: Any) -> None:
    """Answers and refusals are counted, and their durations grow."""

    def stats() -> dict[str, Any]:
        (one,) = http_client.get_inference_statistics("tiny", "1")["model_stats"]
        assert one in http_client.get_inference_statistics()["model_stats"]
        found: dict[str, Any] = one
        return found

    before = stats()
    texts = {"text_input": ["One", "Two"], "max_new_tokens": 2}
    http_client.infer("tiny", inputs_of(httpclient, texts))
    with pytest.raises(InferenceServerException):
        http_client.infer("tiny", inputs_of(httpclient, {"text_input": "a", "max_new_tokens": 0}))
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["execution_count"] - before["execution_count"] == 1
    stages = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    for stage, more in (*((stage, 1) for stage in stages), ("fail", 1)):
        then, now = (one["inference_stats"][stage] for one in (before, after))
        assert now["count"] - then["count"] == more
        assert now["ns"] >= then["ns"]
    infer, success = (after["inference_stats"][name]["ns"] for name in ("compute_infer", "success"))
    assert 0 < infer < success


def test_counters_agree_with_statistics(http_client: Any, tiny_server: Server) -> None:
    """Triton's Prometheus counters say what its statistics extension says."""
    http_client.infer("tiny", inputs_of(httpclient, {"text_input": "a", "max_new_tokens": 2}))
    (stats,) = http_client.get_inference_statistics("tiny")["model_stats"]

    def counter(name: str) -> float:
        return metric(tiny_server, f"nv_inference_{name}", model="tiny", version="1")

    assert counter("count") == stats["inference_count"]
    assert counter("exec_count") == stats["execution_count"]
    stages = stats["inference_stats"]
    assert counter("request_success") == stages["success"]["count"]
    assert counter("request_failure") == stages["fail"]["count"]
    assert counter("request_duration_us") == pytest.approx(stages["success"]["ns"] / 1000)
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert counter(f"{stage}_duration_us") == pytest.approx(stages[stage]["ns"] / 1000)


def test_what_is_not_served(http_client: Any) -> None:
    """Loading, unloading and shared memory are refused with the reason."""
    calls = {
        "chosen by the profile": (
            lambda: http_client.load_model("tiny"),
            lambda: http_client.load_model("other", config="{}"),
            lambda: http_client.unload_model("tiny"),
        ),
        "Shared memory is not served": (
            http_client.get_system_shared_memory_status,
            lambda: http_client.register_system_shared_memory("region", "/region", 64),
            http_client.unregister_system_shared_memory,
            http_client.get_cuda_shared_memory_status,
            lambda: http_client.register_cuda_shared_memory("region", b"handle", 0, 64),
        ),
        "There is no route": (http_client.get_log_settings, http_client.get_trace_settings),
    }
    for message, some in calls.items():
        for call in some:
            with pytest.raises(InferenceServerException, match=message):
                call()
    shared = httpclient.InferInput("text_input", [1], "BYTES")
    shared.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="Shared memory is not served"):
        http_client.infer("tiny", [shared])


# --- infer


@pytest.mark.parametrize("binary_out", [False, True], ids=["JSON out", "bytes out"])
@pytest.mark.parametrize("binary_in", [False, True], ids=["JSON in", "bytes in"])
def test_infer(http_client: Any, tiny_server: Server, *, binary_in: bool, binary_out: bool) -> None:
    """JSON or bytes, either way the answer is the stripped one, and the id comes back."""
    values = {"text_input": PROMPTS[1], "max_new_tokens": 12, "repetition_penalty": 1.0, **GREEDY}
    result = http_client.infer(
        "tiny",
        inputs_of(httpclient, values, binary_data=binary_in),
        model_version="1",
        outputs=[httpclient.InferRequestedOutput("text_output", binary_data=binary_out)],
        request_id="id 1/é",
    )
    assert texts_of(result) == [greedy(tiny_server, PROMPTS[1], 12).strip()]
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == ("tiny", "1")
    assert response["id"] == "id 1/é"
    (output,) = response["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("text_output", "BYTES", [1])
    assert ("data" in output) != binary_out


def test_all_outputs_as_bytes(http_client: Any, tiny_server: Server) -> None:
    """Without outputs the client asks for all of them as bytes."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 6, **GREEDY}
    result = http_client.infer("tiny", inputs_of(httpclient, values))
    (output,) = result.get_response()["outputs"]
    assert output["parameters"]["binary_data_size"] > 0
    assert texts_of(result) == [greedy(tiny_server, PROMPTS[0], 6).strip()]


def test_several_texts(http_client: Any, tiny_server: Server) -> None:
    """Texts and chats are answered together, each as it would be alone, in their order."""
    texts = [*PROMPTS[:2], json.dumps(CHAT)]
    result = http_client.infer(
        "tiny", inputs_of(httpclient, {"text_input": texts, "max_new_tokens": 4, **GREEDY})
    )
    chat = greedy_chat(tiny_server, CHAT, 4)["choices"][0]["message"]["content"]
    raw = [greedy(tiny_server, prompt, 4) for prompt in PROMPTS[:2]]
    assert texts_of(result) == [text.strip() for text in (*raw, chat)]


def test_stream_over_infer_is_the_whole_answer(http_client: Any, tiny_server: Server) -> None:
    """`stream: true`, which Triton refuses here, answers the whole text."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 12, "stream": True, **GREEDY}
    result = http_client.infer("tiny", inputs_of(httpclient, values))
    assert texts_of(result) == [greedy(tiny_server, PROMPTS[0], 12).strip()]


@pytest.mark.parametrize(("algorithm", "binary"), [("gzip", False), ("deflate", True)])
def test_compression(http_client: Any, http: httpx.Client, algorithm: str, *, binary: bool) -> None:
    """Compressed requests are read, and answers come compressed where the client takes it."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 250, **GREEDY}
    result = http_client.infer(
        "tiny",
        inputs_of(httpclient, values, binary_data=binary),
        outputs=[httpclient.InferRequestedOutput("text_output", binary_data=binary)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    answer = http.post(GENERATE, json=values, headers={"accept-encoding": algorithm})
    assert answer.headers["content-encoding"] == algorithm
    assert answer.num_bytes_downloaded < len(answer.content)
    assert texts_of(result) == [answer.json()["text_output"]]


def test_answers_are_not_compressed_unasked(http: httpx.Client) -> None:
    """Identity, another encoding and a weight of 0 get plain bytes."""
    values = {"text_input": PROMPTS * 10, "max_new_tokens": 8}
    for accepted in ("identity", "gzip;q=0, deflate; q=0.00", "br"):
        answer = http.post(GENERATE, json=values, headers={"accept-encoding": accepted})
        assert "content-encoding" not in answer.headers
        assert len(answer.content) > 1024


@pytest.mark.parametrize("accepted", ["gzip;q=0.5", "br;q=1.0, gzip ; q=0.001", "GZIP"])
def test_a_weight_above_0_is_no_refusal(http: httpx.Client, accepted: str) -> None:
    """However little a client likes it, it takes it."""
    values = {"text_input": PROMPTS * 10, "max_new_tokens": 8}
    answer = http.post(GENERATE, json=values, headers={"accept-encoding": accepted})
    assert answer.headers["content-encoding"] == "gzip"


def test_many_at_once(http_client: Any) -> None:
    """Sixteen of `async_infer` over eight connections all come back, each with its id."""
    values = {"max_new_tokens": 16, "do_sample": True}
    pending = [
        http_client.async_infer(
            "tiny",
            inputs_of(httpclient, {"text_input": f"Story {at}", **values}),
            request_id=f"{at}",
        )
        for at in range(16)
    ]
    results = [one.get_result() for one in pending]
    assert [result.get_response()["id"] for result in results] == [str(at) for at in range(16)]
    assert all(texts_of(result) != [""] for result in results)


def test_async_client(tiny_server: Server) -> None:
    """The asyncio client: probes, and eight inferences at once with compressed bytes."""

    async def one(client: Any, at: int) -> tuple[str, list[str]]:
        values = {"text_input": f"Story {at}", "max_new_tokens": 300}
        result = await client.infer(
            "tiny",
            inputs_of(httpclient, values),
            request_id=str(at),
            request_compression_algorithm="gzip",
            response_compression_algorithm="deflate",
        )
        return result.get_response()["id"], texts_of(result)

    async def all_of_them() -> list[tuple[str, list[str]]]:
        address = tiny_server.base_url.removeprefix("http://")
        async with tritonclient.http.aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("tiny"))["name"] == "tiny"
            return await asyncio.gather(*(one(client, at) for at in range(8)))

    answers = asyncio.run(all_of_them())
    assert [id_ for id_, _ in answers] == [str(at) for at in range(8)]
    assert all(len(text) > 300 for _, (text,) in answers)


def test_raw_binary_request(http: httpx.Client, tiny_server: Server) -> None:
    """A head of no length makes the body the text; nothing sent means 20 tokens in all."""
    answer = http.post(
        "/v2/models/tiny/infer",
        content=b"The sea",
        headers={"inference-header-content-length": "0"},
    )
    assert answer.status_code == 200
    length = int(answer.headers["inference-header-content-length"])
    head, data = json.loads(answer.content[:length]), answer.content[length:]
    assert head["outputs"][0]["parameters"]["binary_data_size"] == len(data)
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    assert data[4:].decode()


# --- what goes wrong


def test_unknown_model_and_version(http_client: Any, http: httpx.Client) -> None:
    """404, in Triton's shape, by every route."""
    inputs = inputs_of(httpclient, {"text_input": "a"})
    for model, version, message in (
        ("other", "", "The model 'other' is not served here; use tiny."),
        ("tiny", "7", "The model 'tiny' has no version '7' here; use 1, or leave it out."),
    ):
        with pytest.raises(InferenceServerException) as caught:
            http_client.infer(model, inputs, version)
        assert (caught.value.status(), caught.value.message()) == ("404", message)
        middle = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
        for method, end in (
            *(("GET", end) for end in ("", "/ready", "/config", "/stats")),
            *(("POST", end) for end in ("/generate", "/generate_stream")),
        ):
            body = {"text_input": "a"} if method == "POST" else None
            answer = http.request(method, f"{middle}{end}", json=body)
            assert (answer.status_code, answer.json()) == (404, {"error": message})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1."),
        ({"max_new_tokens": "8"}, "Input 'max_new_tokens' is INT32 and was sent a string."),
        ({"do_sample": 1}, "Input 'do_sample' is BOOL and was sent 1."),
        ({"text_input": "[1]"}, "text_input is a JSON list and no chat"),
        ({"timeout": -1}, "The parameter 'timeout' must be a whole number of microseconds"),
        ({"id": 1.5}, "id is a number; send a string, or leave it out."),
        (
            {"parameters": [1]},
            "parameters is a list; send an object of names and values, or leave it out.",
        ),
    ],
)
@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_refusals(http: httpx.Client, path: str, values: dict[str, Any], message: str) -> None:
    """400 before anything is sent, also of a stream, with one sentence."""
    answer = http.post(path, json={"text_input": "a", "stream": True, **values})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": {}}, "inputs is an object; send a list of objects."),
        ({"inputs": ["a"]}, "inputs has a string in its list; send a list of objects alone."),
        ({"outputs": True}, "outputs is a boolean; send a list of objects."),
        (
            {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1]}]},
            "Input 'a' must have either data or the parameter binary_data_size; send one of them.",
        ),
        (
            {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "data": "b"}]},
            "The data of input 'a' must be a list; send one, flat or row by row.",
        ),
    ],
)
def test_bodies_of_another_shape(http: httpx.Client, body: Any, message: str) -> None:
    """What is no request of /infer is a 400 that says what to send."""
    answer = http.post("/v2/models/tiny/infer", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_wrong_datatype_by_the_client(http_client: Any) -> None:
    """INT64 where the model has INT32 is an error here as in Triton."""
    wrong = httpclient.InferInput("max_new_tokens", [1], "INT64")
    wrong.set_data_from_numpy(np.array([4], np.int64))
    with pytest.raises(InferenceServerException, match="datatype INT64 and the model takes INT32"):
        http_client.infer("tiny", [*inputs_of(httpclient, {"text_input": "a"}), wrong])


def test_timeout(http_client: Any, http: httpx.Client, tiny_server: Server) -> None:
    """`timeout`, in microseconds, ends the request with 504, and the engine with it."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 4000, **GREEDY}
    before = generated_tokens(tiny_server)
    with pytest.raises(InferenceServerException, match=r"timeout of 0\.2 s") as caught:
        http_client.infer("tiny", inputs_of(httpclient, values), timeout=200_000)
    assert caught.value.status() == "504"
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < 4000

    several = values | {"text_input": PROMPTS, "timeout": 200_000}
    assert http.post(GENERATE, json=several).status_code == 504
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < 2 * 4000

    answer = http.post(STREAM, json=values | {"stream": True, "timeout": 200_000})
    assert answer.status_code == 200
    *pieces, last = events_of(answer.text)
    assert all("text_output" in piece for piece in pieces)
    assert "timeout of 0.2 s" in last["error"]
    wait_until_idle(tiny_server)
    long = http.post(GENERATE, json=values | {"max_new_tokens": 4, "timeout": 60_000_000})
    assert long.status_code == 200


def test_priority_is_taken(http_client: Any, http: httpx.Client) -> None:
    """Triton's priorities from 0 on are taken; what is none is refused."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 2}
    for priority in (0, 1, 5):
        assert texts_of(http_client.infer("tiny", inputs_of(httpclient, values), priority=priority))
    for wrong in (-1, 1.5, "1", True, 2**40):
        answer = http.post(GENERATE, json=values | {"priority": wrong})
        assert answer.status_code == 400
        assert "'priority' must be an integer" in answer.json()["error"]
