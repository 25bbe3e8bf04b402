"""The contract of TensorRT-LLM's tensor names on a real engine."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from tests.api.kserve.triton_clients import (
    CHAT,
    TOOLS,
    events_of,
    greedy,
    greedy_chat,
    inputs_of,
    num_tokens,
    texts_of,
)
from tests.servers import Server

PROMPT = "The sea"
GENERATE = "/v2/models/tiny/generate"
COUNTS = {"return_num_input_tokens": True, "return_num_output_tokens": True}
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
WAIT_S = 60


@pytest.fixture(scope="module")
def server(tensorrtllm_server: Server) -> Server:
    """The tiny model with TensorRT-LLM's names."""
    return tensorrtllm_server


def generate(http: httpx.Client, max_tokens: int = 8, **body: Any) -> dict[str, Any]:
    """The answer of /generate."""
    answer = http.post(GENERATE, json={"text_input": PROMPT, "max_tokens": max_tokens} | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def streamed(client: Any, values: dict[str, Any]) -> Iterator[Any]:
    """The responses of one request over ModelStreamInfer, to the final one."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("tiny", inputs_of(grpcclient, values, rows=True))
    final = False
    while not final:
        result, error = answers.get(timeout=WAIT_S)
        assert error is None, error
        final = result.get_response().parameters["triton_final_response"].bool_param
        yield result
    client.stop_stream()
    assert answers.empty()


def test_metadata(client: Any) -> None:
    """The batch dimension is declared, as TensorRT-LLM's ensemble does, and is 1."""
    config = client.get_model_config("tiny", as_json=True)["config"]
    assert (config["backend"], config["max_batch_size"]) == ("tensorrtllm", 1)
    inputs = {one.name: one for one in client.get_model_metadata("tiny").inputs}
    assert list(inputs["text_input"].shape) == [-1, 1]
    assert list(inputs["bad_words"].shape) == [-1, -1]
    assert (inputs["random_seed"].datatype, inputs["beam_width"].datatype) == ("UINT64", "INT32")


def test_first_request_of_the_backends_guide(http: httpx.Client, server: Server) -> None:
    """text_input, max_tokens and empty words, as its quick start sends them with curl: greedy."""
    answer = generate(http, 20, bad_words="", stop_words="")
    assert answer == {
        "model_name": "tiny",
        "model_version": "1",
        "text_output": PROMPT + greedy(server, PROMPT, 20),
        "batch_index": 0,
        "sequence_index": 0,
    }


@pytest.mark.parametrize("kind", [httpclient, grpcclient], ids=["HTTP", "gRPC"])
def test_shapes_with_a_batch_dimension(server: Server, kind: Any) -> None:
    """Inputs of [1, 1] by both clients; a shape without the batch dimension is refused."""
    address = {
        httpclient: server.base_url.removeprefix("http://"),
        grpcclient: server.grpc_address,
    }[kind]
    values = {
        "text_input": PROMPT,
        "max_tokens": 8,
        "bad_words": "",
        "stop_words": "",
        "exclude_input_in_output": True,
    }
    with kind.InferenceServerClient(address) as client:
        result = client.infer("tiny", inputs_of(kind, values, rows=True))
        assert texts_of(result) == [greedy(server, PROMPT, 8)]
        with pytest.raises(Exception, match=r"the shape \[1\] and the model takes \[1, 1\]"):
            client.infer("tiny", inputs_of(kind, values))


def test_prompt_before_the_answer(http: httpx.Client, server: Server) -> None:
    """It comes first, unless excluded or streaming."""
    answer = greedy(server, PROMPT, 8)
    assert generate(http, exclude_input_in_output=False)["text_output"] == PROMPT + answer
    assert generate(http, exclude_input_in_output=True)["text_output"] == answer
    body = {"text_input": PROMPT, "max_tokens": 8, "stream": True}
    events = events_of(http.post(f"{GENERATE}_stream", json=body).text)
    assert len(events) > 1
    assert "".join(event["text_output"] for event in events) == answer


def test_stop_and_bad_words(http: httpx.Client, server: Server) -> None:
    """Generation ends before a stop word, and a bad word does not come."""
    whole = greedy(server, PROMPT, 20)
    stop = whole.split()[3]
    cut = generate(http, 20, stop_words=[stop, ""], exclude_input_in_output=True)
    assert cut["text_output"] == whole[: whole.index(stop)]

    bad = greedy(server, PROMPT, 1)
    without = generate(http, 20, bad_words=[bad], exclude_input_in_output=True)["text_output"]
    assert not without.startswith(bad)


def test_end_id(http: httpx.Client) -> None:
    """The token end_id ends the answer."""
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    answer = http.post("/v1/completions", json=body | {"return_token_ids": True}).json()
    ids = answer["choices"][0]["token_ids"]
    assert ids[3] not in ids[:3]
    assert generate(http, end_id=ids[3], **COUNTS)["num_output_tokens"] == 4
    assert generate(http, end_id=-1, **COUNTS)["num_output_tokens"] == 8


def test_sampling_seed_and_lengths(http: httpx.Client) -> None:
    """top_k or top_p make it sample; a seed repeats; min_tokens holds off the end."""
    sampled = {"top_k": 50, "top_p": 0.95, "temperature": 1.5}
    assert len({generate(http, **sampled)["text_output"] for _ in range(3)}) == 3
    for name in ("seed", "random_seed"):
        assert len({generate(http, **sampled, **{name: 7})["text_output"] for _ in range(3)}) == 1
    assert len({generate(http, temperature=1.5)["text_output"] for _ in range(3)}) == 1
    assert generate(http, min_tokens=8, **COUNTS)["num_output_tokens"] == 8


def test_longer_than_the_context(http: httpx.Client, server: Server) -> None:
    """More tokens than the context holds are as many as it holds."""
    prompt = "river " * 1300
    room = 4096 - num_tokens(server, prompt)
    answer = generate(http, 100_000, text_input=prompt, min_tokens=room, **COUNTS)
    assert answer["num_output_tokens"] == room


def test_several_sequences(http: httpx.Client) -> None:
    """num_return_sequences gives as many texts and counts."""
    answer = generate(http, num_return_sequences=2, top_k=50, **COUNTS)
    assert len({*answer["text_output"]}) == 2
    assert len(answer["num_output_tokens"]) == 2
    assert (answer["sequence_index"], answer["batch_index"]) == ([0, 1], [0, 0])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_several_sequences_come_apart(client: Any, stream: bool) -> None:
    """Over ModelStreamInfer each sequence has its own responses, told apart by sequence_index."""
    values = {"text_input": PROMPT, "max_tokens": 8, "min_tokens": 8, "top_k": 50}
    values |= {"num_return_sequences": 2, "stream": stream, **COUNTS}
    texts, counts = {0: "", 1: ""}, {0: 0, 1: 0}
    for result in streamed(client, values):
        ((index,),) = result.as_numpy("sequence_index").tolist()
        (text,) = texts_of(result)
        texts[index] += text
        ((count,),) = result.as_numpy("num_output_tokens").tolist()
        counts[index] += count
    assert counts == {0: 8, 1: 8}
    assert texts[0] != texts[1]


def test_log_probabilities_and_counts(client: Any, server: Server) -> None:
    """One log probability a token, whose sum is the answer's; prompt and answer are counted."""
    values = {"text_input": PROMPT, "max_tokens": 8, "return_log_probs": True, **COUNTS}
    result = client.infer("tiny", inputs_of(grpcclient, values, rows=True))
    each = result.as_numpy("output_log_probs")
    assert (each.shape, each.dtype) == ((1, 1, 8), np.float32)
    assert (each <= 0).all()
    assert result.as_numpy("cum_log_probs").tolist() == [[pytest.approx(each.sum(), rel=1e-3)]]
    assert result.as_numpy("num_output_tokens").tolist() == [[8]]
    assert result.as_numpy("num_input_tokens").tolist() == [[num_tokens(server, PROMPT)]]


def test_counts_of_a_stream_add_up(client: Any, server: Server) -> None:
    """Over ModelStreamInfer each response counts its own tokens and log probabilities."""
    values = {"text_input": PROMPT, "max_tokens": 16, "stream": True, "return_log_probs": True}
    texts, counted, log_probs = [], 0, 0.0
    for result in streamed(client, values | COUNTS):
        texts += texts_of(result)
        counted += int(result.as_numpy("num_output_tokens").sum())
        log_probs += float(result.as_numpy("output_log_probs").sum())
        ((total,),) = result.as_numpy("cum_log_probs").tolist()
        assert log_probs == pytest.approx(total, rel=1e-3)
    assert len(texts) > 2
    assert ("".join(texts), counted) == (greedy(server, PROMPT, 16), 16)


@pytest.mark.parametrize(
    ("kind", "guide"),
    [("json_schema", json.dumps(SCHEMA)), ("regex", "(red|green)")],
)
def test_guided_decoding(http: httpx.Client, kind: str, guide: str) -> None:
    """A guide binds even random weights."""
    text = generate(
        http,
        100,
        exclude_input_in_output=True,
        guided_decoding_guide_type=kind,
        guided_decoding_guide=guide,
    )["text_output"]
    colour = json.loads(text)["colour"] if kind == "json_schema" else text
    assert colour in ("red", "green")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam_width": 2}, "beam_width 2 can't be served: vLLM has no beam search"),
        ({"return_context_logits": True}, "vLLM gives no logits"),
        ({"return_generation_logits": True}, "vLLM gives no logits"),
        ({"guided_decoding_guide_type": "tag"}, "'tag' is not known"),
        ({"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": "{"}, ""),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"text_input": ["a", "b"]}, r"has the shape [1, 2]"),
        ({"end_id": 2**31}, "INT32"),
    ],
    ids=str,
)
def test_refusals(http: httpx.Client, values: dict[str, Any], message: str) -> None:
    """What is not here is refused by name."""
    answer = http.post(GENERATE, json={"text_input": PROMPT, "max_tokens": 4} | values)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


