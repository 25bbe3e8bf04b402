"""Class B: bodies that are no JSON, not in UTF-8, or JSON that two servers could read two ways."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from tests.reliability.case import CHAT, GENERATE, JSON, MESSAGES, RESPONSES, Case

WRONG = frozenset({400, 413})
MEDIA = frozenset({400, 415})
# A whole request of each API but for its end, where a case puts one field more.
TURN = '"messages": [{"role": "user", "content": "Hi"}]'
STARTS = {
    CHAT: '{"max_tokens": 1, ' + TURN,
    MESSAGES: '{"model": "tiny", "max_tokens": 1, ' + TURN,
    RESPONSES: '{"max_output_tokens": 1, "input": "Hi"',
    GENERATE: '{"text_input": "Hi"',
}


def cases() -> Iterator[Case]:
    """All of them."""
    for path, start in STARTS.items():
        for named in (_encodings(start), _texts(start), _bounds(start), _numbers(start)):
            for name, body in named.items():
                yield Case(f"B {name}, {path}", path, body, WRONG)
        if path != GENERATE:  # KServe's bodies may be compressed, and have no type
            yield from _headers(path, start + "}")


def _encodings(start: str) -> dict[str, bytes]:
    whole = start + "}"
    return {
        **{f"in {name}": whole.encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be")},
        **{f"in {name}": whole.encode(name) for name in ("utf-32", "utf-32-le", "utf-8-sig")},
        "in Latin-1": f'{start}, "user": "é"}}'.encode("latin-1"),
        "cut within a character": (start + ', "user": "é').encode()[:-1] + b'"}',
        "an overlong zero": start.encode() + b', "user": "\xc0\x80"}',
        "a surrogate in UTF-8": start.encode() + b', "user": "\xed\xa0\x80"}',
        "a byte beyond UTF-8": start.encode() + b', "user": "\xff"}',
        "a lone surrogate": whole.replace("Hi", r"Hi \ud800").encode(),
        "a pair the wrong way round": whole.replace("Hi", r"\udc00\ud800").encode(),
    }


def _texts(start: str) -> dict[str, bytes]:
    whole = start + "}"
    ends = {
        "not closed": "",
        "a comma at the end": ",}",
        "a value missing": ', "user": }',
        "a colon missing": ', "user" "a"}',
        "a key without quotes": ', user: "a"}',
        "single quotes": ", 'user': 'a'}",
        "a comment": ", /* a */}",
        "a line feed in a string": ', "user": "a\nb"}',
        "a zero byte in a string": ', "user": "a\0b"}',
        "an escape that is none": r', "user": "\x41"}',
        "half an escape": r', "user": "\u00"}',
        "a string not closed": ', "user": "a}',
        "undefined": ', "user": undefined}',
        "a hexadecimal number": ', "seed": 0x10}',
        "a number with a zero first": ', "seed": 01}',
        "a number with a plus": ', "seed": +1}',
        "a point first": ', "temperature": .5}',
        "a point last": ', "temperature": 1.}',
        "True": ', "stream": True}',
        "another brace": "}}",
        "another object": "}{}",
        "words after it": "} and more",
        "zero bytes after it": "}\0\0",
        "a key twice": ', "user": "a", "user": "b"}',
        "a key twice, once escaped": r', "user": "a", "\u0075ser": "b"}',
        "a key twice, further down": ', "metadata": {"a": [{"b": 1, "b": 1}]}}',
    }
    alone = {
        "empty": "", "blank": " \r\n", "null": "null", "a number": "1", "a string": '"a"',
        "an empty list": "[]", "a list of it": f"[{whole}]", "a bracket": "[",
        "lines of JSON": f"{whole}\n{whole}",
    }  # fmt: skip
    return {name: (start + end).encode() for name, end in ends.items()} | {
        name: text.encode() for name, text in alone.items()
    }


def _bounds(start: str) -> dict[str, bytes]:
    def nested(left: str, right: str, levels: int) -> bytes:
        return f'{start}, "x": {left * levels}1{right * levels}}}'.encode()

    strings, lists = ",".join(['""'] * 50_001), ",".join(["[]"] * 300_000)
    return {
        **{f"{n} lists deep": nested("[", "]", n) for n in (64, 900, 100_000)},
        **{f"{n} objects deep": nested('{"a":', "}", n) for n in (64, 900, 100_000)},
        "brackets without end": b"[" * 900_000,
        "braces without end": b'{"a":' * 100_000,
        "50,001 keys": (start + "".join(f',"{n}":1' for n in range(50_001)) + "}").encode(),
        "50,001 strings": f'{start}, "x": [{strings}]}}'.encode(),
        "300,000 empty lists": f'{start}, "x": [{lists}]}}'.encode(),
        "1,000,000 keys": (start + ',"a":1' * 1_000_000 + "}").encode(),
    }


def _numbers(start: str) -> dict[str, bytes]:
    numbers = {
        "5,000 digits": "9" * 5000, "2^64": str(2**64), "-2^63 - 1": str(-(2**63) - 1),
        "1e400": "1e400", "-1e400": "-1e400", "1e999999999": "1e999999999",
        "400 digits and a point": "9" * 400 + ".0",
        "NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity",
    }  # fmt: skip
    return {name: f'{start}, "x": [{text}]}}'.encode() for name, text in numbers.items()}


def _headers(path: str, whole: str) -> Iterator[Case]:
    plain = whole.encode()
    bomb = gzip.compress(bytes(50_000_000))
    for encoding, body in (
        ("gzip", gzip.compress(plain)), ("GZIP", gzip.compress(plain)), ("gzip", bomb),
        ("deflate", zlib.compress(plain)), ("br", plain), ("zstd", plain), ("gzip, gzip", plain),
        ("nothing", plain), ("gzip", plain),
    ):  # fmt: skip
        headers = JSON | {"content-encoding": encoding}
        yield Case(f"B {encoding} of {len(body)}, {path}", path, body, MEDIA, headers=headers)
    for type_ in (
        "", "text/plain", "text/json", "application/xml", "application/jsonp", "json",
        "application/x-www-form-urlencoded", "multipart/form-data; boundary=a",
    ):  # fmt: skip
        headers = {"content-type": type_} if type_ else {}
        yield Case(f"B type {type_!r}, {path}", path, plain, MEDIA, headers=headers)
