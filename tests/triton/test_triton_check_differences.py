"""What differs between a recorded response and an answer, and how grave it is."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_serve.triton_check.answers import Reading, read_answer, read_response, to_response
from gemma_serve.triton_check.differences import Difference, compare, worst
from gemma_serve.triton_check.golden import GoldenError, Pair, Response
from gemma_serve.triton_check.lines import to_line
from gemma_serve.triton_check.sampling import why_not_comparable
from gemma_serve.triton_check.sending import Answer
from gemma_serve.triton_check.texts import EXACT, TextRule, divergence, read_rule

GENERATE = "/v2/models/m/generate"
STREAM = "/v2/models/m/generate_stream"
INFER = "/v2/models/m/infer"
JSON = {"content-type": "application/json"}
HEAD = {"id": "7", "model_name": "m", "model_version": "1"}


# --- the answers that are compared


def as_json(body: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(status, JSON, json.dumps(body).encode())


def as_events(*events: Any) -> Answer:
    """A stream."""
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return Answer(200, {"content-type": "text/event-stream; charset=utf-8"}, data)


def as_binary(outputs: list[dict[str, Any]], data: bytes) -> Answer:
    """An answer of the binary tensor data extension."""
    head = json.dumps({**HEAD, "outputs": outputs}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return Answer(200, headers, head + data)


def packed(*texts: str) -> bytes:
    """A BYTES tensor's bytes."""
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def bytes_output(size: int, **changed: Any) -> dict[str, Any]:
    """The JSON of a BYTES output of one element."""
    parameters = {"binary_data_size": size}
    tensor = {"name": "text_output", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    return tensor | changed


def infer(texts: list[str], **changed: Any) -> dict[str, Any]:
    """An infer response in JSON."""
    tensor = {"name": "text_output", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {**HEAD, "outputs": [tensor | changed]}


def found(
    path: str, recorded: Answer, now: Answer, rule: TextRule = EXACT, *, values: bool = True
) -> list[Difference]:
    """The differences, the recorded answer read as it stands in a golden file."""
    pair = Pair.model_validate({"request": {"path": path}, "response": to_response(recorded)})
    again = Pair.model_validate_json(to_line(pair))
    return compare(read_response(path, again.response), read_answer(path, now), rule, values=values)


def only(path: str, recorded: Answer, now: Answer, rule: TextRule = EXACT) -> tuple[str, str]:
    """Severity and place of the one difference there is."""
    [difference] = found(path, recorded, now, rule)
    return difference.severity, difference.where


# --- properties

words = st.text(max_size=30)
numbers = st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False))
generated = st.fixed_dictionaries(
    {"model_name": st.just("m"), "model_version": st.just("1"), "text_output": words},
    optional={"id": words, "cum_log_probs": numbers, "output_log_probs": st.lists(numbers)},
)
answers = st.one_of(
    st.tuples(st.just(GENERATE), generated.map(as_json)),
    st.tuples(
        st.just(STREAM), st.lists(generated, min_size=1, max_size=5).map(lambda e: as_events(*e))
    ),
    st.tuples(st.just(INFER), st.lists(words, min_size=1).map(lambda t: as_json(infer(t)))),
    st.tuples(
        st.just(INFER),
        words.map(lambda t: as_binary([bytes_output(len(packed(t)))], packed(t))),
    ),
    st.tuples(st.just(GENERATE), words.map(lambda w: as_json({"error": w}, 400))),
    st.tuples(st.just("/metrics"), st.binary().map(lambda b: Answer(200, {}, b))),
)


@given(answers)
def test_an_answer_is_like_itself(case: tuple[str, Answer]) -> None:
    """An answer that is recorded, written, read and compared with itself has no difference."""
    path, answer = case
    assert found(path, answer, answer) == []


