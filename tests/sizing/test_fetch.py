"""Headers of weights from a Hub: a server of our own that answers as the real one does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gemma_serve.errors import ModelError
from gemma_serve.sizing.tensors import fetch_tensors

HEADER = {
    "model.embed_tokens.weight": {"dtype": "BF16", "shape": [64, 8], "data_offsets": [0, 1024]},
    "model.norm.weight": {"dtype": "F32", "shape": [8], "data_offsets": [1024, 1056]},
    "model.layers.0.mlp.up_proj.weight": {
        "dtype": "F8_E4M3",
        "shape": [16, 8],
        "data_offsets": [1056, 1184],
    },
}


class Hub(BaseHTTPRequestHandler):
    """One repository with one file, in ranges; whatever else is asked for is not there."""

    def do_HEAD(self) -> None:
        """Answer as to a GET, without the body."""
        self.answer()

    def do_GET(self) -> None:
        """Answer a range of the file."""
        self.answer()

    def answer(self) -> None:
        """The bytes that are asked for."""
        header = json.dumps(HEADER).encode()
        body = len(header).to_bytes(8, "little") + header + bytes(1184)
        if self.path != "/someone/model/resolve/main/model.safetensors":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, _, last = self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")
        part = body[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if "Range" in self.headers else 200)
        for name, value in (
            ("ETag", '"1"'),
            ("X-Repo-Commit", "0" * 40),
            ("Content-Length", str(len(part))),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Hub that huggingface_hub asks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield
    server.shutdown()
    server.server_close()


def test_headers_alone_are_fetched(hub: None, tmp_path: Path) -> None:
    """Names, shapes and bits are those of the file; nothing lands on the disk."""
    tensors, source = fetch_tensors("someone/model", None)

    assert source == "safetensors headers"
    assert {(t.name, t.shape, t.bits, t.is_float) for t in tensors} == {
        ("model.embed_tokens.weight", (64, 8), 16, True),
        ("model.norm.weight", (8,), 32, True),
        ("model.layers.0.mlp.up_proj.weight", (16, 8), 8, False),
    }


def test_no_such_model_is_one_line(hub: None) -> None:
    """What can't be had is named, with the way to do without."""
    with pytest.raises(ModelError, match=r"'someone/other' can't be fetched .* leave --fetch out"):
        fetch_tensors("someone/other", None)
