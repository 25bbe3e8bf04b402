"""What a request of each contract asks of the engine, and what its answer holds; no engine."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from gemma_serve.engine.pieces import ChatPrompt, Part, Piece, TextPrompt
from gemma_serve.errors import ProfileError, RequestError
from gemma_serve.triton.contracts import CONTRACTS, Call, Inputs
from gemma_serve.triton.contracts.check import (
    MAX_OUTPUTS,
    check_inputs,
    check_outputs,
    declared_shape,
    default_tensors,
    specs_of,
    tensor_of,
)
from gemma_serve.triton.tensors import Tensor, numbers, strings, to_json

PYTHON, VLLM, TENSORRT = (
    CONTRACTS[name] for name in ("python-backend", "vllm-backend", "tensorrtllm")
)
CHAT = [{"role": "user", "content": "Hi"}]
COUNTS = ("return_num_input_tokens", "return_num_output_tokens")
TOOLS = [{"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}]


def read(
    contract: Any,
    parameters: dict[str, Any] | None = None,
    generation_config: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
    **values: Any,
) -> Call:
    """The call of a request with these inputs."""
    specs = specs_of(contract)
    tensors = [tensor_of(contract, specs[name], value) for name, value in values.items()]
    standing = default_tensors(contract, defaults or {})
    found = check_inputs(contract, tensors, standing, parameters)
    call: Call = contract.read(Inputs(found), parameters or {}, generation_config or {})
    return call


def written(contract: Any, call: Call, *parts: Part, texts: list[str] | None = None) -> Any:
    """The outputs of one piece by name, as JSON has them."""
    piece = Piece(parts, "prompt", 7, finished=True)
    tensors = contract.write(call, texts or [part.text for part in parts], [piece])
    return {tensor.name: to_json(tensor) for tensor in tensors}


def refused(contract: Any, match: str, **request: Any) -> None:
    """The request is the client's mistake."""
    with pytest.raises(RequestError, match=match):
        read(contract, **request)


# --- what all share


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_outputs_are_the_declared_ones(contract: Any) -> None:
    """With every flag set, each output has a declared name and datatype, and fits its shape."""
    flags = {
        spec.name: True
        for spec in contract.inputs
        if spec.name.startswith("return_") and "logits" not in spec.name
    }
    needed = {PYTHON: {"max_new_tokens": 3}, VLLM: {}, TENSORRT: {"max_tokens": 3}}[contract]
    call = read(contract, {"tools": TOOLS}, text_input="a", **needed, **flags)
    logprobs = [{"5": {"logprob": -1.0, "rank": 1, "decoded_token": "x"}}]
    part = Part("x", 1, "length", -1.0, logprobs)
    made = contract.write(call, ["x"], [Piece((part,), "a", 2, finished=True)])
    declared = {spec.name: spec for spec in contract.outputs}
    assert {tensor.name for tensor in made} == declared.keys()
    for tensor in made:
        spec = declared[tensor.name]
        assert tensor.datatype == spec.datatype
        shape = declared_shape(contract, spec)
        if contract is TENSORRT and tensor.name == "text_output":
            # NVIDIA's postprocessing leaves out the batch dimension, and its clients rely on that.
            shape = list(spec.dims)
        assert len(tensor.shape) == len(shape), tensor
        assert all(want in (-1, size) for want, size in zip(shape, tensor.shape, strict=True))
        assert len(tensor.values) == math.prod(tensor.shape)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_inputs_are_held_to_the_contract(contract: Any) -> None:
    """Another name, datatype or shape, an input twice or none at all: each is refused by name."""
    shape = (1, 1) if contract.max_batch_size else (1,)
    text = Tensor("text_input", "BYTES", shape, (b"a",))
    wrong = {
        "has no input 'prompt'": [Tensor("prompt", "BYTES", shape, (b"a",))],
        "'text_input' is there twice": [text, text],
        "'text_input' is missing": [],
        "datatype INT32 and the model takes BYTES": [Tensor("text_input", "INT32", shape, (1,))],
        r"shape \[1, 1, 1\]": [Tensor("text_input", "BYTES", (1, 1, 1), (b"a",))],
        r"'stream' has the shape": [text, Tensor("stream", "BOOL", (*shape[1:], 2), (True, True))],
    }
    for message, tensors in wrong.items():
        with pytest.raises(RequestError, match=message):
            check_inputs(contract, tensors, {})


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_requested_outputs(contract: Any) -> None:
    """Only outputs that there are, and no more than 16."""
    check_outputs(contract, ["text_output"] * MAX_OUTPUTS)
    with pytest.raises(RequestError, match="asks for 17 outputs"):
        check_outputs(contract, ["text_output"] * (MAX_OUTPUTS + 1))
    with pytest.raises(RequestError, match="has no output 'logits'; its outputs are text_output"):
        check_outputs(contract, ["logits"])


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_text_must_be_utf8(contract: Any) -> None:
    """Bytes that are no text are refused without being repeated."""
    shape = (1, 1) if contract.max_batch_size else (1,)
    found = {"text_input": Tensor("text_input", "BYTES", shape, (b"ab\xff",))}
    if contract is TENSORRT:
        found["max_tokens"] = Tensor("max_tokens", "INT32", shape, (1,))
    with pytest.raises(RequestError, match="not UTF-8 at byte 2"):
        contract.read(Inputs(found), {}, {})