@given(words, words, st.sampled_from([GENERATE, STREAM, INFER]))
def test_any_other_text_is_found(text: str, other: str, path: str) -> None:
    """Two texts differ from the first character that differs, in every form of an answer."""
    if text == other:
        return
    answers = {
        GENERATE: lambda said: as_json({**HEAD, "text_output": said}),
        STREAM: lambda said: as_events(
            {**HEAD, "text_output": said[:3]}, {**HEAD, "text_output": said[3:]}
        ),
        INFER: lambda said: as_binary([bytes_output(len(packed(said)))], packed(said)),
    }
    [difference] = found(path, answers[path](text), answers[path](other))

    assert (difference.severity, difference.where) == ("text", "text_output")
    assert difference.divergence is not None
    at = difference.divergence.at
    assert text[:at] == other[:at]
    assert text[at : at + 1] != other[at : at + 1]


@given(answers, st.integers(200, 599))
def test_another_status_class_breaks(case: tuple[str, Answer], status: int) -> None:
    """A status of another class is the only thing that is told, and breaks; another is harmless."""
    path, answer = case
    differences = found(path, answer, Answer(status, answer.headers, answer.body))
    if status == answer.status:
        assert differences == []
    elif status // 100 == answer.status // 100:
        assert [(d.severity, d.where) for d in differences] == [("harmless", "status")]
    else:
        assert [(d.severity, d.where) for d in differences] == [("breaks", "status")]


@given(st.lists(words, min_size=1, max_size=4), st.data())
def test_any_other_datatype_or_rank_breaks(texts: list[str], data: st.DataObject) -> None:
    """A tensor of another datatype, or with another number of dimensions, breaks."""
    datatype = data.draw(st.sampled_from(["BOOL", "INT32", "UINT64", "FP32", "FP64", "STRING"]))
    shape = data.draw(st.sampled_from([[1, len(texts)], [len(texts), 1, 1], [], "1", None]))
    recorded = as_json(infer(texts))

    assert only(INFER, recorded, as_json(infer(texts, datatype=datatype)))[0] == "breaks"
    assert worst(found(INFER, recorded, as_json(infer(texts, shape=shape)))) == "breaks"


@given(generated, st.data())
def test_any_missing_key_breaks(said: dict[str, Any], data: st.DataObject) -> None:
    """A key that was recorded and does not come breaks; one that comes in addition is harmless."""
    name = data.draw(st.sampled_from(sorted(said)))
    less = {key: value for key, value in said.items() if key != name}

    assert only(GENERATE, as_json(said), as_json(less)) == ("breaks", name)
    assert only(GENERATE, as_json(less), as_json(said)) == ("harmless", name)


# --- breaks


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"id": "8"}, "id"),
        ({"id": 7}, "id"),
        ({"model_name": "n"}, "model_name"),
        ({"model_version": 1}, "model_version"),
        ({"text_output": 5}, "text_output.datatype"),
        ({"text_output": None}, "text_output.datatype"),
        ({"text_output": ["a", "b"]}, "text_output"),
        ({"text_output": []}, "text_output"),
        ({"cum_log_probs": "0.5"}, "cum_log_probs.datatype"),
    ],
)
def test_what_breaks_a_generate_client(changed: dict[str, Any], where: str) -> None:
    """An id that is not echoed, another model, another kind of value, another number of texts."""
    said = {**HEAD, "text_output": "a", "cum_log_probs": 0.5}

    assert only(GENERATE, as_json(said), as_json(said | changed)) == ("breaks", where)


@pytest.mark.parametrize(
    ("now", "where"),
    [
        (as_binary([bytes_output(6, datatype="INT32")], packed("hi")), "text_output.datatype"),
        (as_binary([bytes_output(6, shape=[1, 1])], packed("hi")), "text_output.shape"),
        (as_binary([bytes_output(6, name="other")], packed("hi")), "text_output"),
        (as_binary([bytes_output(60)], packed("hi")), "text_output.data"),
        (as_binary([bytes_output(6)], b"\xff\xff\0\0hi"), "text_output.data"),
        (as_binary([bytes_output(6, shape=[2])], packed("hi")), "text_output.data"),
        (as_binary([bytes_output(12, shape=[2])], packed("hi", "ho")), "text_output"),
        (as_json(infer(["hi"])), "text_output.data"),
    ],
)
def test_what_breaks_a_binary_client(now: Answer, where: str) -> None:
    """Bytes that are not what their JSON says, or that are no bytes any more."""
    recorded = as_binary([bytes_output(6)], packed("hi"))

    assert ("breaks", where) in [(d.severity, d.where) for d in found(INFER, recorded, now)]


