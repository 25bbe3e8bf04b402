"""KServe v2 over HTTP with Triton's own clients, with curl and with httpx."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as httpclient
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.api.kserve.triton_clients import (
    CHAT,
    TOOLS,
    events_of,
    generated_tokens,
    greedy,
    greedy_chat,
    inputs_of,
    metric,
    num_tokens,
    texts_of,
    wait_until_idle,
)
from tests.servers import Server

PROMPTS = [
    "The sea",
    "def read(path):\n    return",
    "A list:\n\n- ",
    "Über den Wolken",
    "x = [1, 2, 3",
    " Rome was not built in a day, and",
]
GREEDY = {"do_sample": False}
GENERATE = "/v2/models/tiny/generate"
STREAM = "/v2/models/tiny/generate_stream"


@pytest.fixture
def client(tiny_server: Server) -> Iterator[httpclient.InferenceServerClient]:
    """The client as a user makes it."""
    address = tiny_server.base_url.removeprefix("http://")
    with httpclient.InferenceServerClient(address, concurrency=8) as client:
        yield client


@pytest.fixture
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with tiny_server.client() as client:
        yield client


# --- what there is


def test_probes(client: Any) -> None:
    """The server and its model are there; another model or version is not."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("other")


def test_metadata_and_configuration(client: Any) -> None:
    """The tensors of the contract, in metadata's words and in Triton's."""
    server = client.get_server_metadata()
    assert server["name"] == "gemma-serve"
    assert {"generate", "binary_tensor_data", "statistics"} <= set(server["extensions"])

    for version in ("", "1"):
        metadata = client.get_model_metadata("tiny", version)
        assert (metadata["name"], metadata["versions"]) == ("tiny", ["1"])
        text = {"name": "text_input", "datatype": "BYTES", "shape": [-1]}
        assert metadata["inputs"][0] == text
        assert metadata["outputs"][0] == text | {"name": "text_output"}

        config = client.get_model_config("tiny", version)
        assert (config["backend"], config["max_batch_size"]) == ("python", 0)
        kinds = {one["name"]: (one["data_type"], one["dims"]) for one in config["input"]}
        assert kinds["text_input"] == ("TYPE_STRING", [-1])
        assert kinds["temperature"] == ("TYPE_FP32", [1])
        assert [one["name"] for one in config["input"] if not one["optional"]] == ["text_input"]
    for method in (client.get_model_metadata, client.get_model_config):
        with pytest.raises(InferenceServerException, match="no version '2'"):
            method("tiny", "2")


def test_index(client: Any, http: httpx.Client) -> None:
    """The repository has the served model; `ready` asks for those that are."""
    want = [{"name": "tiny", "version": "1", "state": "READY"}]
    assert client.get_model_repository_index() == want
    for body in ({}, {"ready": True}, {"ready": False}):
        assert http.post("/v2/repository/index", json=body).json() == want


def test_statistics(client: Any) -> None:
    """Answers and refusals are counted, and their durations grow."""

    def stats() -> dict[str, Any]:
        (one,) = client.get_inference_statistics("tiny", "1")["model_stats"]
        assert one in client.get_inference_statistics()["model_stats"]
        found: dict[str, Any] = one
        return found

    before = stats()
    texts = {"text_input": ["One", "Two"], "max_new_tokens": 2}
    client.infer("tiny", inputs_of(httpclient, texts))
    with pytest.raises(InferenceServerException):
        client.infer("tiny", inputs_of(httpclient, {"text_input": "a", "max_new_tokens": 0}))
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


def test_counters_agree_with_statistics(client: Any, tiny_server: Server) -> None:
    """Triton's Prometheus counters say what its statistics extension says."""
    client.infer("tiny", inputs_of(httpclient, {"text_input": "a", "max_new_tokens": 2}))
    (stats,) = client.get_inference_statistics("tiny")["model_stats"]

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


