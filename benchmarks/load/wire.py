"""From a protocol to the bytes of a request, and to the connections that carry them."""

from __future__ import annotations

import json

from benchmarks.load.connection import Connect, Endpoint, Pool, connect_http
from benchmarks.load.protocols import Extras, Message, body, path
from benchmarks.records import Item, Protocol, TritonContract


def request_bytes(
    endpoint: Endpoint,
    protocol: Protocol,
    model: str,
    item: Item,
    extras: Extras,
    *,
    history: list[Message] | None = None,
    contract: TritonContract = "python-backend",
) -> bytes:
    """
    A request, ready to be written.

    Raises:
        ValueError: the protocol has no place for the item's kind of prompt.
    """
    asked = body(protocol, model, item, extras, history=history, contract=contract)
    if protocol == "triton-grpc":
        from benchmarks.load.grpc_messages import infer_request

        return infer_request(model, asked, batched=contract == "tensorrtllm")
    return endpoint.request(path(protocol, model), json.dumps(asked, ensure_ascii=False).encode())


def open_pool(endpoint: Endpoint, protocol: Protocol, *, stall_s: float, timeout_s: float) -> Pool:
    """The connections of a protocol; none is made yet."""
    return Pool(endpoint, stall_s=stall_s, timeout_s=timeout_s, connect=_connect(protocol))


def _connect(protocol: Protocol) -> Connect:
    if protocol != "triton-grpc":
        return connect_http
    # gRPC's library takes its time to import, and is needed for nothing else.
    from benchmarks.load.grpc_stream import connect_grpc

    return connect_grpc