@pytest.mark.parametrize(
    "body", [b"", b"oops", b"{", b"[" * 5000, b'"\xff"', b'{"text_output": "a"} x']
)
def test_no_json_breaks(body: bytes) -> None:
    """A body that is no JSON breaks."""
    recorded = as_json({**HEAD, "text_output": "a"})

    assert only(GENERATE, recorded, Answer(200, JSON, body)) == ("breaks", "body")


def test_a_stream_that_breaks() -> None:
    """An event without its text, an error in the stream, and an answer that is no stream."""
    event = {**HEAD, "text_output": "a"}
    recorded = as_events(event, event)
    textless = {**HEAD}

    assert only(STREAM, recorded, as_events(event, textless)) == ("breaks", "text_output")
    assert only(STREAM, recorded, as_events(event, {"error": "dead"})) == ("breaks", "error")
    assert only(STREAM, recorded, as_json(event)) == ("breaks", "body")
    assert only(STREAM, recorded, as_events(event, "a")) == ("breaks", "body")
    idless = {"model_name": "m", "model_version": "1", "text_output": "a"}
    assert only(STREAM, recorded, as_events(event, idless)) == ("breaks", "id")


def test_an_error_of_another_shape_breaks() -> None:
    """An error is an object with a string; OpenAI's shape is none."""
    recorded = as_json({"error": "no such input"}, 400)

    assert only(GENERATE, recorded, as_json({"error": {"message": "a"}}, 400))[0] == "breaks"
    assert only(GENERATE, recorded, Answer(400, {}, b"Bad Request")) == ("breaks", "error")
    refused = found(GENERATE, as_json({**HEAD, "text_output": "a"}), recorded)
    assert [d.message for d in refused] == ["400 instead of 200: no such input"]


def test_metadata() -> None:
    """Tensors of a model's metadata are found by name; what is new there is harmless."""
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [-1]}
    said = {"name": "m", "platform": "python", "inputs": [tensor]}
    path = "/v2/models/m"

    def with_inputs(*inputs: dict[str, Any]) -> Answer:
        return as_json(said | {"inputs": list(inputs)})

    more = {"name": "stream", "datatype": "BOOL", "shape": [1]}
    recorded = as_json(said)
    assert only(path, recorded, with_inputs(more, tensor)) == ("harmless", "inputs.stream")
    assert ("breaks", "inputs.text_input") in [
        (d.severity, d.where) for d in found(path, recorded, with_inputs(more))
    ]
    changed = with_inputs(tensor | {"datatype": "INT32"})
    assert only(path, recorded, changed) == ("breaks", "inputs.text_input.datatype")
    changed = with_inputs(tensor | {"shape": [-1, 1]})
    assert only(path, recorded, changed) == ("breaks", "inputs.text_input.shape")
    changed = as_json(said | {"platform": "vllm"})
    assert only(path, recorded, changed) == ("harmless", "platform")


# --- harmless


@pytest.mark.parametrize(
    ("path", "recorded", "now", "where"),
    [
        (GENERATE, as_json({"error": "a"}, 400), as_json({"error": "b"}, 400), "error wording"),
        (GENERATE, as_json({"error": "a"}, 400), as_json({"error": "a"}, 404), "status"),
        (GENERATE, as_json(HEAD), as_json(HEAD | {"model_version": "2"}), "model_version"),
        (
            GENERATE,
            as_json(HEAD),
            Answer(200, {"content-type": "text/plain"}, json.dumps(HEAD).encode()),
            "content-type",
        ),
        (
            GENERATE,
            as_json({**HEAD, "text_output": "a", "sequence_id": 0}),
            as_json({**HEAD, "text_output": "a"}),
            "sequence_id",
        ),
        (
            STREAM,
            as_events({**HEAD, "text_output": "ab"}),
            as_events({**HEAD, "text_output": "a"}, {**HEAD, "text_output": "b"}),
            "number of events",
        ),
    ],
)
def test_what_is_harmless(path: str, recorded: Answer, now: Answer, where: str) -> None:
    """Words of an error, versions, how a stream is cut, Triton's leftovers of sequences."""
    assert only(path, recorded, now) == ("harmless", where)


