"""Requests byte by byte: what is none is refused in words, what is one is answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.wire.cases import CHUNKED, Case, bad, chunked, honest, request, sized
from tests.wire.serving import Side, serve_app
from tests.wire.sockets import TIMEOUT_S, ask, ask_once, read_answer, until_closed


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    """A server with the limits that are the defaults."""
    with serve_app() as served:
        yield served


def test_there_are_as_many_cases_as_promised() -> None:
    """The table has at least 120 cases, each under a name of its own."""
    names = [case.name for case in bad()]
    assert len(set(names)) == len(names) >= 120


@pytest.mark.parametrize("case", bad(), ids=str)
def test_bad_request(side: Side, case: Case) -> None:
    """It gets its status, in OpenAI's shape, and the connection ends; the application sees none."""
    [answer] = ask(side.address, case.sent)

    assert answer.status == case.status
    assert 0 < len(answer.error()["message"]) <= 1024


@pytest.mark.parametrize("case", [*honest()], ids=str)
def test_honest_request(side: Side, case: Case) -> None:
    """It is answered, also byte by byte where that takes no minutes."""
    assert ask_once(side.address, case.sent).status == 200
    if len(case.sent) > 300:
        return
    with socket.create_connection(side.address, timeout=TIMEOUT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(case.sent)):
            client.sendall(case.sent[at : at + 1])
        assert read_answer(client).status == 200


def test_refusal_in_the_callers_shape(side: Side) -> None:
    """Where the path is known by then, the refusal has the shape of its API."""
    lines = (b"Content-Length: 1", b"Content-Length: 2")
    bodies = [
        ask(side.address, request(*lines, method=b"POST", target=target))[0].body
        for target in (b"/v1/messages", b"/v2/models/a/infer")
    ]
    sentence = "This is no request of HTTP/1.1 (Duplicate Content-Length); mend the head."
    assert bodies == [
        b'{"type": "error", "error": {"type": "invalid_request_error", "message": "%s"}}'
        % sentence.encode(),
        b'{"error": "%s"}' % sentence.encode(),
    ]


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "The request has 0 Host headers; send one."),
        (
            sized(b"3", b"Connection: upgrade", b"Upgrade: h2c"),
            "A body came with an Upgrade header, and no other protocol is served; send it without "
            "(Java's HttpClient: version(HTTP_1_1)).",
        ),
        (
            request(b"A: " + b"a" * 70_000),
            "The headers are larger than 65536 bytes (limits.max_header_bytes); send less.",
        ),
        (
            request(*[b"A: b"] * 100),
            "The request has more than 100 headers (limits.max_headers); send fewer.",
        ),
        (
            request(target=b"/" * 9000),
            "The URL is longer than 8192 bytes (limits.max_url_bytes); send a shorter one.",
        ),
        (
            chunked(b"1\r\na\r\n" * 65_537),
            "The body comes in more than 65536 chunks (limits.max_chunks); send larger ones, or a "
            "Content-Length.",
        ),
    ],
    ids=["host", "upgrade", "headers", "count", "url", "chunks"],
)
def test_sentences(side: Side, sent: bytes, sentence: str) -> None:
    """A refusal says what was sent, what is allowed, the key that says so and the next step."""
    assert ask(side.address, sent)[0].error()["message"] == sentence


def test_pipelining(side: Side) -> None:
    """A hundred requests in one segment get a hundred answers, in their order."""
    sent = b"".join(
        request(b"Content-Length: %d" % n, method=b"POST", body=b"a" * n) for n in range(100)
    )
    came = ask(side.address, sent + request(b"Connection: close"))

    assert [int(answer.body.split()[0]) for answer in came] == [*range(100), 0]


BAD = {
    "head": b"nonsense\r\n\r\n",
    "chunk": chunked(b"3\r\nabc\r\nno chunk\r\n"),
    "first chunk": chunked(b"no chunk\r\n"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("num_between", [0, 1, 2])
def test_good_before_bad(side: Side, bad: bytes, num_between: int) -> None:
    """What was asked before is answered in full; then the connection ends."""
    sent = request(target=b"/slow/0.3") + request() * num_between + bad + request()

    assert [answer.status for answer in ask(side.address, sent)] == [200] * (1 + num_between)


def test_hidden_request(side: Side) -> None:
    """A request within a body, or after a refusal, is never one of its own."""
    hidden = request(target=b"/hidden")
    length = b"Content-Length: %d" % len(hidden)
    for sent in (
        request(b"Connection: close", length, method=b"POST", body=hidden),
        sized(b"0", CHUNKED.strip()) + hidden,
        chunked(b"0\r\n\r\n", b"Content-Length: 5") + hidden,
        request(b"Connection: close") + hidden,
    ):
        ask(side.address, sent)
    assert "/hidden" not in side.app.ended


def test_trailers_are_no_headers(side: Side) -> None:
    """What follows a body is never among the headers that the application reads."""
    answer = ask_once(side.address, chunked(b"3\r\nabc\r\n0\r\nX-Api-Key: key\r\n\r\n"))
    assert answer.body == b"3 host,transfer-encoding"


def test_expect_continue(side: Side) -> None:
    """A client that asks first is told to go on, and then answered."""
    head = request(b"Content-Length: 3", b"Expect: 100-continue", method=b"POST")
    with socket.create_connection(side.address, timeout=TIMEOUT_S) as client:
        client.sendall(head)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_answer(client).body.startswith(b"3 ")


def test_one_answer_to_one_request(side: Side) -> None:
    """A body that turns out bad after its answer ends the connection, without a second answer."""
    head = request(CHUNKED.strip(), method=b"POST", target=b"/early", body=b"3\r\nabc\r\n")
    with socket.create_connection(side.address, timeout=TIMEOUT_S) as client:
        client.sendall(head)
        assert read_answer(client).body == b"early"
        client.sendall(b"no chunk\r\n")
        assert until_closed(client) == b""


def test_answer_before_the_body(side: Side) -> None:
    """An answer that needs no body is read whole by a client that is still sending it."""
    head = request(b"Content-Length: 8000000", method=b"POST", target=b"/early")
    with socket.create_connection(side.address, timeout=TIMEOUT_S) as client:
        client.sendall(head + b"a" * 4_000_000)
        assert read_answer(client).body == b"early"
        client.sendall(b"a" * 4_000_000 + request())
        assert read_answer(client).status == 200, "the connection is kept"
