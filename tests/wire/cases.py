"""Class A: what may come through a socket that is no honest request, and what is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gemma_serve.profile.schema import Limits

LIMITS = Limits()
HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
KIB = 1024


@dataclass(frozen=True)
class Case:
    """Bytes of a client, and the status that they get; None: the connection closes, unanswered."""

    name: str
    sent: bytes
    status: int | None

    def __str__(self) -> str:
        return self.name


def request(
    *lines: bytes, method: bytes = b"GET", target: bytes = b"/", body: bytes = b""
) -> bytes:
    """A request of HTTP/1.1 with a Host, these lines among its head, and this after it."""
    head = b"".join(line + b"\r\n" for line in lines)
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + head + b"\r\n" + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    """A request with this as its chunks."""
    return request(CHUNKED.strip(), *lines, method=b"POST", body=body)


def sized(length: bytes, *lines: bytes) -> bytes:
    """A request with this as its Content-Length, and three bytes."""
    return request(b"Content-Length: " + length, *lines, method=b"POST", body=b"abc")


def _cases(status: int | None, named: dict[str, bytes]) -> Iterable[Case]:
    return (Case(name, sent, status) for name, sent in named.items())


def not_http() -> Iterator[Case]:
    """What is no request of HTTP/1.1."""
    yield from _cases(
        400,
        {
            "TLS hello": bytes.fromhex("160301020001fc0303") + bytes(500),
            "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
            "SMTP": b"EHLO example.org\r\n",
            "Redis": b"*1\r\n$4\r\nPING\r\n",
            "JSON": b'{"messages": []}\r\n\r\n',
            "a zero byte": b"\0",
            "every byte": bytes(range(256)),
            "bytes of no text": b"\xff\xfe\xfd" * 100,
            "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "HTTP/0.9 by number": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
            "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
            "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
            "HTTP/3": b"GET / HTTP/3\r\n" + HOST + b"\r\n",
            "HTTP/11": b"GET / HTTP/11\r\n" + HOST + b"\r\n",
            "http/1.1": b"GET / http/1.1\r\n" + HOST + b"\r\n",
            "no version": b"GET / \r\n" + HOST + b"\r\n",
            "unknown method": request(method=b"BREW"),
            "method in lower case": request(method=b"get"),
            "endless method": b"A" * 100 * KIB,
            "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n",
            "space before the method": b" " + request(),
            "tab after the method": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
            "line feeds alone": b"GET / HTTP/1.1\nHost: a\n\n",
            "carriage returns alone": b"GET / HTTP/1.1\rHost: a\r\r",
        },
    )


def targets() -> Iterator[Case]:
    """URLs that are none."""
    for name, target in {
        "relative": b"livez",
        "with a space": b"/a b",
        "with a zero byte": b"/\0",
        "with 8 bits": b"/\xff",
        "with a line feed": b"/a\nb",
        "with a bare scheme": b"http://",
        "with an open bracket": b"http://[/",
        "with a port of letters": b"http://a:b/",
        "empty, with a query": b"?a=b",
    }.items():
        yield Case(f"URL {name}", request(target=target), 400)


def hosts() -> Iterator[Case]:
    """Host headers that are missing, several or none."""
    yield Case("no Host", b"GET / HTTP/1.1\r\n\r\n", 400)
    yield Case("no Host, others", b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", 400)
    yield Case("two Hosts", request(HOST.strip()), 400)
    yield Case("two different Hosts", request(b"host: other"), 400)
    for value in (
        b"a b", b"a/b", b"http://a", b"a:b", b"a:123456", b"user@a", b"[::1", b"::1", b"[::1]x",
        b"[x.y]", b"a\\b", b"a?b", b"a#b", b"<a>", b'"a"', b"a,b", b"a;b", b"a\xe9b", b"a:80:80",
    ):  # fmt: skip
        yield Case(f"Host {value!r}", b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", 400)


def headers() -> Iterator[Case]:
    """Header lines that two servers could read two ways."""
    yield from _cases(
        400,
        {
            "space before the colon": request(b"A : b"),
            "no colon": request(b"nothing"),
            "no name": request(b": b"),
            "a name with a space": request(b"a b: c"),
            "a name with a zero byte": request(b"a\0: b"),
            "a name with 8 bits": request(b"\xe9: b"),
            "a folded line": request(b"A: b", b" c"),
            "a first line that is folded": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "a value with a zero byte": request(b"A: b\0c"),
            "a value with a control character": request(b"A: b\x01c"),
            "a value with a carriage return": request(b"A: b\rc"),
            "a line feed alone within the head": request(b"A: b\nC: d"),
            "a name in parentheses": request(b"(a): b"),
            "a quoted name": request(b'"a": b'),
            "a value with DEL": request(b"A: b\x7fc"),
        },
    )


def framing() -> Iterator[Case]:
    """Bodies whose end two servers could see in two places."""
    lengths = {
        "-1": b"-1", "+3": b"+3", "abc": b"abc", "hexadecimal": b"0x3", "empty": b"",
        "2^64": b"18446744073709551616", "of 40 digits": b"9" * 40, "a list": b"3, 3",
        "with a point": b"3.0", "with an exponent": b"3e0", "two words": b"3 3",
    }  # fmt: skip
    for name, length in lengths.items():
        yield Case(f"Content-Length {name}", sized(length), 400)
    yield from _cases(
        400,
        {
            "two Content-Lengths": sized(b"3", b"Content-Length: 3"),
            "two different Content-Lengths": sized(b"3", b"content-length: 4"),
            "length, then chunks": sized(b"3", CHUNKED.strip()),
            "chunks, then length": chunked(b"0\r\n\r\n", b"Content-Length: 5"),
            "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
            "an upgrade with a body": sized(b"3", b"Connection: upgrade", b"Upgrade: h2c"),
        },
    )
    for coding in (b"identity", b"gzip", b"xchunked", b"chunked, gzip", b"gzip, chunked",
                   b"chunked, chunked", b"\x0bchunked", b"chunked;q=1"):  # fmt: skip
        sent = request(b"Transfer-Encoding: " + coding, method=b"POST", body=b"0\r\n\r\n")
        yield Case(f"Transfer-Encoding {coding!r}", sent, 400)
    two = request(CHUNKED.strip(), CHUNKED.strip(), method=b"POST", body=b"0\r\n\r\n")
    yield Case("two Transfer-Encodings", two, 400)
    for name, body in {
        "no number": b"zz\r\n",
        "negative": b"-1\r\n",
        "hexadecimal by its prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
        "of 17 digits": b"fffffffffffffffff\r\n",
        "without a number": b"\r\nabc\r\n",
        "with a space": b"3 \r\nabc\r\n0\r\n\r\n",
        "longer than it says": b"3\r\nabcd\r\n0\r\n\r\n",
        "with line feeds alone": b"3\nabc\n0\n\n",
        "after a good one": b"3\r\nabc\r\nx\r\n",
    }.items():
        yield Case(f"chunk {name}", chunked(body), 400)


def limits() -> Iterator[Case]:
    """More than is allowed: just so, and by far."""
    yield from _cases(
        414,
        {
            "a URL of 1 byte more": request(target=b"/" * (LIMITS.max_url_bytes + 1)),
            "a URL of 1 MiB": request(target=b"/" + b"a" * KIB * KIB),
            "an endless URL": b"GET /" + b"a" * 300 * KIB,
            "a query of 9 KiB": request(target=b"/?" + b"a" * 9 * KIB),
        },
    )
    yield from _cases(
        431,
        {
            "1 byte of headers more": request(padding(LIMITS.max_header_bytes + 1)),
            "a header of 16 MiB": request(b"A: " + b"a" * 16 * KIB * KIB),
            "an endless header": request()[:-2] + b"A: " + b"a" * 900 * KIB,
            "an endless name": request()[:-2] + b"A" * 900 * KIB,
            "1 header more": request(*[b"A: b"] * LIMITS.max_headers),
            "20,000 headers": request(*[b"A: b"] * 20_000),
            "20,000 cookies": request(*[b"cookie: a=b"] * 20_000),
            "an endless trailer": chunked(b"0\r\nA: " + b"a" * 900 * KIB),
            "200 KiB of trailers": chunked(b"0\r\n" + b"A: b\r\n" * 40_000),
            "an endless chunk extension": chunked(b"1;" + b"a" * 900 * KIB),
        },
    )
    small_chunk = b"1\r\na\r\n"
    yield from _cases(
        413,
        {
            "1 chunk more": chunked(small_chunk * (LIMITS.max_chunks + 1)),
            "70,000 chunks": chunked(small_chunk * 70_000 + b"0\r\n\r\n"),
        },
    )


def padding(total_bytes: int) -> bytes:
    """One header that makes the headers of `request` so large."""
    name, host_bytes = b"A: ", len(HOST)
    return name + b"a" * (total_bytes - host_bytes - len(name) - len(b"\r\n"))


def honest() -> Iterator[Case]:
    """What clients really send, and all that is just within the limits."""
    small_chunk = b"1\r\na\r\n"
    yield from _cases(
        200,
        {
            "the least": request(),
            "names in any case": b"GET / HTTP/1.1\r\nhOsT: LOCALHOST\r\nACCEPT: */*\r\n\r\n",
            "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
            "HTTP/1.0, kept": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "an empty line first": b"\r\n" + request(),
            "an absolute URL": request(target=b"http://localhost/"),
            "a fragment": request(target=b"/a#b"),
            "an escaped path": request(target=b"/%F0%9F%92%8E%00"),
            "OPTIONS of all": request(method=b"OPTIONS", target=b"*"),
            "no space after the colon": request(b"A:b"),
            "much space after the colon": request(b"A:  \t b \t"),
            "a value of 8 bits": request(b"A: \xe9\xff"),
            "an empty value": request(b"A:"),
            "an upgrade without a body": request(b"Connection: upgrade", b"Upgrade: h2c"),
            "a body of a GET": sized(b"3").replace(b"POST", b"GET"),
            "an empty body": request(b"Content-Length: 0", method=b"POST"),
            "a length with zeros": sized(b"0003"),
            "chunks": chunked(b"3\r\nabc\r\n0\r\n\r\n"),
            "chunks in capitals": chunked(b"A\r\n0123456789\r\n0\r\n\r\n").replace(b"chu", b"CHU"),
            "a chunk with zeros": chunked(b"0003\r\nabc\r\n000\r\n\r\n"),
            "chunk extensions": chunked(b"3;a=b;c\r\nabc\r\n0;d\r\n\r\n"),
            "a trailer": chunked(b"3\r\nabc\r\n0\r\nX-Api-Key: key\r\n\r\n"),
            "the longest URL": request(target=b"/" * LIMITS.max_url_bytes),
            "the largest headers": request(padding(LIMITS.max_header_bytes)),
            "the most headers": request(*[b"A: b"] * (LIMITS.max_headers - 1)),
            "the most chunks": chunked(small_chunk * (LIMITS.max_chunks - 1) + b"0\r\n\r\n"),
            "3 MiB": request(b"Content-Length: 3145728", method=b"POST", body=b"a" * 3145728),
        },
    )
    for value in (
        b"a", b"a:80", b"127.0.0.1:8000", b"[::1]", b"[::1]:8000", b"[::ffff:1.2.3.4]",
        b"a-b.c_d~e", b"gemma_serve", b"a.", b"a:", b"", b"xn--4ca.example",
    ):  # fmt: skip
        yield Case(f"Host {value!r}", b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", 200)


def bad() -> list[Case]:
    """All that is refused."""
    tables = (not_http(), targets(), hosts(), headers(), framing(), limits())
    return [case for table in tables for case in table]