def test_what_is_not_served(client: Any) -> None:
    """Loading, unloading and shared memory are refused with the reason."""
    calls = {
        "chosen by the profile": (
            lambda: client.load_model("tiny"),
            lambda: client.load_model("other", config="{}"),
            lambda: client.unload_model("tiny"),
        ),
        "Shared memory is not served": (
            client.get_system_shared_memory_status,
            lambda: client.register_system_shared_memory("region", "/region", 64),
            client.unregister_system_shared_memory,
            client.get_cuda_shared_memory_status,
            lambda: client.register_cuda_shared_memory("region", b"handle", 0, 64),
        ),
        "There is no route": (client.get_log_settings, client.get_trace_settings),
    }
    for message, some in calls.items():
        for call in some:
            with pytest.raises(InferenceServerException, match=message):
                call()
    shared = httpclient.InferInput("text_input", [1], "BYTES")
    shared.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="Shared memory is not served"):
        client.infer("tiny", [shared])


# --- infer


@pytest.mark.parametrize("binary_out", [False, True], ids=["JSON out", "bytes out"])
@pytest.mark.parametrize("binary_in", [False, True], ids=["JSON in", "bytes in"])
def test_infer(client: Any, tiny_server: Server, *, binary_in: bool, binary_out: bool) -> None:
    """JSON or bytes, either way the answer is the stripped one, and the id comes back."""
    values = {"text_input": PROMPTS[1], "max_new_tokens": 12, "repetition_penalty": 1.0, **GREEDY}
    result = client.infer(
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


def test_all_outputs_as_bytes(client: Any, tiny_server: Server) -> None:
    """Without outputs the client asks for all of them as bytes."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 6, **GREEDY}
    result = client.infer("tiny", inputs_of(httpclient, values))
    (output,) = result.get_response()["outputs"]
    assert output["parameters"]["binary_data_size"] > 0
    assert texts_of(result) == [greedy(tiny_server, PROMPTS[0], 6).strip()]


def test_several_texts(client: Any, tiny_server: Server) -> None:
    """Texts and chats are answered together, each as it would be alone, in their order."""
    texts = [*PROMPTS[:2], json.dumps(CHAT)]
    result = client.infer(
        "tiny", inputs_of(httpclient, {"text_input": texts, "max_new_tokens": 4, **GREEDY})
    )
    chat = greedy_chat(tiny_server, CHAT, 4)["choices"][0]["message"]["content"]
    raw = [greedy(tiny_server, prompt, 4) for prompt in PROMPTS[:2]]
    assert texts_of(result) == [text.strip() for text in (*raw, chat)]


def test_stream_over_infer_is_the_whole_answer(client: Any, tiny_server: Server) -> None:
    """`stream: true`, which Triton refuses here, answers the whole text."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 12, "stream": True, **GREEDY}
    result = client.infer("tiny", inputs_of(httpclient, values))
    assert texts_of(result) == [greedy(tiny_server, PROMPTS[0], 12).strip()]


@pytest.mark.parametrize(("algorithm", "binary"), [("gzip", False), ("deflate", True)])
def test_compression(client: Any, http: httpx.Client, algorithm: str, *, binary: bool) -> None:
    """Compressed requests are read, and answers come compressed where the client takes it."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 250, **GREEDY}
    result = client.infer(
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
    for accepted in ("identity", "gzip;q=0, deflate; q=0", "br"):
        answer = http.post(GENERATE, json=values, headers={"accept-encoding": accepted})
        assert "content-encoding" not in answer.headers
        assert len(answer.content) > 1024


def test_many_at_once(client: Any) -> None:
    """Sixteen of `async_infer` over eight connections all come back, each with its id."""
    values = {"max_new_tokens": 16, "do_sample": True}
    pending = [
        client.async_infer(
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


# --- generate


def test_generate(http: httpx.Client, tiny_server: Server) -> None:
    """One JSON object: the text stripped as python backends do, the id, the model."""
    for prompt in PROMPTS:
        body = {"text_input": prompt, "max_new_tokens": 12, "id": "42", **GREEDY}
        for path in (GENERATE, "/v2/models/tiny/versions/1/generate"):
            answer = http.post(path, json=body)
            assert answer.headers["content-type"] == "application/json"
            text = greedy(tiny_server, prompt, 12).strip()
            names = {"id": "42", "model_name": "tiny", "model_version": "1"}
            assert answer.json() == names | {"text_output": text}


def test_parameters_may_be_nested(http: httpx.Client, tiny_server: Server) -> None:
    """Inputs stand beside text_input or in `parameters`."""
    body = {"text_input": PROMPTS[0], "parameters": {"max_new_tokens": 5, **GREEDY}}
    text = greedy(tiny_server, PROMPTS[0], 5).strip()
    assert http.post(GENERATE, json=body).json()["text_output"] == text


def test_streamed_pieces_are_the_whole_answer(http: httpx.Client, tiny_server: Server) -> None:
    """The pieces of a stream, joined, are the stripped answer, whatever its outer white space."""
    stripped = 0
    for prompt in PROMPTS:
        for max_tokens in (1, 5, 24):
            raw = greedy(tiny_server, prompt, max_tokens)
            stripped += raw != raw.strip()
            body = {"text_input": prompt, "max_new_tokens": max_tokens, "stream": True, **GREEDY}
            answer = http.post(STREAM, json=body)
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            pieces = [event["text_output"] for event in events_of(answer.text)]
            assert "".join(pieces) == raw.strip()
            assert len(pieces) > 1 or max_tokens == 1 or len(raw.split()) < 2
    assert stripped, "no answer had outer white space; choose other prompts"


def test_stream_without_stream(http: httpx.Client, tiny_server: Server) -> None:
    """`generate_stream` without `stream: true` is one event with all of it."""
    answer = http.post(STREAM, json={"text_input": PROMPTS[0], "max_new_tokens": 9, **GREEDY})
    (event,) = events_of(answer.text)
    assert event["text_output"] == greedy(tiny_server, PROMPTS[0], 9).strip()


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_curl_as_in_the_docs(tiny_server: Server, path: str) -> None:
    """curl sends a form's content type unasked; Triton does not look at it, nor do we."""
    stream = json.dumps(path == STREAM)
    body = (
        '{"text_input": "The sea", "max_new_tokens": 12, '
        f'"parameters": {{"stream": {stream}, "do_sample": false}}}}'
    )
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer", "-X", "POST"]
    done = subprocess.run(
        [*command, f"{tiny_server.base_url}{path}", "-d", body],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    events = events_of(done.stdout) if path == STREAM else [json.loads(done.stdout)]
    text = "".join(event["text_output"] for event in events)
    assert text == greedy(tiny_server, "The sea", 12).strip()
    assert {event["model_name"] for event in events} == {"tiny"}


# --- chats


def test_chat(http: httpx.Client, tiny_server: Server) -> None:
    """A JSON list of messages gets the chat template, whole or streamed."""
    want = greedy_chat(tiny_server, CHAT, 24)["choices"][0]["message"]["content"].strip()
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 24, **GREEDY}
    assert http.post(GENERATE, json=body).json()["text_output"] == want
    events = events_of(http.post(STREAM, json=body | {"stream": True}).text)
    assert "".join(event["text_output"] for event in events) == want
    # The template makes the difference.
    assert want != greedy(tiny_server, json.dumps(CHAT), 24).strip()


def test_one_question_as_a_chat(http: httpx.Client, tiny_server: Server) -> None:
    """The parameter `chat` makes plain text one user message."""
    body = {"text_input": "Name three rivers.", "max_new_tokens": 24, **GREEDY, "chat": True}
    want = greedy_chat(tiny_server, CHAT[:1], 24)["choices"][0]["message"]["content"].strip()
    assert http.post(GENERATE, json=body).json()["text_output"] == want


def test_chats_are_mended_by_rule(http: httpx.Client) -> None:
    """What Gemma's template refuses is mended as for OpenAI's clients, and named."""
    twice = [{"role": "system", "content": "Be brief."}, *CHAT[:1], *CHAT[:1]]
    for path in (GENERATE, STREAM):
        answer = http.post(path, json={"text_input": json.dumps(twice), "max_new_tokens": 2})
        assert answer.status_code == 200
        assert "merge_turns" in answer.headers["x-gemma-serve-prompt"]


def prompt_tokens(server: Server) -> float:
    """As many as the server has counted for its clients."""
    return metric(server, "gemma_serve_prompt_tokens_total", model="tiny")


@pytest.mark.parametrize("as_string", [False, True], ids=["JSON", "string"])
def test_tools(http: httpx.Client, tiny_server: Server, *, as_string: bool) -> None:
    """Tools are part of the prompt; the output tool_calls is there, and empty without a call."""
    usage = greedy_chat(tiny_server, CHAT, 8, tools=TOOLS)["usage"]
    without = greedy_chat(tiny_server, CHAT, 8)["usage"]
    before = prompt_tokens(tiny_server)
    tools = json.dumps(TOOLS) if as_string else TOOLS
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 8, "tools": tools, **GREEDY}
    answer = http.post(GENERATE, json=body).json()
    assert json.loads(answer["tool_calls"]) == []
    assert answer["text_output"]
    assert prompt_tokens(tiny_server) - before == usage["prompt_tokens"]
    assert usage["prompt_tokens"] > without["prompt_tokens"]


