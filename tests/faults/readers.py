"""F11: clients that read a byte a second of their answer, or nothing, over HTTP and gRPC."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.test_grpc_leavers import long_message
from tests.faults.asked import CHAT
from tests.faults.figures import Figures, figures, percentiles, ratio, ttfts_s
from tests.faults.leavers import PATH
from tests.faults.ledger import End, Entry, Load
from tests.faults.raw import RawClient
from tests.faults.site import Scale, Site
from tests.reliability.trends import Check

ANSWER = CHAT | {"max_tokens": 1900, "ignore_eos": True, "stream": True}
REFUSED = "gemma_serve_connections_refused_total"
GRPC_REQUESTS = "gemma_serve_grpc_requests_total"
NUM_TOKENS = 16
# What a test waits for the last connection to be closed; promised is limits.write_timeout_s, and
# before that the answer has to come to where its client takes no more.
IN_TESTS_S, BEGUN_S = 90.0, 5.0
RATIO = 1.2  # of the others' p99 time to the first token
COMPARED_S = 20.0
OVER_GRPC = {"method": "ModelStreamInfer", "status": "CANCELLED"}
# Little fits into a stream's window, and it does not grow.
NARROW_STREAMS = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


def slow_readers(site: Site, scale: Scale) -> Figures:
    """
    They cost the others no more than as many who read; after limits.write_timeout_s without a byte
    their connections are closed, and their requests end in the engine.
    """
    checks: list[Check] = []
    without: list[float] = []
    if scale.is_full:
        without = ttfts_beside_fast_readers(site, scale)
    closed_before = closed(site)
    with others(site, "F11", scale) as load:
        clients = [
            RawClient(site.url, f"F11-{kind}-{i}", site.server.headers, narrow=True)
            for kind in ("slow", "stalled")
            for i in range(scale.readers)
        ]
        for client in clients:
            client.post(PATH, ANSWER)
        began_s = time.monotonic()
        while closed(site) - closed_before < len(clients):
            assert time.monotonic() < began_s + IN_TESTS_S, f"{closed(site) - closed_before} closed"
            for client in clients[: scale.readers]:
                client.read_byte()
            time.sleep(1)
        took_s = time.monotonic() - began_s
        load.wait_for(scale.requests)
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
    most_s = scale.most(site.limit("write_timeout_s") + BEGUN_S, IN_TESTS_S)
    checks.append(Check("s until the last reader's connection is closed", took_s, most_s))
    found = ttfts_s(load.ledger.entries)
    if scale.is_full:
        name = "p99 TTFT of the others, over that beside as many fast readers"
        checks.append(Check(name, ratio(found, without), RATIO))
    more = {"ttft_s_beside_fast_readers": percentiles(without), "ttft_s": percentiles(found)}
    return figures(load.ledger.entries, checks=checks, **more)


def others(site: Site, name: str, scale: Scale) -> AbstractContextManager[Load]:
    """Those who read their short answers, for as long as a with block."""
    options: dict[str, Any] = {"num_clients": scale.num_clients, "compared": scale.compared}
    return site.loaded(name, 0, num_tokens=NUM_TOKENS, **options)


def closed(site: Site) -> float:
    """Connections that were closed because nobody read."""
    return site.value(REFUSED, reason="write_timeout")


def ttfts_beside_fast_readers(site: Site, scale: Scale) -> list[float]:
    """The others' times to the first token beside as many who ask the same, and read it."""
    clients = [
        RawClient(site.url, f"F11-fast-{i}", site.server.headers) for i in range(2 * scale.readers)
    ]
    with others(site, "F11-beside-fast", scale) as load, ThreadPoolExecutor(len(clients)) as pool:
        for client in clients:
            client.post(PATH, ANSWER)
            pool.submit(client.read_until, b"[DONE]")
        time.sleep(COMPARED_S)
        for client in clients:
            client.socket.shutdown(socket.SHUT_RDWR)
        load.ledger.entries += [Entry(PATH, True, End.LEFT, id=client.id) for client in clients]
    for client in clients:
        client.close()
    return ttfts_s(load.ledger.entries)


def grpc_readers_stall(site: Site, scale: Scale) -> Figures:
    """
    Streams over gRPC of which nobody reads cost the others nothing; limits.write_timeout_s later
    each has ended, its request in the engine too, and its place is free: also of a client that
    could still ask for more, and of one that stays.
    """
    stay: queue.Queue[None] = queue.Queue()
    metadata = list(site.server.headers.items())
    ids = [f"F11-grpc-{number}" for number in range(2 * scale.readers)]

    def requests(number: int) -> Iterator[Any]:
        yield long_message(ids[number])
        if number % 2:
            stay.get()

    with grpc.insecure_channel(site.server.grpc_address, options=NARROW_STREAMS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with others(site, "F11-beside-grpc", scale) as load:
            before, began_s = site.value(GRPC_REQUESTS, **OVER_GRPC), time.monotonic()
            streams = [
                stub.ModelStreamInfer(requests(number), metadata=metadata)
                for number in range(len(ids))
            ]
            while (ended := site.value(GRPC_REQUESTS, **OVER_GRPC) - before) < len(ids):
                assert time.monotonic() < began_s + IN_TESTS_S, f"{ended} ended"
                time.sleep(0.2)
            took_s = time.monotonic() - began_s
            load.wait_for(scale.requests)
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
    most_s = scale.most(site.limit("write_timeout_s") + BEGUN_S, IN_TESTS_S)
    checks = [Check("s until the last stream has ended", took_s, most_s)]
    return figures(load.ledger.entries, checks=checks)


def assert_was_ended(stream: Any) -> None:
    """Who reads on after all finds what was on its way, and then why no more comes."""
    with pytest.raises(grpc.RpcError, match=r"limits\.write_timeout_s") as ended:
        list(stream)
    assert ended.value.code() is grpc.StatusCode.CANCELLED
