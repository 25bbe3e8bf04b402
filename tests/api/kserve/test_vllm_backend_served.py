"""The contract of Triton's vLLM backend on a real engine: sampling, outputs, adapters, chats."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.api.kserve.triton_clients import (
    CHAT,
    TOOLS,
    events_of,
    generated_tokens,
    greedy,
    greedy_chat,
    metric,
    num_tokens,
    texts_of,
)
from tests.api.kserve.vllm_backend import (
    ADAPTER,
    FLAGS,
    GENERATE,
    PROMPT,
    generate,
    infer,
    refusal,
    sampling,
    stream,
)
from tests.servers import Server


@pytest.fixture(scope="module")
def server(multimodal_server: Server) -> Server:
    """A multimodal model with an adapter, under the names of Triton's documentation."""
    return multimodal_server


# --- the prompt before the answer, and lengths


def test_exclude_input_in_output(http: httpx.Client, server: Server) -> None:
    """The prompt comes first, unless it is excluded or the answer streams."""
    answer = greedy(server, PROMPT, 16)
    zero = {"text_input": PROMPT, "temperature": 0}
    assert generate(http, **zero)["text_output"] == PROMPT + answer
    included = generate(http, **zero, exclude_input_in_output=False)
    assert included["text_output"] == PROMPT + answer
    assert generate(http, **zero, exclude_input_in_output=True)["text_output"] == answer
    for more in ({}, {"exclude_input_in_output": True}):
        events = events_of(
            http.post(f"{GENERATE}_stream", json=zero | {"stream": True} | more).text
        )
        assert len(events) > 1
        assert "".join(event["text_output"] for event in events) == answer
    wrong = {"stream": True, "exclude_input_in_output": False}
    assert "is not allowed when streaming" in refusal(http, **zero, **wrong)


def test_defaults(http: httpx.Client, server: Server) -> None:
    """16 tokens, sampled with temperature 1 as vLLM's SamplingParams are."""
    before = generated_tokens(server)
    body = {"text_input": PROMPT, "parameters": {"ignore_eos": True}}
    texts = {generate(http, **body)["text_output"] for _ in range(3)}
    assert generated_tokens(server) - before == 3 * 16
    assert len(texts) == 3
    counted = generate(http, text_input=PROMPT, return_num_output_tokens=True, ignore_eos=True)
    assert counted["num_output_tokens"] == 16


def test_longer_than_the_context(http: httpx.Client, server: Server) -> None:
    """More tokens than the context holds are as many as it holds, as in the backend."""
    prompt = "river " * 1300
    room = 4096 - num_tokens(server, prompt)
    body = {"text_input": prompt, "sampling_parameters": sampling(max_tokens=100_000)}
    flags = {"return_num_output_tokens": True, "return_finish_reason": True}
    answer = generate(http, **body, **flags)
    assert (answer["num_output_tokens"], answer["finish_reason"]) == (room, "length")


# --- sampling parameters


def test_sampling_parameters_in_a_tensor_or_beside(http: httpx.Client, server: Server) -> None:
    """The tensor wins; without it the request's parameters count, at either level."""
    five = PROMPT + greedy(server, PROMPT, 5)
    for body in (
        {"sampling_parameters": '{"temperature": "0", "max_tokens": "5"}'},
        {"sampling_parameters": '{"temperature": 0, "max_tokens": 5}', "max_tokens": 9},
        {"parameters": {"temperature": 0, "max_tokens": 5}},
        {"parameters": {"sampling_parameters": '{"temperature": 0, "max_tokens": 5}'}},
        {"temperature": 0, "max_tokens": "5"},
    ):
        assert generate(http, text_input=PROMPT, **body)["text_output"] == five