def test_log_probabilities_are_close() -> None:
    """Floats to 1 %, also in the vLLM backend's JSON string; further apart is another answer."""
    logprobs = json.dumps([{"5": {"logprob": -1.5, "rank": 1}}])
    said = {**HEAD, "cum_log_probs": -1.5, "n": 4, "logprobs": logprobs}
    close = said | {"cum_log_probs": -1.49, "logprobs": logprobs.replace("-1.5", "-1.49")}
    recorded = as_json(said)

    assert found(GENERATE, recorded, as_json(close)) == []
    assert only(GENERATE, recorded, as_json(said | {"n": 5})) == ("text", "n[0]")
    far = as_json(said | {"cum_log_probs": -1.7})
    assert only(GENERATE, recorded, far) == ("text", "cum_log_probs[0]")
    far = as_json(said | {"logprobs": logprobs.replace("-1.5", "-1.7")})
    assert only(GENERATE, recorded, far) == ("text", "logprobs")


def test_json_as_text_is_exact() -> None:
    """A text that is JSON is compared letter by letter."""
    recorded, now = (as_json({**HEAD, "text_output": text}) for text in ("[1.000]", "[1.001]"))

    assert only(GENERATE, recorded, now) == ("text", "text_output")


@pytest.mark.parametrize(
    ("datatype", "one"),
    [
        ("INT32", struct.pack("<i", 1)),
        ("UINT8", b"\1"),
        ("FP16", struct.pack("<e", 1)),
        ("BF16", struct.pack("<f", 1)[2:]),
        ("FP32", struct.pack("<f", 1)),
        ("FP64", struct.pack("<d", 1)),
        ("BOOL", b"\1"),
    ],
)
def test_binary_numbers(datatype: str, one: bytes) -> None:
    """Little-endian numbers of every datatype are read; another number is another answer."""
    output = {
        "name": "n",
        "datatype": datatype,
        "shape": [1],
        "parameters": {"binary_data_size": len(one)},
    }
    recorded, now = as_binary([output], one), as_binary([output], bytes(len(one)))

    assert found(INFER, recorded, recorded) == []
    [difference] = found(INFER, recorded, now)
    assert (difference.severity, difference.where) == ("text", "n[0]")
    assert difference.message in (
        "0 instead of 1",
        "0.0 instead of 1.0",
        "False instead of True",
    )


# --- texts, and when they count


def test_where_two_texts_part() -> None:
    """Position, context, lengths and shares of two texts."""
    parted = divergence("The Rhine, the Main", "The Rhône")

    assert (parted.at, parted.before, parted.recorded, parted.now) == (
        6,
        "The Rh",
        "ine, the Main",
        "ône",
    )
    assert parted.length_ratio == pytest.approx(9 / 19)
    assert parted.equal_share == pytest.approx(6 / 19)
    assert divergence("", "a").length_ratio is None


@pytest.mark.parametrize(
    ("rule", "severity"),
    [("exact", "text"), ("prefix:3", "harmless"), ("prefix:4", "text"), ("ignore", "harmless")],
)
def test_text_rules(rule: str, severity: str) -> None:
    """prefix:N counts what differs among the first N characters; ignore counts nothing."""
    recorded, now = (as_json({**HEAD, "text_output": text}) for text in ("abcd", "abce"))

    assert only(GENERATE, recorded, now, read_rule(rule)) == (severity, "text_output")
    assert str(read_rule(rule)) == rule


@pytest.mark.parametrize("word", ["", "Exact", "prefix", "prefix:0", "prefix:-1", "prefix:x"])
def test_no_text_rule(word: str) -> None:
    """Another word than the three is one sentence."""
    with pytest.raises(GoldenError) as caught:
        read_rule(word)
    assert caught.value.message == (
        f"--text is {word!r}; use exact, ignore, or prefix:N for the first N characters."
    )


def why(body: Any, path: str = GENERATE, **pair: Any) -> str | None:
    """Why the text of an answer to this body can't be compared."""
    said = {"request": {"path": path, "body": body}, "response": {"status": 200}, **pair}
    return why_not_comparable(Pair.model_validate(said))