def test_default_inputs_of_the_profile() -> None:
    """The profile's values stand for what a request leaves out, and only for that."""
    defaults = {"max_new_tokens": 5, "do_sample": True, "temperature": 0.5}
    call = read(PYTHON, defaults=defaults, text_input="a")
    assert (call.sampling["max_tokens"], call.sampling["temperature"]) == (5, 0.5)
    assert (
        read(PYTHON, defaults=defaults, text_input="a", max_new_tokens=9).sampling["max_tokens"]
        == 9
    )
    for name, value in {"text_input": "a", "max_tokens": 1}.items():
        with pytest.raises(ProfileError, match=f"{name!r}, which is no optional input"):
            default_tensors(PYTHON, {name: value})
    with pytest.raises(ProfileError, match="INT32 and was sent a string"):
        default_tensors(PYTHON, {"max_new_tokens": "many"})


@pytest.mark.parametrize(
    ("contract", "defaults", "sent", "read_as"),
    [
        (PYTHON, {"max_new_tokens": 256}, {"max_length": 30}, (None, 30)),
        (PYTHON, {"max_new_tokens": 256}, {"temperature": 1.0}, (256, None)),
        (PYTHON, {"max_length": 30}, {"max_new_tokens": 5}, (5, None)),
        (PYTHON, {"max_new_tokens": 256, "max_length": 30}, {}, (256, None)),
    ],
)
def test_a_default_gives_way_to_what_says_the_same(
    contract: Any, defaults: dict[str, Any], sent: dict[str, Any], read_as: tuple[Any, Any]
) -> None:
    """A length that a request sends wins over the profile's, whichever of the two it names."""
    call = read(contract, defaults=defaults, text_input="a", **sent)
    assert (call.sampling.get("max_tokens"), call.max_total_tokens) == read_as


def test_default_sampling_gives_way_to_parameters() -> None:
    """Of Triton's vLLM backend: sampling sent as parameters replaces the profile's, as a tensor."""
    defaults = {"sampling_parameters": '{"temperature": 0.7, "max_tokens": 99}'}
    assert read(VLLM, defaults=defaults, text_input="a").sampling["max_tokens"] == 99
    chat = read(VLLM, {"chat": True}, defaults=defaults, text_input="a")
    assert chat.sampling["max_tokens"] == 99
    for sent in (
        read(VLLM, {"temperature": 0}, defaults=defaults, text_input="a"),
        read(VLLM, defaults=defaults, text_input="a", sampling_parameters='{"temperature": 0}'),
    ):
        assert sent.sampling == {"max_tokens": 16, "temperature": 0}


def test_a_stream_wins_over_a_default_prompt() -> None:
    """exclude_input_in_output false as the profile's is for whole answers; one sent is the rule."""
    defaults = {"exclude_input_in_output": False}
    assert read(VLLM, defaults=defaults, text_input="a").prepends_prompt
    streamed = read(VLLM, defaults=defaults, text_input="a", stream=True)
    assert (streamed.stream, streamed.prepends_prompt) == (True, False)
    with_prompt = read(
        VLLM, defaults={"stream": True}, text_input="a", exclude_input_in_output=False
    )
    assert (with_prompt.stream, with_prompt.prepends_prompt) == (False, True)


