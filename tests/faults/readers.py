"""F11: clients that read a byte a second of their answer, or nothing, over HTTP and gRPC."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.test_grpc_leavers import long_message
from tests.faults.figures import Figures, figures, percentiles, ttfts_s
from tests.faults.leavers import PATH
from tests.faults.ledger import CHAT, End, Entry, under_load
from tests.faults.raw import RawClient
from tests.faults.site import FULL, Scale, Site

ANSWER = CHAT | {"max_tokens": 1900, "ignore_eos": True, "stream": True}
REFUSED = "gemma_serve_connections_refused_total"
GRPC_REQUESTS = "gemma_serve_grpc_requests_total"
NUM_OTHERS, CLOSED_S = 8, 90.0
STREAMS = (PATH, PATH)
OVER_GRPC = {"method": "ModelStreamInfer", "status": "CANCELLED"}
# Little fits into a stream's window, and it does not grow.
NARROW_STREAMS = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


def slow_readers(site: Site, scale: Scale) -> Figures:
    """
    They cost the others nothing; after limits.write_timeout_s without a byte their connections are
    closed, and their requests end in the engine.
    """
    others: dict[str, Any] = {"num_clients": NUM_OTHERS, "num_tokens": 16, "kinds": STREAMS}
    more: Figures = {}
    if scale is FULL:
        with (
            honest_readers(site, 2 * scale.readers),
            under_load(site.url, headers=site.server.headers, **others) as beside,
        ):
            time.sleep(20)
        more["ttft_s_beside_fast_readers"] = percentiles(ttfts_s(beside.ledger.entries))
    closed_before = site.value(REFUSED, reason="write_timeout")
    with site.loaded("F11", 0, **others) as load:
        clients = [
            RawClient(site.url, f"F11-{kind}-{i}", site.server.headers, narrow=True)
            for kind in ("slow", "stalled")
            for i in range(scale.readers)
        ]
        for client in clients:
            client.post(PATH, ANSWER)
        began_s = time.monotonic()
        while closed(site) - closed_before < len(clients):
            assert time.monotonic() < began_s + CLOSED_S, f"{closed(site) - closed_before} closed"
            for client in clients[: scale.readers]:
                client.read_byte()
            time.sleep(1)
        took_s = time.monotonic() - began_s
        entries = [Entry(PATH, True, End.LEFT, id=client.id) for client in clients]
        load.ledger.entries += entries
    # Whoever has not left was closed by the server: it is told so when it reads on.
    for client in clients:
        client.socket.settimeout(10)
        with closing(client):
            assert b"[DONE]" not in client.read_all()
    lines = site.lines()
    ends = [line["status"] for entry in entries for line in lines[entry.id]]
    assert ends == ["499"] * len(entries)
    more["ttft_s"] = percentiles(ttfts_s(load.ledger.entries))
    return figures(load.ledger.entries, all_closed_s=round(took_s, 1), **more)


def closed(site: Site) -> float:
    """Connections that were closed because nobody read."""
    return site.value(REFUSED, reason="write_timeout")


@contextmanager
def honest_readers(site: Site, count: int) -> Iterator[None]:
    """As many clients with the same answers, who read them at once, and leave."""
    clients = [RawClient(site.url, f"F11-fast-{i}", site.server.headers) for i in range(count)]
    with ThreadPoolExecutor(count) as threads:
        for client in clients:
            client.post(PATH, ANSWER)
            threads.submit(client.read_until, b"[DONE]")
        yield
        for client in clients:
            client.socket.shutdown(2)
    for client in clients:
        client.close()
    site.assert_at_rest()


def grpc_readers_stall(site: Site, scale: Scale) -> Figures:
    """
    Streams over gRPC of which nobody reads cost the others nothing; limits.write_timeout_s later
    each has ended, its request in the engine too, and its place is free: also of a client that
    could still ask for more, and of one that stays.
    """
    stay: queue.Queue[None] = queue.Queue()
    others: dict[str, Any] = {"num_clients": NUM_OTHERS, "num_tokens": 16, "kinds": STREAMS}
    metadata = list(site.server.headers.items())
    ids = [f"F11-grpc-{number}" for number in range(2 * scale.readers)]

    def requests(number: int) -> Iterator[Any]:
        yield long_message(ids[number])
        if number % 2:
            stay.get()

    with grpc.insecure_channel(site.server.grpc_address, options=NARROW_STREAMS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with site.loaded("F11-beside-grpc", 0, **others) as load:
            before, began_s = site.value(GRPC_REQUESTS, **OVER_GRPC), time.monotonic()
            streams = [
                stub.ModelStreamInfer(requests(number), metadata=metadata)
                for number in range(len(ids))
            ]
            while (ended := site.value(GRPC_REQUESTS, **OVER_GRPC) - before) < len(ids):
                assert time.monotonic() < began_s + CLOSED_S, f"{ended} ended"
                time.sleep(0.2)
            took_s = time.monotonic() - began_s
            # Without ids: the access log has a status of gRPC's for these, which is looked at here.
            load.ledger.entries += [Entry("/ModelStreamInfer", True, End.LEFT) for _ in ids]
        with site.server.client() as http:
            assert http.get("/v1/info").json()["admission"]["running_requests"] == 0
        lines = site.lines()
        ends = [line["status"] for id_ in ids for line in lines[id_]]
        assert ends == ["CANCELLED"] * len(ids)
        for stream in streams:
            assert_was_ended(stream)
        for _ in ids[1::2]:
            stay.put(None)
    return figures(load.ledger.entries, all_ended_s=round(took_s, 1))


def assert_was_ended(stream: Any) -> None:
    """Who reads on after all finds what was on its way, and then why no more comes."""
    with pytest.raises(grpc.RpcError, match=r"limits\.write_timeout_s") as ended:
        list(stream)
    assert ended.value.code() is grpc.StatusCode.CANCELLED
