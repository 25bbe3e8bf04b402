"""The configurations of deploy/replicas, without a replica."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from gemma_serve.profile.schema import MAX_BODY_BYTES_WITH_IMAGES
from tests.conftest import free_port
from tests.deploy.replicas import ENVIRON, FOLDER, Replica, nginx

NGINX = (FOLDER / "nginx.conf").read_text()
NOBODY = "No replica can take the request now; try again in a few seconds."
# What each API's error says where no replica answers.
REFUSALS = {
    "/v1/chat/completions": {
        "error": {
            "message": NOBODY,
            "type": "unavailable_error",
            "param": None,
            "code": "no_replica",
        }
    },
    "/v1/messages": {"type": "error", "error": {"type": "overloaded_error", "message": NOBODY}},
    "/v2/models/tiny/generate": {"error": NOBODY},
}


@pytest.mark.parametrize("path", REFUSALS)
def test_nobody_is_there(tmp_path: Path, path: str) -> None:
    """Without a replica nginx answers 503, as the API that was asked says it, with Retry-After."""
    gone = [Replica(f"http://127.0.0.1:{free_port()}") for _ in range(2)]
    with nginx(gone, tmp_path) as proxy:
        answer = httpx.post(f"{proxy.url}{path}", json={}, timeout=30)
    assert (answer.status_code, answer.json()) == (503, REFUSALS[path])
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/json"


def test_nginx_takes_it_as_it_stands(tmp_path: Path) -> None:
    """Real nginx reads both files to the end, and bodies are as large as the server takes them."""
    command = ["nginx", "-t", "-e", "stderr", "-p", tmp_path, "-c", FOLDER / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"client_max_body_size {MAX_BODY_BYTES_WITH_IMAGES // 2**20}m;" in NGINX


def test_router_has_these_options() -> None:
    """What stands in router.sh are options of vllm-router, and more of them may follow."""
    command = [FOLDER / "router.sh", "http://127.0.0.1:1", "--policy", "cache_aware"]
    for option, code in (("--help", 0), ("--no-such-option", 2)):
        done = subprocess.run(
            [*command, option], capture_output=True, text=True, check=False, env=ENVIRON
        )
        assert done.returncode == code, done.stderr
    assert "unrecognized arguments: --no-such-option" in done.stderr
