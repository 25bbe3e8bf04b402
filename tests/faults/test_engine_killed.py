"""F1 of the faults: an engine core is killed under load."""

from __future__ import annotations

import time

import grpc
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.test_grpc_leavers import long_message
from tests.commands import Serve
from tests.faults.ledger import End, under_load

SERVING = r"Serving tiny at (http://\S+) "
GRPC = r"gRPC \(KServe v2\) at (\S+)"
# Promised.
EXIT_S = 10.0


def test_killed_engine(serve: Serve) -> None:
    """
    Every open request of every API ends with an error that says so, none with a success; the server
    exits with 1 within 10 s and leaves nothing.
    """
    with serve("server.grpc_port=0") as command:
        url, address = command.wait_for(SERVING), command.wait_for(GRPC)
        with grpc.insecure_channel(address) as channel, under_load(url, num_clients=32) as load:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelInfer.future(long_message())
            answers = stub.ModelStreamInfer(iter([long_message("one")]))
            assert not next(answers).error_message
            command.until(lambda: load.open == 32, "32 requests at once")

            command.wait_for_process("EngineCore").kill()
            killed_s = time.monotonic()

            assert call.exception(timeout=30).code() is grpc.StatusCode.UNAVAILABLE
            assert "engine is dead" in [answer.error_message for answer in answers][-1]
            assert command.ended() == 1
            assert time.monotonic() - killed_s < EXIT_S
        assert "The engine died" in command.output()
        assert "Traceback" not in command.output()
    assert load.ledger.lost() == []
    assert load.ledger.count(End.FAILED) > 0
    assert load.ledger.count(End.REFUSED) > 0
    codes = {entry.detail for entry in load.ledger.entries if entry.end is End.FAILED}
    assert codes <= {"engine_dead", "overloaded_error", "error"}