def test_a_tool_that_must_be_called(client: Any) -> None:
    """tool_choice makes even random weights call; the arguments fit the schema."""
    choice = {"type": "function", "function": {"name": "lamp"}}
    values = {"text_input": json.dumps(CHAT), "max_new_tokens": 200, **GREEDY}
    result = client.infer(
        "tiny",
        inputs_of(httpclient, values),
        parameters={"tools": json.dumps(TOOLS), "tool_choice": json.dumps(choice)},
    )
    ((call,),) = map(json.loads, texts_of(result, "tool_calls"))
    assert call["function"]["name"] == "lamp"
    assert type(json.loads(call["function"]["arguments"])["on"]) is bool


def test_length_of_a_chat_with_tools(http: httpx.Client, tiny_server: Server) -> None:
    """With tools, max_new_tokens says how long the answer may be, and is needed."""
    body = {"text_input": json.dumps(CHAT), "tools": TOOLS, **GREEDY}
    before = generated_tokens(tiny_server)
    assert http.post(GENERATE, json=body | {"max_new_tokens": 7}).status_code == 200
    assert generated_tokens(tiny_server) - before == 7
    for lengths in ({}, {"max_length": 500}):
        answer = http.post(GENERATE, json=body | lengths)
        assert answer.status_code == 400
        assert "send max_new_tokens" in answer.json()["error"]


