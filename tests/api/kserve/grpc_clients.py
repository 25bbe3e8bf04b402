"""What the tests of KServe v2 over gRPC share: their requests, and a stream of Triton's client."""

from __future__ import annotations

import queue
from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from tests.api.kserve.triton_clients import inputs_of, texts_of

PROMPT = "The sea"
GREEDY = {"text_input": PROMPT, "do_sample": False}
LONG = {**GREEDY, "max_new_tokens": 4000}
WAIT_S = 60
SERVICE = "inference.GRPCInferenceService"
Answer = tuple[Any, InferenceServerException | None]


def infer(client: Any, values: dict[str, Any], **options: Any) -> Any:
    """The whole answer."""
    return client.infer("tiny", inputs_of(grpcclient, values), **options)


def code_of(error: InferenceServerException) -> str:
    """The name of its gRPC status."""
    return str(error.status()).removeprefix("StatusCode.")


class Stream:
    """A stream of the synchronous client, its responses by request id."""

    def __init__(self, client: Any, **options: Any) -> None:
        self.client = client
        self.answers: queue.Queue[Answer] = queue.Queue()
        client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def send(self, id_: str, values: dict[str, Any], **options: Any) -> None:
        """Send a request."""
        inputs = inputs_of(grpcclient, values)
        self.client.async_stream_infer("tiny", inputs, request_id=id_, **options)

    def next(self) -> Any:
        """The next response, which must be no error."""
        result, error = self.answers.get(timeout=WAIT_S)
        assert error is None, error
        return result.get_response(), result

    def until_final(self, count: int) -> dict[str, list[str]]:
        """The pieces of each request, until so many have had their last one."""
        pieces: dict[str, list[str]] = {}
        finals: list[str] = []
        while len(finals) < count:
            response, result = self.next()
            assert response.id not in finals, "a response after the final one"
            pieces.setdefault(response.id, []).extend(texts_of(result))
            if response.parameters["triton_final_response"].bool_param:
                finals.append(response.id)
        return pieces
