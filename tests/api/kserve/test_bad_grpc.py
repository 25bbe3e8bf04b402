"""Bad messages over KServe's gRPC: the right status each, also in a stream that goes on."""

from __future__ import annotations

import queue
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.api.kserve.bad_messages import (
    Case,
    contents_of,
    invalid_messages,
    message,
    tensor,
    unknown_models,
)
from tests.api.kserve.refusals import Witness, faults

CALL_S = 60
BATCH = 50
CASES = [
    *((case, grpc.StatusCode.INVALID_ARGUMENT) for case in invalid_messages()),
    *((case, grpc.StatusCode.NOT_FOUND) for case in unknown_models()),
]
BATCHES = [CASES[start : start + BATCH] for start in range(0, len(CASES), BATCH)]
SERVICE = "/inference.GRPCInferenceService"
UNSERVED = (
    *("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
    *(
        f"{kind}SharedMemory{verb}"
        for kind in ("System", "Cuda")
        for verb in ("Status", "Register")
    ),
    *("SystemSharedMemoryUnregister", "CudaSharedMemoryUnregister"),
)
# Bytes that are no ModelInferRequest.
NO_MESSAGES = {
    "invalid UTF-8 in the model's name": b"\x0a\x02\xff\xfe",
    "invalid UTF-8 in the id": b"\x0a\x04tiny\x1a\x02\xff\xfe",
    "a length beyond the end": b"\x0a\x7ftiny",
    "an endless varint": b"\x0a" + b"\xff" * 20,
    "a wire type that there is not": b"\x0f",
    "JSON": b'{"model_name": "tiny"}',
}


def good(id_: str) -> Any:
    """A request that is answered."""
    text = tensor(contents=contents_of("BYTES", ["Rome is"]))
    request = message(text, tensor("max_new_tokens", contents=contents_of("INT32", [2])))
    request.id = id_
    return request


def _refusal(call: Any, request: Any) -> tuple[grpc.StatusCode | None, str]:
    """The status and the text of a call that must fail; None if it did not."""
    try:
        call(request, timeout=CALL_S)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None, "answered"


def _faults(call: Any, request: Any, code: grpc.StatusCode) -> list[str]:
    got, text = _refusal(call, request)
    return faults(text) if got == code else [f"is {got}: {text[:200]}"]


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch[0][0][0][:40])
def test_refused(stub: Any, witness: Witness, batch: list[tuple[Case, grpc.StatusCode]]) -> None:
    """Every one of fifty is refused with its status; then all is as it was."""
    wrong = [
        f"{name} {fault}"
        for (name, request), code in batch
        for fault in _faults(stub.ModelInfer, request, code)
    ]
    assert not wrong, "\n".join(wrong)
    witness.check_unharmed()


def test_refused_in_a_stream(stub: Any, witness: Witness) -> None:
    """In a stream each is its own error_message, and the requests among them are answered."""
    sent: queue.Queue[Any] = queue.Queue()
    answers = stub.ModelStreamInfer(iter(sent.get, None), timeout=CALL_S)
    for number, ((_, request), _) in enumerate(CASES):
        bad = pb.ModelInferRequest()
        bad.CopyFrom(request)
        bad.id = f"bad {number}"
        sent.put(bad)
        if number % BATCH == 0:
            sent.put(good(f"good {number}"))
    num_good = len(range(0, len(CASES), BATCH))
    said = [next(answers) for _ in range(len(CASES) + num_good)]
    errors = {one.infer_response.id: one.error_message for one in said if one.error_message}
    assert set(errors) == {f"bad {number}" for number in range(len(CASES))}
    wrong = [f"{CASES[int(id_[4:])][0][0]} {f}" for id_ in errors for f in faults(errors[id_])]
    assert not wrong, "\n".join(wrong)
    answered = [one.infer_response.id for one in said if not one.error_message]
    assert set(answered) == {f"good {number}" for number in range(0, len(CASES), BATCH)}
    sent.put(good("last"))
    last = next(answers)
    assert (last.infer_response.id, last.error_message) == ("last", "")
    sent.put(None)
    assert list(answers) == []
    witness.check_unharmed()


@pytest.mark.parametrize("verb", UNSERVED)
def test_verbs_that_change_the_server(stub: Any, witness: Witness, verb: str) -> None:
    """Loading, shared memory, trace and log settings are UNIMPLEMENTED, with a reason."""
    assert not _faults(getattr(stub, verb), _empty(verb), grpc.StatusCode.UNIMPLEMENTED)
    witness.check_unharmed()


def _empty(verb: str) -> Any:
    return getattr(pb, f"{verb}Request")()


def test_unknown_method(channel: Any, witness: Witness) -> None:
    """A method that the service does not have is UNIMPLEMENTED."""
    call = channel.unary_unary(f"{SERVICE}/ModelTrain")
    assert _refusal(call, b"")[0] == grpc.StatusCode.UNIMPLEMENTED
    witness.check_unharmed()


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig"])
@pytest.mark.parametrize(
    ("name", "version"),
    [("unknown", ""), ("tiny", "2"), ("tiny", "-1"), ("", ""), ("../tiny", ""), ("tiny\0", "1")],
)
def test_what_there_is_not(
    stub: Any, witness: Witness, method: str, name: str, version: str
) -> None:
    """Questions about a model or version that is not there are NOT_FOUND."""
    request = getattr(pb, f"{method}Request")(name=name, version=version)
    assert not _faults(getattr(stub, method), request, grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize(("name", "version"), [("unknown", ""), ("tiny", "2"), ("tiny", "x")])
def test_statistics_of_what_there_is_not(stub: Any, name: str, version: str) -> None:
    """So are its statistics."""
    request = pb.ModelStatisticsRequest(name=name, version=version)
    assert not _faults(stub.ModelStatistics, request, grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_no_message(channel: Any, witness: Witness, data: bytes) -> None:
    """Bytes that are no message at all are INVALID_ARGUMENT, and nothing for the log."""
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")
    assert not _faults(call, data, grpc.StatusCode.INVALID_ARGUMENT)
    witness.check_unharmed()


def test_no_messages_in_a_stream(channel: Any, witness: Witness) -> None:
    """In a stream each is an error_message of no request, and the others are answered."""
    stream = channel.stream_stream(
        f"{SERVICE}/ModelStreamInfer",
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    sent = [*NO_MESSAGES.values(), good("a").SerializeToString()]
    said = list(stream(iter(sent), timeout=CALL_S))
    errors = [one.error_message for one in said if one.error_message]
    assert len(errors) == len(NO_MESSAGES)
    assert not [fault for message in errors for fault in faults(message)]
    assert [one.infer_response.id for one in said if not one.error_message] == ["a"]
    witness.check_unharmed()