def tensor(name: str, datatype: str, value: Any) -> dict[str, Any]:
    """An input of one element."""
    return {"name": name, "datatype": datatype, "shape": [1], "data": [value]}


@pytest.mark.parametrize(
    "body",
    [
        {"text_input": "a"},
        {"text_input": "a", "temperature": 0},
        {"text_input": "a", "parameters": {"temperature": 0, "top_p": 0.9}},
        {"text_input": "a", "do_sample": False, "temperature": 0.7},
        {"text_input": "a", "do_sample": True, "top_k": 1},
        {"text_input": "a", "temperature": 0.7, "seed": 5},
        {"text_input": "a", "top_k": 40, "random_seed": 0},
        {"text_input": "a", "sampling_parameters": '{"temperature": "0", "max_tokens": 5}'},
        {"inputs": [tensor("text_input", "BYTES", "a"), tensor("temperature", "FP32", 0.0)]},
        [],
        None,
    ],
)
def test_greedy_requests(body: Any) -> None:
    """Greedy and seeded answers are compared, wherever the request says so."""
    assert why(body) is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"do_sample": True}, "sampled: do_sample is true"),
        ({"parameters": {"do_sample": True}}, "sampled: do_sample is true"),
        ({"temperature": 0.7}, "sampled: temperature is 0.7 and there is no seed"),
        ({"temperature": ["0.7"]}, "sampled: temperature is 0.7 and there is no seed"),
        ({"top_k": 40}, "sampled: top_k is 40 and there is no seed"),
        ({"top_p": 0.9}, "sampled: top_p is 0.9 and there is no seed"),
        (
            {"sampling_parameters": '{"temperature": "0.1"}'},
            "sampled: temperature is 0.1 and there is no seed",
        ),
        (
            {"sampling_parameters": '{"max_tokens": 5}'},
            "sampled: sampling_parameters has no temperature, which is 1 in the vLLM backend",
        ),
        ({"inputs": [tensor("do_sample", "BOOL", True)]}, "sampled: do_sample is true"),
    ],
)
def test_sampled_requests(body: Any, reason: str) -> None:
    """Sampled answers are not compared, and the reason is told."""
    assert why(body, INFER if "inputs" in body else GENERATE) == reason


def test_a_binary_request_is_read() -> None:
    """What a request samples by is found in its bytes too."""
    inputs = [
        {
            "name": "temperature",
            "datatype": "FP32",
            "shape": [1],
            "parameters": {"binary_data_size": 4},
        }
    ]
    head = json.dumps({"inputs": inputs}).encode()
    request = {
        "path": INFER,
        "headers": {"Inference-Header-Content-Length": str(len(head))},
    }
    for temperature, expected in ((0.0, None), (0.5, "sampled: temperature is 0.5")):
        pair = Pair.model_validate(
            {
                "request": request | {"body_base64": head + struct.pack("<f", temperature)},
                "response": {"status": 200},
            }
        )
        reason = why_not_comparable(pair)
        assert reason == expected or str(reason).startswith(str(expected))


def test_an_answer_that_varied_is_not_compared() -> None:
    """What the recorded server itself answered in two ways is held to its form alone."""
    assert why({"text_input": "a"}, varies=True) == (
        "the recorded server gave two different answers"
    )
    said = {**HEAD, "text_output": "a", "tokens": [1, 2]}
    other = as_json(said | {"text_output": "b", "tokens": [1, 2, 3]})
    assert found(GENERATE, as_json(said), other, values=False) == []
    broken = as_json(said | {"text_output": 1})
    assert worst(found(GENERATE, as_json(said), broken, values=False)) == "breaks"


def test_a_hand_written_response_needs_no_headers() -> None:
    """Where no content type was written down, none is missed."""
    written = Response.model_validate({"status": 200, "body": {"text_output": "a"}})
    recorded: Reading = read_response(GENERATE, written)

    now = read_answer(GENERATE, as_json({"text_output": "a"}))
    assert compare(recorded, now, EXACT, values=True) == []