def test_tensors_that_are_not_here(client: Any) -> None:
    """Embeddings and adapters' weights by tensor are no inputs of this model."""
    values = {"text_input": PROMPT, "max_tokens": 4}
    for name in ("prompt_embedding_table", "lora_weights", "lora_task_id"):
        with pytest.raises(InferenceServerException, match=f"no input '{name}'"):
            client.infer("tiny", inputs_of(grpcclient, values | {name: 0.5}, rows=True))


def test_missing_max_tokens(http: httpx.Client) -> None:
    """max_tokens is no optional input there, nor here."""
    answer = http.post(GENERATE, json={"text_input": PROMPT})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "Input 'max_tokens' is missing; send it as INT32."},
    )


def test_chat_and_tools(http: httpx.Client, server: Server) -> None:
    """The chat template, and tools, by request parameters."""
    want = greedy_chat(server, CHAT, 8)["choices"][0]["message"]["content"]
    text = {"text_input": json.dumps(CHAT), "exclude_input_in_output": True}
    assert generate(http, **text, chat=True)["text_output"] == want
    usage = greedy_chat(server, CHAT, 8, tools=TOOLS)["usage"]
    answer = generate(http, **text, tools=TOOLS, return_log_probs=True, **COUNTS)
    assert (answer["tool_calls"], answer["num_input_tokens"]) == ("[]", usage["prompt_tokens"])
    # vLLM's chat takes the answer apart, and tells no log probabilities.
    assert (answer["cum_log_probs"], answer["output_log_probs"]) == (0.0, [])
