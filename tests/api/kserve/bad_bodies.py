"""Bodies that are no request, and paths and methods that lead nowhere, over KServe's HTTP."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

from tests.api.kserve.chat_cases import nested
from tests.api.kserve.http_requests import GENERATE, INFER, MODEL, STREAM, BadRequest, tensor
from tests.api.kserve.refusals import MARKER

GOOD = json.dumps({"inputs": [tensor(), tensor("max_new_tokens", data=[1])]}).encode()
GOOD_GENERATE = json.dumps({"text_input": MARKER, "max_new_tokens": 1}).encode()
INDEX = "/v2/repository/index"

BODIES = {
    "white space": b" \n\t ",
    "null": b"null",
    "array": b"[]",
    "array of the request": b"[" + GOOD + b"]",
    "number": b"5",
    "string": json.dumps(MARKER).encode(),
    "truncated": GOOD[:-1],
    "half": GOOD[: len(GOOD) // 2],
    "one byte": GOOD[:1],
    "trailing junk": GOOD + b"}",
    "twice": GOOD + GOOD,
    "trailing NUL": GOOD + b"\0",
    "single quotes": GOOD.replace(b'"', b"'"),
    "comment": b"/* a */" + GOOD,
    "trailing comma": GOOD[:-1] + b",}",
    "control character": GOOD.replace(MARKER.encode(), MARKER.encode() + b"\n"),
    "bad escape": GOOD.replace(MARKER.encode(), MARKER.encode() + b"\\x41"),
    "half an escape": GOOD.replace(MARKER.encode(), MARKER.encode() + b"\\u00"),
    "latin-1": GOOD.replace(MARKER.encode(), MARKER.encode() + "é".encode("latin-1")),
    "overlong UTF-8": GOOD.replace(MARKER.encode(), MARKER.encode() + b"\xc0\xaf"),
    "invalid UTF-8 in a key": GOOD.replace(b"inputs", b"inputs\xff"),
    "half of UTF-16": GOOD.decode().encode("utf-16")[:-1],
    "form": b"text_input=" + MARKER.encode(),
    "multipart": b"--x\r\nContent-Disposition: form-data; name=text_input\r\n\r\na\r\n--x--",
    "XML": b"<text_input>a</text_input>",
    "zeros": b"\0" * 1000,
    "deep arrays": b"[" * 100_000,
    "deep arrays, closed": nested(100_000).encode(),
    "deep objects": b'{"inputs":' * 50_000,
    "deep in the request": GOOD[:-1] + b', "more": ' + nested(50_000).encode() + b"}",
    "5000 digits": GOOD[:-1] + b', "more": ' + b"9" * 5000 + b"}",
}

# Raw targets: the first part is a model's name and version that are not there.
MODELS = (
    *(
        "unknown",
        "Tiny",
        "TINY",
        "tiny%20",
        "%20tiny",
        "tiny%00",
        "%00",
        "tiny%0a",
        "tiny%0d%0aX:y",
    ),
    *("..", "../..", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "%2e%2e%2f", "....//tiny"),
    *("t%D1%96ny", "tiny%E2%80%8B", "%EF%BD%94iny", "%F0%9F%92%A9", "%ff%fe", "%c0%ae%c0%ae"),
    *("tiny%3Fa", "tiny%23", "tiny;a=b", "*", "-", "None", "null", "0", "1", "{model}", "%25s"),
    *("", "/", "//", "tiny/", "tiny%5c..", "a" * 4000, "%41" * 1000, "a/" * 200 + "b"),
)
VERSIONS = (
    *("2", "0", "-1", "latest", "1.0", "01", "1%20", "%201", "+1", "1e0", "0x1", "true", "None"),
    *("%EF%BC%91", "%C2%B9", "1%00", "..", "%2e%2e", "1%2f..", "*", "1,2", "9" * 5000, "%ff"),
)
NOWHERE = (
    *("/v2/model/tiny", "/v2/nothing", "/v2/health", "/v2/health/dead", "/v2/infer"),
    *("/v2/trace/setting", "/v2/logging", "/v2/repository", "/v2/models/tiny/explain"),
    *("/v2/models/tiny/versions", "/v2/models/tiny/versions/1/nothing", "/v2/.env"),
    *("/v2/../etc/passwd", "/v2/%2e%2e/metrics", "/v2/models/tiny/infer/more"),
)
METHODS = {
    INFER: ("GET", "PUT", "PATCH", "DELETE"),
    f"{MODEL}/versions/1/infer": ("GET", "PUT", "DELETE"),
    GENERATE: ("GET", "PUT", "DELETE"),
    STREAM: ("GET", "PUT", "DELETE"),
    MODEL: ("POST", "PUT", "PATCH", "DELETE"),
    f"{MODEL}/versions/1": ("POST", "PUT", "DELETE"),
    f"{MODEL}/config": ("POST", "DELETE"),
    f"{MODEL}/stats": ("POST", "DELETE"),
    f"{MODEL}/ready": ("POST", "DELETE"),
    "/v2": ("POST", "PUT", "DELETE"),
    "/v2/health/live": ("POST", "DELETE"),
    "/v2/health/ready": ("POST", "DELETE"),
    "/v2/models/stats": ("POST", "DELETE"),
    INDEX: ("GET", "PUT", "DELETE"),
    "/v2/repository/models/tiny/load": ("GET", "DELETE"),
    "/v2/systemsharedmemory/status": ("PUT", "DELETE"),
}
# Triton's verbs that change a server.
VERBS = (
    *(("POST", f"/v2/repository/models/{name}/load") for name in ("tiny", "other", "..", "a/b")),
    *(("POST", f"/v2/repository/models/{name}/unload") for name in ("tiny", "other", "%2e%2e")),
    *(
        (method, f"/v2/{kind}sharedmemory/{verb}")
        for kind in ("system", "cuda")
        for method, verb in (
            ("GET", "status"),
            ("GET", "region/r/status"),
            ("POST", "region/r/register"),
            ("POST", "region/r/unregister"),
            ("POST", "unregister"),
            ("POST", "region/%2fdev%2fshm%2fpsm/register"),
        )
    ),
)


def bad_bodies() -> list[BadRequest]:
    """All of them whose fault is not in the tensors."""
    return [*_bodies(), *_encodings(), *_names(), *_methods()]


def _bodies() -> Iterator[BadRequest]:
    yield BadRequest("empty body")
    yield BadRequest("empty body", GENERATE)
    yield BadRequest("empty body", STREAM)
    for what, body in BODIES.items():
        for path in (INFER, GENERATE, STREAM):
            yield BadRequest(f"{what}, {path.rpartition('/')[2]}", path, body)
        if what != "white space":
            yield from _index(what, body)
    surrogate = GOOD.replace(MARKER.encode(), MARKER.encode() + b"\xed\xa0\x80")
    yield BadRequest("raw surrogate", body=surrogate)
    yield BadRequest("over the limit", body=GOOD.replace(MARKER.encode(), b"a" * 1_000_000))
    yield BadRequest("over the limit", GENERATE, b" " * 1_000_001)


def _index(what: str, body: bytes) -> Iterator[BadRequest]:
    try:
        if isinstance(json.loads(body), dict):
            return  # no fault to the index, which looks for `ready` alone
    except (ValueError, RecursionError):
        pass
    yield BadRequest(f"{what}, index", INDEX, body)


def _encodings() -> Iterator[BadRequest]:
    packed, deflated = gzip.compress(GOOD), zlib.compress(GOOD)
    bomb = gzip.compress(b" " * 50_000_000)
    broken = packed[:-8] + bytes(8)
    for what, encoding, body in (
        ("bomb", "gzip", bomb),
        ("bomb", "deflate", zlib.compress(b" " * 50_000_000)),
        ("bomb of a request", "gzip", gzip.compress(GOOD + b" " * 1_000_000)),
        ("a byte short", "gzip", packed[:-1]),
        ("half", "gzip", packed[: len(packed) // 2]),
        ("head alone", "gzip", packed[:10]),
        ("nothing", "gzip", b""),
        ("nothing", "deflate", b""),
        ("wrong sum", "gzip", broken),
        ("plain", "gzip", GOOD),
        ("plain", "deflate", GOOD),
        ("half", "deflate", deflated[: len(deflated) // 2]),
        ("without a head", "deflate", deflated[2:-4]),
        ("twice", "gzip", gzip.compress(packed)),
        ("a second member", "gzip", packed + packed),
        ("bytes after it", "gzip", packed + b"\0"),
        ("bytes after it", "deflate", deflated + GOOD),
        ("bomb in a bomb", "gzip", gzip.compress(bomb)),
        ("two names", "gzip, gzip", gzip.compress(packed)),
        ("list", "gzip, identity", packed),
        ("not said", "identity", packed),
        ("br", "br", packed),
        ("zstd", "zstd", packed),
        ("x-gzip", "x-gzip", packed),
        ("compress", "compress", packed),
        ("unknown", "nothing", packed),
        ("long name", "g" * 5000, packed),
        ("with a weight", "gzip;q=1", packed),
    ):
        for path in (INFER, GENERATE, STREAM, INDEX):
            yield BadRequest(
                f"{encoding[:20]}: {what}, {path.rpartition('/')[2]}",
                path,
                body,
                {"content-encoding": encoding},
            )


def _names() -> Iterator[BadRequest]:
    for name in MODELS:
        for path, body in (("infer", GOOD), ("generate", GOOD_GENERATE)):
            yield BadRequest(f"model {name[:40]!r}", f"/v2/models/{name}/{path}", body)
        if not name.strip("/").startswith("tiny") or "%" in name:
            yield BadRequest(f"model {name[:40]!r}", f"/v2/models/{name}/config", method="GET")
    for version in VERSIONS:
        target = f"{MODEL}/versions/{version}"
        yield BadRequest(f"version {version[:40]!r}", f"{target}/infer", GOOD)
        yield BadRequest(f"version {version[:40]!r}", f"{target}/generate_stream", GOOD_GENERATE)
        for end in ("", "/config", "/stats", "/ready"):
            yield BadRequest(f"version {version[:40]!r}", f"{target}{end}", method="GET")
    for path in NOWHERE:
        for method in ("GET", "POST"):
            yield BadRequest(f"{method} {path}", path, method=method)


def _methods() -> Iterator[BadRequest]:
    for path, methods in METHODS.items():
        for method in methods:
            yield BadRequest(f"{method} {path}", path, GOOD, method=method)
    for method, path in VERBS:
        yield BadRequest(f"{method} {path}", path, b"{}", method=method)
        if method == "POST":
            config = json.dumps({"parameters": {"config": MARKER, "file:1/model.py": MARKER}})
            yield BadRequest(f"{method} {path} with a file", path, config.encode())