def test_template_variables(http: httpx.Client) -> None:
    """chat_template_kwargs go to the template; what it does not declare is refused."""
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 2}
    refused = http.post(GENERATE, json=body | {"chat_template_kwargs": {"opening": "Hi"}})
    assert refused.status_code == 400
    assert "chat_template_kwargs" in refused.json()["error"] or "opening" in refused.json()["error"]


# --- lengths and sampling


def test_max_length_counts_the_prompt(http: httpx.Client, tiny_server: Server) -> None:
    """max_length less the prompt's tokens is what the answer has; 20 where nothing is sent."""
    prompt = PROMPTS[0]
    count = num_tokens(tiny_server, prompt)
    for max_length in (None, 20, count + 1, count + 5, count + 30):
        room = (max_length or 20) - count
        sent = {} if max_length is None else {"max_length": max_length}
        before = generated_tokens(tiny_server)
        answer = http.post(GENERATE, json={"text_input": prompt, **GREEDY, **sent})
        assert answer.json()["text_output"] == greedy(tiny_server, prompt, room).strip()
        assert generated_tokens(tiny_server) - before == 2 * room  # ours and the reference
    for max_length in (1, count):
        answer = http.post(GENERATE, json={"text_input": prompt, "max_length": max_length})
        assert answer.status_code == 400
        assert f"The prompt has {count} tokens and max_length {max_length}" in answer.text


def test_max_new_tokens_wins(http: httpx.Client, tiny_server: Server) -> None:
    """With both, max_new_tokens decides, also where max_length leaves no room."""
    for max_length in (1, 500):
        body = {"text_input": PROMPTS[0], "max_length": max_length, "max_new_tokens": 7, **GREEDY}
        text = http.post(GENERATE, json=body).json()["text_output"]
        assert text == greedy(tiny_server, PROMPTS[0], 7).strip()


def test_max_new_tokens_beyond_the_context(http: httpx.Client, tiny_server: Server) -> None:
    """Asked for more than the context has left, the answer is as long as it has, as in Triton."""
    prompt = "river " * 1300
    room = 4096 - num_tokens(tiny_server, prompt)
    body = {"text_input": prompt, **GREEDY}
    for lengths in ({"max_new_tokens": 100_000}, {"max_length": 100_000}):
        before = generated_tokens(tiny_server)
        answer = http.post(GENERATE, json=body | lengths)
        assert answer.status_code == 200, answer.text
        assert generated_tokens(tiny_server) - before == room