def test_stop_seed_and_structured_outputs(http: httpx.Client, server: Server) -> None:
    """What vLLM's SamplingParams have is there: stop strings, seeds, guided answers."""
    whole = greedy(server, PROMPT, 30)
    stop = whole.split()[3]
    body = {"text_input": PROMPT, "exclude_input_in_output": True}
    cut = generate(http, **body, sampling_parameters=sampling(max_tokens=30, stop=[stop]))
    assert cut["text_output"] == whole[: whole.index(stop)]

    seeded = sampling(temperature=1, seed=7, max_tokens=12)
    once, again = (generate(http, **body, sampling_parameters=seeded) for _ in range(2))
    assert once == again

    choice = sampling(structured_outputs='{"choice": ["red", "green"]}', max_tokens=20)
    choice = json.dumps({**json.loads(choice), "ignore_eos": False})
    assert generate(http, **body, sampling_parameters=choice)["text_output"] in ("red", "green")


def test_several_answers(client: Any, http: httpx.Client) -> None:
    """n answers are n texts, each with the prompt, and n counts."""
    several = sampling(n=3, temperature=1, max_tokens=8)
    body = {"text_input": PROMPT, "sampling_parameters": several} | FLAGS
    answer = generate(http, **body)
    assert len({*answer["text_output"]}) == 3
    assert all(text.startswith(PROMPT) for text in answer["text_output"])
    assert answer["num_output_tokens"] == [8, 8, 8]
    assert answer["finish_reason"] == ["length"] * 3
    assert isinstance(answer["num_input_tokens"], int)

    results = stream(client, body)
    counted = sum(int(result.as_numpy("num_output_tokens").sum()) for result in results)
    assert counted == 3 * 8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"early_stopping": True}, "The sampling parameter 'early_stopping' is not known; use"),
        ({"prompt_logprobs": 1}, "'prompt_logprobs' is not known"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n must be"),
        ({"structured_outputs": "{"}, "structured_outputs is no JSON in a string"),
        ({"lora_name": "other"}, f"The adapter 'other' is not loaded; use {ADAPTER}."),
    ],
    ids=str,
)
def test_refused_sampling_parameters(
    http: httpx.Client, parameters: dict[str, Any], message: str
) -> None:
    """A parameter that vLLM does not have, or would not take, is named; in both forms."""
    for body in ({"sampling_parameters": json.dumps(parameters)}, {"parameters": parameters}):
        assert message in refusal(http, text_input=PROMPT, **body)


# --- additional outputs


def test_all_outputs_whole_and_streamed(client: Any, server: Server) -> None:
    """What the pieces of a stream say adds up to what the whole answer says."""
    values = {
        "text_input": PROMPT,
        "sampling_parameters": sampling(max_tokens=20, logprobs=2),
        "exclude_input_in_output": True,
        **FLAGS,
    }
    whole, pieces = infer(client, values), stream(client, values)
    assert len(pieces) > 2

    def column(name: str) -> list[Any]:
        return [value for piece in pieces for value in piece.as_numpy(name).ravel()]

    assert texts_of(whole) == [greedy(server, PROMPT, 20)]
    assert "".join(text for piece in pieces for text in texts_of(piece)) == texts_of(whole)[0]

    assert whole.as_numpy("num_output_tokens").tolist() == [20]
    assert sum(column("num_output_tokens")) == 20
    assert whole.as_numpy("num_input_tokens").tolist() == [num_tokens(server, PROMPT)]
    assert {*column("num_input_tokens")} == {num_tokens(server, PROMPT)}
    for name in ("num_input_tokens", "num_output_tokens"):
        assert whole.as_numpy(name).dtype == np.uint32

    assert texts_of(whole, "finish_reason") == ["length"]
    assert column("finish_reason") == [b"None"] * (len(pieces) - 1) + [b"length"]

    (logprobs,) = map(json.loads, texts_of(whole, "logprobs"))
    streamed = [one for text in column("logprobs") for one in json.loads(text)]
    assert [position.keys() for position in streamed] == [one.keys() for one in logprobs]
    assert len(logprobs) == 20
    for position in logprobs:
        assert len(position) == 2
        assert all(int(token_id) >= 0 for token_id in position)
        for one in position.values():
            assert one.keys() == {"logprob", "rank", "decoded_token"}
            assert one["logprob"] <= 0
    # The first of each position was taken: greedy, none is likelier.
    taken = [next(iter(position.values())) for position in logprobs]
    for one, position in zip(taken, logprobs, strict=True):
        assert one["logprob"] == max(other["logprob"] for other in position.values())
    # A token may be half a character, which only the text can show.
    decoded = "".join(one["decoded_token"] for one in taken)
    assert decoded.replace("\ufffd", "") == texts_of(whole)[0].replace("\ufffd", "")
    (total,) = whole.as_numpy("cumulative_logprob").tolist()
    assert total == pytest.approx(sum(one["logprob"] for one in taken), rel=1e-3)
    assert column("cumulative_logprob")[-1] == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("flag", FLAGS)
