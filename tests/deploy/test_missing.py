"""What an operator reads when something is missing: a token, a GPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gemma_serve.engine import platform
from gemma_serve.errors import StartupError
from tests.commands import running


class GatedHub(BaseHTTPRequestHandler):
    """The Hugging Face Hub to a client that may not read a repository, as far as it matters."""

    def do_HEAD(self) -> None:
        """The root exists; of a repository, nothing."""
        self.send_response(200 if self.path == "/" else 401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 -- the name that http.server calls

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gated_hub() -> Iterator[str]:
    """The address of a hub that keeps its repositories for others."""
    with ThreadingHTTPServer(("127.0.0.1", 0), GatedHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_gated_weights_without_a_token(gated_hub: str, tmp_path: Path) -> None:
    """A Gemma that the token may not read is refused at once, before vLLM is imported."""
    environ = {"HF_ENDPOINT": gated_hub, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    words = ["serve", "gemma-3-1b-it", "--set=server.port=0"]

    with running(words, tmp_path / "serve.log", environ) as command:
        assert command.ended() == 3
        assert command.last_line() == (
            "gemma-serve: Model 'google/gemma-3-1b-it' is gated; accept its terms on "
            "huggingface.co and set HF_TOKEN."
        )
        assert "Importing vLLM" not in command.output()


def install(directory: Path, name: str, version: str) -> None:
    """Leave a distribution's metadata where Python finds it."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cu129"])
def test_gpu_build_without_a_gpu(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU image on a node without GPUs says so, instead of trying the CPU."""
    install(tmp_path, "vllm", version)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # and no nvidia-smi

    with pytest.raises(StartupError) as caught:
        platform.detect_usable()
    assert caught.value.message == (
        f"vLLM {version} is built for GPUs and this machine shows none; run it where nvidia-smi "
        "lists one (in a container: --gpus all, or nvidia.com/gpu), or install gemma-serve[cpu]."
    )


@pytest.mark.parametrize("version", ["0.32.0+cpu"])
def test_cpu_build_needs_no_gpu(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's own CPU wheels carry the same name, and +cpu in their version."""
    install(tmp_path, "vllm", version)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert platform.detect_usable().kind == "cpu"
    assert sys.path[0] == str(tmp_path)