def test_prompt_beyond_the_context(http: httpx.Client) -> None:
    """A prompt that the context can't hold is refused by its length."""
    answer = http.post(GENERATE, json={"text_input": "river " * 6000, "max_new_tokens": 1})
    assert answer.status_code == 400
    assert "4096" in answer.json()["error"]


def test_sampling(http: httpx.Client) -> None:
    """Sampling without a seed gives other texts, also unasked: the checkpoint says do_sample."""

    def answers(**values: Any) -> set[str]:
        body = {"text_input": PROMPTS[0], "max_new_tokens": 16, **values}
        return {http.post(GENERATE, json=body).json()["text_output"] for _ in range(3)}

    assert len(answers(do_sample=True)) == 3
    assert len(answers()) == 3
    (likeliest,) = answers(do_sample=False)
    assert answers(do_sample=False, temperature=2.0, top_k=5) == {likeliest}
    assert answers(do_sample=False, repetition_penalty=5.0) != {likeliest}


def test_sampling_with_one_candidate(http: httpx.Client, tiny_server: Server) -> None:
    """top_k 1, top_p 0 or hardly any temperature leave the likeliest token."""
    # One token, and one that is ahead: bf16 logits of a tiny model often tie.
    body = {"model": "tiny", "prompt": PROMPTS[0], "max_tokens": 1, "logprobs": 2, "temperature": 0}
    (position,) = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"][
        "top_logprobs"
    ]
    first, second = sorted(position.values())[::-1]
    assert first - second > 0.03
    likeliest = greedy(tiny_server, PROMPTS[0], 1).strip()

    def answers(**values: Any) -> set[str]:
        body = {"text_input": PROMPTS[0], "max_new_tokens": 1, "do_sample": True, **values}
        return {http.post(GENERATE, json=body).json()["text_output"] for _ in range(8)}

    for one in ({"top_k": 1}, {"top_p": 0.0}, {"temperature": 0.001}):
        assert answers(**one) == {likeliest}
    assert len(answers(temperature=2.0, top_k=0)) > 1


# --- what goes wrong


def test_unknown_model_and_version(client: Any, http: httpx.Client) -> None:
    """404, in Triton's shape, by every route."""
    inputs = inputs_of(httpclient, {"text_input": "a"})
    for model, version, message in (
        ("other", "", "The model 'other' is not served here; use tiny."),
        ("tiny", "7", "The model 'tiny' has no version '7' here; use 1, or leave it out."),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs, version)
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


def test_wrong_datatype_by_the_client(client: Any) -> None:
    """INT64 where the model has INT32 is an error here as in Triton."""
    wrong = httpclient.InferInput("max_new_tokens", [1], "INT64")
    wrong.set_data_from_numpy(np.array([4], np.int64))
    with pytest.raises(InferenceServerException, match="datatype INT64 and the model takes INT32"):
        client.infer("tiny", [*inputs_of(httpclient, {"text_input": "a"}), wrong])


def test_timeout(client: Any, http: httpx.Client, tiny_server: Server) -> None:
    """`timeout`, in microseconds, ends the request with 504, and the engine with it."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 4000, **GREEDY}
    before = generated_tokens(tiny_server)
    with pytest.raises(InferenceServerException, match=r"timeout of 0\.2 s") as caught:
        client.infer("tiny", inputs_of(httpclient, values), timeout=200_000)
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


def test_priority_is_taken(client: Any, http: httpx.Client) -> None:
    """Triton's priorities from 0 on are taken; what is none is refused."""
    values = {"text_input": PROMPTS[0], "max_new_tokens": 2}
    for priority in (0, 1, 5):
        assert texts_of(client.infer("tiny", inputs_of(httpclient, values), priority=priority))
    for wrong in (-1, 1.5, "1", True, 2**40):
        answer = http.post(GENERATE, json=values | {"priority": wrong})
        assert answer.status_code == 400
        assert "'priority' must be an integer" in answer.json()["error"]