def test_one_output_alone(http: httpx.Client, flag: str) -> None:
    """Each flag brings its output, and false or nothing does not."""
    body = {"text_input": PROMPT, "max_tokens": 3, "temperature": 0}
    heading = {"model_name", "model_version", "text_output"}
    assert generate(http, **body).keys() == heading
    assert generate(http, **body, **{flag: False}).keys() == heading
    assert generate(http, **body, **{flag: True}).keys() == heading | {flag.removeprefix("return_")}


def test_logprobs_that_were_not_asked_for(client: Any, http: httpx.Client) -> None:
    """Without `logprobs` in the sampling parameters there are none to give, as in the backend."""
    values = {"text_input": PROMPT, "return_cumulative_logprob": True, "return_logprobs": True}
    result = infer(client, values)
    assert texts_of(result, "logprobs") == ["null"]
    assert math.isnan(result.as_numpy("cumulative_logprob")[0])
    answer = generate(http, **values)
    assert (answer["logprobs"], answer["cumulative_logprob"]) == ("null", None)


def test_requested_outputs(client: Any) -> None:
    """Only the outputs that are asked for come, whatever the flags say."""
    values = {"text_input": PROMPT, **FLAGS}
    wanted = [grpcclient.InferRequestedOutput("num_output_tokens")]
    (output,) = infer(client, values, outputs=wanted).get_response().outputs
    assert output.name == "num_output_tokens"


# --- adapters