def test_tensorrts_older_names_win_over_defaults() -> None:
    """A name of TensorRT-LLM's that is sent wins over the profile's value of its other name."""
    defaults = {"min_tokens": 9, "seed": 9}
    call = read(
        TENSORRT, defaults=defaults, text_input="a", max_tokens=4, min_length=2, random_seed=3
    )
    assert (call.sampling["min_tokens"], call.sampling["seed"]) == (2, 3)


def test_batch_dimension_is_declared() -> None:
    """Metadata shows the batch dimension where the contract has one, and takes only 1."""
    (text, *_) = TENSORRT.inputs
    assert declared_shape(TENSORRT, text) == [-1, 1]
    assert declared_shape(PYTHON, PYTHON.inputs[0]) == [-1]
    two = Tensor("text_input", "BYTES", (2, 1), (b"a", b"b"))
    with pytest.raises(RequestError, match=r"shape \[2, 1\] and the model takes \[1, 1\]"):
        check_inputs(TENSORRT, [two], {})


# --- chats

ALL = pytest.mark.parametrize(
    ("contract", "more"),
    [(PYTHON, {"max_new_tokens": 4}), (VLLM, {}), (TENSORRT, {"max_tokens": 4})],
    ids=CONTRACTS,
)


@ALL
def test_a_parameter_makes_a_chat(contract: Any, more: dict[str, Any]) -> None:
    """`chat` puts plain text, or a list of messages, through the template; false does not."""
    (prompt,) = read(contract, {"chat": True}, text_input="Hi", **more).prompts
    assert prompt == ChatPrompt(CHAT)
    (prompt,) = read(contract, {"chat": True}, text_input=json.dumps(CHAT), **more).prompts
    assert prompt == ChatPrompt(CHAT)
    (prompt,) = read(contract, {"chat": False}, text_input="Hi", **more).prompts
    assert prompt == TextPrompt("Hi")


@ALL
def test_tools_in_json_or_in_a_string(contract: Any, more: dict[str, Any]) -> None:
    """Over gRPC a parameter is a string; over HTTP it may be JSON itself."""
    choice = {"type": "function", "function": {"name": "lamp"}}
    kwargs = {"enable_thinking": False}
    as_json = {"tools": TOOLS, "tool_choice": choice, "chat_template_kwargs": kwargs}
    as_strings = {name: json.dumps(value) for name, value in as_json.items()}
    want = ChatPrompt(CHAT, TOOLS, choice, kwargs)
    for parameters in (as_json, as_strings):
        assert read(contract, parameters, text_input="Hi", **more).prompts == (want,)
    named = read(contract, {"tools": TOOLS, "tool_choice": "auto"}, text_input="Hi", **more)
    assert named.prompts[0].tool_choice == "auto"


@ALL
@pytest.mark.parametrize(
    "parameters",
    [
        {"tools": "{}"},
        {"tools": "["},
        {"tools": 7},
        {"tools": {}},
        {"chat_template_kwargs": "[]"},
        {"chat_template_kwargs": "text"},
        {"chat_template_kwargs": 1.5},
        {"tool_choice": "{"},
        {"tools": "[" * 100_000},
    ],
    ids=str,
)
def test_parameters_that_are_no_json(
    contract: Any, more: dict[str, Any], parameters: dict[str, Any]
) -> None:
    """A parameter of another kind is refused by name."""
    (name,) = parameters
    message = f"parameter '{name}' must be"
    refused(contract, message, parameters=parameters, text_input="Hi", **more)


@pytest.mark.parametrize("text", ["[1, 2]", "[]", '[{"content": "x"}]', ' ["Hi"]', "[null]"])
def test_a_list_that_is_no_chat(text: str) -> None:
    """In the python backend's contract a JSON list must be a chat; elsewhere it is text."""
    refused(PYTHON, "a JSON list and no chat", text_input=text)
    assert read(VLLM, text_input=text).prompts == (TextPrompt(text),)
    assert read(TENSORRT, text_input=text, max_tokens=1).prompts == (TextPrompt(text),)


@pytest.mark.parametrize("text", ["[1] Smith et al.", "[", "[[[" * 50_000, '{"role": "user"}', ""])
def test_text_that_begins_like_json(text: str) -> None:
    """Text that is no JSON list stays text."""
    assert read(PYTHON, text_input=text).prompts == (TextPrompt(text),)


# --- python backend


def test_python_defaults_are_transformers() -> None:
    """Nothing sent: greedy, and 20 tokens with the prompt."""
    call = read(PYTHON, text_input="a")
    assert call.sampling == {"repetition_penalty": 1.0, "temperature": 0.0}
    assert (call.max_total_tokens, call.stream, call.strips) == (20, False, True)
    assert not call.prepends_prompt


def test_python_lengths() -> None:
    """max_new_tokens counts the answer and wins; max_length counts the prompt too."""
    call = read(PYTHON, text_input="a", max_length=50)
    assert (call.max_total_tokens, call.sampling.get("max_tokens")) == (50, None)
    for max_length in (1, 50, 0, -5):
        call = read(PYTHON, text_input="a", max_length=max_length, max_new_tokens=7)
        assert (call.max_total_tokens, call.sampling["max_tokens"]) == (None, 7)
    for value in (0, -1, -(2**31)):
        refused(PYTHON, "max_new_tokens is", text_input="a", max_new_tokens=value)
        refused(PYTHON, "max_length is", text_input="a", max_length=value)
        refused(PYTHON, "max_new_tokens", text_input="a", max_length=value, max_new_tokens=value)


@pytest.mark.parametrize("parameters", [{"tools": TOOLS}, {"chat_template_kwargs": {"a": 1}}])
@pytest.mark.parametrize("lengths", [{}, {"max_length": 500}])
def test_python_answers_that_are_parsed_have_their_own_length(
    parameters: dict[str, Any], lengths: dict[str, int]
) -> None:
    """What vLLM's chat takes apart is as long as max_new_tokens says."""
    refused(PYTHON, "send max_new_tokens", parameters=parameters, text_input="a", **lengths)
    call = read(PYTHON, parameters, text_input="a", max_new_tokens=5, **lengths)
    assert (call.max_total_tokens, call.sampling["max_tokens"]) == (None, 5)


def test_python_sampling() -> None:
    """With do_sample, transformers' values: temperature 1, top_k 50, top_p 1."""
    call = read(PYTHON, text_input="a", do_sample=True)
    want = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
    assert call.sampling == want
    sent = {"temperature": 0.5, "top_k": 3, "top_p": 0.25, "repetition_penalty": 1.5}
    assert read(PYTHON, text_input="a", do_sample=True, **sent).sampling == sent
    greedy = read(PYTHON, text_input="a", do_sample=False, **sent).sampling
    assert greedy == {"temperature": 0.0, "repetition_penalty": 1.5}
    likeliest = read(PYTHON, text_input="a", do_sample=True, top_p=0.0).sampling
    assert (likeliest["top_k"], "top_p" in likeliest) == (1, False)