def test_adapter(http: httpx.Client, server: Server) -> None:
    """lora_name chooses the adapter, which answers otherwise; so does its name as the model."""
    body = {"text_input": PROMPT, "exclude_input_in_output": True}
    openai = {"model": ADAPTER, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    want = http.post("/v1/completions", json=openai).json()["choices"][0]["text"]
    assert want != greedy(server, PROMPT, 16)
    named = generate(http, **body, parameters={"temperature": 0, "lora_name": ADAPTER})
    assert named["text_output"] == want
    in_tensor = sampling(max_tokens=16, ignore_eos=False, lora_name=ADAPTER)
    assert generate(http, **body, sampling_parameters=in_tensor)["text_output"] == want
    as_model = http.post(f"/v2/models/{ADAPTER}/generate", json=body | {"temperature": 0}).json()
    assert (as_model["text_output"], as_model["model_name"]) == (want, ADAPTER)
    without = generate(http, **body, parameters={"temperature": 0})
    assert without["text_output"] == greedy(server, PROMPT, 16)


# --- chats and tools


def test_chat_by_parameter(client: Any, server: Server) -> None:
    """`chat` over gRPC puts a list of messages through the template; the prompt comes not first."""
    want = greedy_chat(server, CHAT, 16)["choices"][0]["message"]["content"]
    values = {"text_input": json.dumps(CHAT), "exclude_input_in_output": True}
    result = infer(client, values, parameters={"chat": True, "temperature": 0.0})
    assert texts_of(result) == [want]


def test_tools_by_parameter(client: Any, server: Server) -> None:
    """Tools stand in the prompt; the call that is asked for comes in tool_calls."""
    usage = greedy_chat(server, CHAT, 4, tools=TOOLS)["usage"]
    flags = {"return_num_input_tokens": True, "return_logprobs": True}
    values = {"text_input": json.dumps(CHAT), **flags}
    tools = {"tools": json.dumps(TOOLS), "temperature": 0.0, "max_tokens": 4}
    result = infer(client, values, parameters=tools)
    assert texts_of(result, "tool_calls") == ["[]"]
    # vLLM's chat takes the answer apart, and tells no log probabilities.
    assert texts_of(result, "logprobs") == ["null"]
    assert result.as_numpy("num_input_tokens").tolist() == [usage["prompt_tokens"]]

    choice = {"type": "function", "function": {"name": "lamp"}}
    forced = tools | {"tool_choice": json.dumps(choice), "max_tokens": 200}
    result = infer(client, values, parameters=forced)
    ((call,),) = map(json.loads, texts_of(result, "tool_calls"))
    assert call["function"]["name"] == "lamp"


def test_defaults_with_tools(http: httpx.Client, server: Server) -> None:
    """With tools too, what is not sent is vLLM's default and not the checkpoint's."""
    neutral = {"temperature": 1, "top_p": 1, "top_k": 0, "seed": 7, "ignore_eos": True}
    want = greedy_chat(server, CHAT, 16, tools=TOOLS, **neutral)["choices"][0]["message"]
    own = greedy_chat(server, CHAT, 16, tools=TOOLS, temperature=1, seed=7, ignore_eos=True)
    assert own["choices"][0]["message"]["content"] != want["content"]
    parameters = {"tools": TOOLS, "seed": 7, "ignore_eos": True}
    answer = generate(http, text_input=json.dumps(CHAT), parameters=parameters)
    assert answer["text_output"] == want["content"]


# --- what the operator sees


def test_metadata(http: httpx.Client) -> None:
    """The model is decoupled, as the backend's; every name of it is a model."""
    config = http.get("/v2/models/vllm_model/config").json()
    assert (config["backend"], config["max_batch_size"]) == ("vllm", 0)
    assert config["model_transaction_policy"] == {"decoupled": True}
    index = http.post("/v2/repository/index").json()
    assert [one["name"] for one in index] == ["tiny", "vllm_model", "mymodel", ADAPTER]


def test_counters_on_both_ports(
    http: httpx.Client, server: Server, vllm_backend_metrics_port: int
) -> None:
    """Triton's counters are on the metrics port and on the main one, and say what /stats says."""
    generate(http, text_input=PROMPT, max_tokens=2)
    (stats,) = http.get("/v2/models/vllm_model/stats").json()["model_stats"]
    other = Server(server.process, server.log, f"http://127.0.0.1:{vllm_backend_metrics_port}")
    for shown in (server, other):

        def counter(name: str, shown: Server = shown) -> float:
            return metric(shown, f"nv_inference_{name}", model="vllm_model", version="1")

        assert counter("count") == stats["inference_count"] > 0
        assert counter("request_success") == stats["inference_stats"]["success"]["count"]
        assert counter("request_failure") == stats["inference_stats"]["fail"]["count"]
        infer_us = stats["inference_stats"]["compute_infer"]["ns"] / 1000
        assert counter("compute_infer_duration_us") == pytest.approx(infer_us)
        assert metric(shown, "vllm:generation_tokens_total") > 0


def test_trace_has_ids_and_no_text(http: httpx.Client, client: Any, server: Server) -> None:
    """With triton.inference_trace each request is a line with its id and counts, never its text."""
    secret = "quokka quokka"
    generate(http, text_input=secret, id="over-http", max_tokens=3, ignore_eos=True)
    infer(client, {"text_input": secret}, request_id="over-grpc")
    # The log is in order: behind gRPC's line, which follows its answer, nothing is missing.
    server.wait_for("request over-grpc: model vllm_model, answered")
    said = server.output()
    count = num_tokens(server, secret)
    line = f"request over-http: model vllm_model, answered, {count} prompt and 3 answer tokens"
    assert line in said
    assert "quokka" not in said


def test_refusal_over_grpc(client: Any) -> None:
    """An unknown sampling parameter is INVALID_ARGUMENT over gRPC."""
    with pytest.raises(InferenceServerException, match="'early_stopping' is not known") as caught:
        infer(client, {"text_input": PROMPT, "sampling_parameters": '{"early_stopping": true}'})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