def test_python_takes_the_checkpoints_sampling() -> None:
    """generation_config.json comes before transformers' defaults, and after the request."""
    config = {"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": [1, 106]}
    call = read(PYTHON, generation_config=config, text_input="a")
    want = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 64}
    assert call.sampling == want | {"top_p": 0.95}
    call = read(PYTHON, generation_config=config, text_input="a", top_p=0.5)
    assert call.sampling == want | {"top_p": 0.5}
    call = read(PYTHON, generation_config=config, text_input="a", do_sample=False)
    assert call.sampling == {"repetition_penalty": 1.0, "temperature": 0.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0; it must be greater than 0; do_sample false"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_k": -1}, "top_k is -1; it must be 0 or more"),
        ({"top_p": 1.5}, "top_p is 1.5; it must be from 0 to 1"),
        ({"top_p": -0.5}, "top_p is -0.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0; it must be greater than 0"),
    ],
)
def test_python_values_that_transformers_refuses(values: dict[str, Any], message: str) -> None:
    """What transformers raises for is refused; sampling values only when sampling."""
    refused(PYTHON, message, text_input="a", do_sample=True, **values)
    if "repetition_penalty" in values:
        refused(PYTHON, message, text_input="a", **values)
    else:
        assert read(PYTHON, text_input="a", do_sample=False, **values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty"])
def test_python_floats_are_finite(name: str, value: float) -> None:
    """Bytes can say NaN; no sampling can."""
    found = {"text_input": strings("text_input", ["a"]), name: numbers(name, "FP32", [value])}
    with pytest.raises(RequestError, match=f"{name!r} is no finite number"):
        PYTHON.read(Inputs(found), {}, {})


def test_python_texts() -> None:
    """Several texts are several prompts, up to 128; a stream has one."""
    call = read(PYTHON, text_input=["a", json.dumps(CHAT), "c"])
    assert call.prompts == (TextPrompt("a"), ChatPrompt(CHAT), TextPrompt("c"))
    assert len(read(PYTHON, text_input=["a"] * 128).prompts) == 128
    refused(PYTHON, "has 129 texts; send at least 1 and at most 128", text_input=["a"] * 129)
    refused(PYTHON, "has 0 texts", text_input=[])
    refused(PYTHON, "at most 1 when streaming", text_input=["a", "b"], stream=True)
    assert read(PYTHON, text_input="a", stream=True).stream


def test_python_answer() -> None:
    """The text alone; with tools, their calls as JSON, an empty list where there are none."""
    assert written(PYTHON, read(PYTHON, text_input="a"), Part("x", 1, None)) == {
        "text_output": ["x"]
    }
    call = read(PYTHON, {"tools": TOOLS}, text_input="a", max_new_tokens=4)
    made = [{"id": "1", "type": "function", "function": {"name": "lamp", "arguments": "{}"}}]
    assert written(PYTHON, call, Part("", 1, "stop", tool_calls=made)) == {
        "text_output": [""],
        "tool_calls": [json.dumps(made)],
    }
    assert written(PYTHON, call, Part("x", 1, "stop"))["tool_calls"] == ["[]"]


# --- Triton's vLLM backend


def test_vllm_defaults() -> None:
    """16 tokens, vLLM's own sampling, and the prompt first unless streaming."""
    call = read(VLLM, text_input="a")
    assert call.sampling == {"max_tokens": 16}
    assert (call.prepends_prompt, call.stream, call.strips) == (True, False, False)
    assert not read(VLLM, text_input="a", stream=True).prepends_prompt
    # generation_config.json is not the backend's.
    assert read(VLLM, generation_config={"top_k": 64}, text_input="a").sampling == call.sampling


def test_vllm_exclude_input_in_output() -> None:
    """True leaves the prompt out; false with a stream is the backend's error."""
    assert not read(VLLM, text_input="a", exclude_input_in_output=True).prepends_prompt
    assert read(VLLM, text_input="a", exclude_input_in_output=False).prepends_prompt
    assert not read(VLLM, text_input="a", exclude_input_in_output=True, stream=True).prepends_prompt
    refused(
        VLLM,
        "false is not allowed when streaming",
        text_input="a",
        exclude_input_in_output=False,
        stream=True,
    )


def test_vllm_sampling_comes_from_the_tensor_or_the_parameters() -> None:
    """The tensor wins over the request's parameters, of which then none counts."""
    sent = {"temperature": "0.1", "max_tokens": "100"}
    call = read(VLLM, {"top_p": 0.5}, text_input="a", sampling_parameters=json.dumps(sent))
    assert call.sampling == {"temperature": "0.1", "max_tokens": "100"}
    call = read(VLLM, {"top_p": 0.5, "temperature": 0}, text_input="a")
    assert call.sampling == {"max_tokens": 16, "top_p": 0.5, "temperature": 0}


def test_vllm_adapter_and_structured_outputs() -> None:
    """lora_name is no sampling; structured_outputs is JSON in a string within the JSON."""
    sent = {"lora_name": "poet", "structured_outputs": '{"choice": ["a", "b"]}'}
    for call in (
        read(VLLM, text_input="a", sampling_parameters=json.dumps(sent)),
        read(VLLM, sent, text_input="a"),
    ):
        assert call.adapter == "poet"
        want = {"max_tokens": 16, "structured_outputs": {"choice": ["a", "b"]}}
        assert call.sampling == want
    bad = json.dumps({"structured_outputs": "{"})
    refused(VLLM, "no JSON in a string", text_input="a", sampling_parameters=bad)


@pytest.mark.parametrize("text", ["", "x", "[]", "1", "null", '"{}"', "{", "[" * 100_000])
def test_vllm_sampling_parameters_that_are_no_object(text: str) -> None:
    """Anything but a JSON object in the string is refused, with an example."""
    refused(VLLM, "no JSON object in a string", text_input="a", sampling_parameters=text)


def test_vllm_images() -> None:
    """Images go with text, in their order; a chat has parts for them."""
    call = read(VLLM, text_input="a", image=["one", "two"])
    assert call.prompts == (TextPrompt("a", ("one", "two")),)
    assert read(VLLM, text_input="a", image=[]).prompts == (TextPrompt("a"),)
    refused(VLLM, "goes with plain text", parameters={"chat": True}, text_input="a", image=["b"])


def test_vllm_outputs() -> None:
    """Each flag adds its output, one value an answer; the count of the prompt is one number."""
    logprobs = [{"5": {"logprob": -0.5, "rank": 1, "decoded_token": "x"}}]
    parts = (Part("x", 2, "stop", -0.5, logprobs), Part("y", 3, None))
    flags = {
        "return_finish_reason": ("finish_reason", ["stop", "None"]),
        "return_cumulative_logprob": ("cumulative_logprob", [-0.5, None]),
        "return_logprobs": ("logprobs", [json.dumps(logprobs), "null"]),
        "return_num_input_tokens": ("num_input_tokens", [7]),
        "return_num_output_tokens": ("num_output_tokens", [2, 3]),
    }
    for flag, (name, values) in flags.items():
        call = read(VLLM, text_input="a", **{flag: True})
        assert written(VLLM, call, *parts) == {"text_output": ["x", "y"], name: values}
        assert written(VLLM, read(VLLM, text_input="a", **{flag: False}), *parts).keys() == {
            "text_output"
        }


# --- TensorRT-LLM


def test_tensorrt_is_greedy_by_default() -> None:
    """Neither top_k nor top_p: the likeliest token, whatever the temperature; 0 is off."""
    for more in ({}, {"top_k": 0}, {"top_p": 0.0}, {"temperature": 0.7}):
        sampling = read(TENSORRT, text_input="a", max_tokens=4, **more).sampling
        assert sampling == {"max_tokens": 4, "temperature": 0.0, "stop": [], "bad_words": []}
    sampled = read(TENSORRT, text_input="a", max_tokens=4, top_k=5, temperature=0.5).sampling
    assert (sampled["top_k"], sampled["temperature"], "top_p" in sampled) == (5, 0.5, False)
    sampled = read(TENSORRT, text_input="a", max_tokens=4, top_p=0.5).sampling
    assert (sampled["top_p"], "top_k" in sampled, "temperature" in sampled) == (0.5, False, False)


def test_tensorrt_names() -> None:
    """Its names, and the older ones of min_tokens and seed, as vLLM's."""
    sent = {"repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    words = {"bad_words": ["", "bad"], "stop_words": ["end", ""]}
    call = read(
        TENSORRT,
        text_input="a",
        max_tokens=4,
        top_k=2,
        end_id=9,
        pad_id=0,
        length_penalty=1.0,
        beam_width=1,
        num_return_sequences=2,
        min_length=3,
        random_seed=2**64 - 1,
        **sent,
        **words,
    )
    assert call.sampling == {
        "max_tokens": 4,
        "top_k": 2,
        "min_tokens": 3,
        "seed": 2**64 - 1,
        "n": 2,
        "stop": ["end"],
        "bad_words": ["bad"],
        "stop_token_ids": [9],
        **sent,
    }
    newer = read(
        TENSORRT, text_input="a", max_tokens=4, min_tokens=1, min_length=3, seed=0, random_seed=5
    ).sampling
    assert (newer["min_tokens"], newer["seed"]) == (1, 0)
    assert "stop_token_ids" not in read(TENSORRT, text_input="a", max_tokens=4, end_id=-1).sampling


def test_tensorrt_empty_words() -> None:
    """Clients send "" for no words."""
    call = read(TENSORRT, text_input="a", max_tokens=4, bad_words="", stop_words="")
    assert (call.sampling["bad_words"], call.sampling["stop"]) == ([], [])


@pytest.mark.parametrize(
    ("kind", "guide", "want"),
    [
        ("json", None, {"json_object": True}),
        ("json_schema", "{}", {"json": "{}"}),
        ("regex", "a+", {"regex": "a+"}),
        ("ebnf_grammar", 'root ::= "a"', {"grammar": 'root ::= "a"'}),
    ],
)
def test_tensorrt_guides(kind: str, guide: str | None, want: dict[str, Any]) -> None:
    """Guided decoding by the names of vLLM's structured outputs."""
    more = {} if guide is None else {"guided_decoding_guide": guide}
    call = read(TENSORRT, text_input="a", max_tokens=4, guided_decoding_guide_type=kind, **more)
    assert call.sampling["structured_outputs"] == want


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam_width": 2}, "beam_width 2 can't be served: vLLM has no beam search"),
        ({"return_context_logits": True}, "vLLM gives no logits; send False"),
        ({"return_generation_logits": True}, "vLLM gives no logits"),
        ({"guided_decoding_guide_type": "structural_tag"}, "is not known; use json, json_schema"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0"),
    ],
)
def test_tensorrt_refusals(values: dict[str, Any], message: str) -> None:
    """What would change the answer and is not here is refused, not ignored."""
    refused(TENSORRT, message, text_input="a", **({"max_tokens": 4} | values))
    without = {"beam_width": 1, "return_context_logits": False, "return_generation_logits": False}
    assert read(TENSORRT, text_input="a", max_tokens=4, **without)
    refused(TENSORRT, "'max_tokens' is missing", text_input="a")


def test_tensorrt_prompt_and_outputs() -> None:
    """The prompt comes first unless streaming or excluded; log probabilities in filled rows."""
    assert read(TENSORRT, text_input="a", max_tokens=4).prepends_prompt
    assert not read(TENSORRT, text_input="a", max_tokens=4, stream=True).prepends_prompt
    excluded = read(TENSORRT, text_input="a", max_tokens=4, exclude_input_in_output=True)
    assert not excluded.prepends_prompt

    call = read(
        TENSORRT,
        text_input="a",
        max_tokens=4,
        return_log_probs=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
    )
    assert call.sampling["logprobs"] == 0
    longer = [{"5": {"logprob": -0.5}, "6": {"logprob": -0.25}}, {"7": {"logprob": -1.0}}]
    shorter = [{"8": {"logprob": -2}}]
    parts = Part("x", 2, "stop", -1.5, longer), Part("y", 1, "stop", -2.0, shorter, index=1)
    assert written(TENSORRT, call, *parts) == {
        "text_output": ["x", "y"],
        "batch_index": [0, 0],
        "sequence_index": [0, 1],
        "cum_log_probs": [-1.5, -2.0],
        "output_log_probs": [-0.5, -1.0, -2, 0.0],
        "num_input_tokens": [7],
        "num_output_tokens": [2, 1],
    }


def test_tensorrt_shapes() -> None:
    """NVIDIA's: a batch dimension before all but the texts, one row an answer."""
    flags = {"return_log_probs": True, **dict.fromkeys(COUNTS, True)}
    call = read(TENSORRT, text_input="a", max_tokens=4, **flags)
    logprobs = [{"5": {"logprob": -0.5}}, {"6": {"logprob": -0.25}}]
    part = Part("x", 2, "stop", -0.75, logprobs)
    parts = (part, replace(part, index=1))
    rows = {1: (part,), 2: parts}
    for num_answers, these in rows.items():
        made = TENSORRT.write(call, ["x"] * num_answers, [Piece(these, "a", 7, finished=True)])
        assert {tensor.name: tensor.shape for tensor in made} == {
            "text_output": (num_answers,),
            "batch_index": (num_answers, 1),
            "sequence_index": (num_answers, 1),
            "cum_log_probs": (num_answers, 1),
            "output_log_probs": (num_answers, 1, 2),
            "num_input_tokens": (1, 1),
            "num_output_tokens": (num_answers, 1),
        }
