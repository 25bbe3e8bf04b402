"""Keys: every route but the probes asks for one. The app is real; no engine is needed to refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gemma_serve.api.app import OPEN_PATHS, build_app
from gemma_serve.api.keys import KeyRing, read_keys
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.errors import ProfileError
from gemma_serve.profile.schema import Profile

KEY = "correct-horse"


@pytest.fixture
def client() -> TestClient:
    """The app of a server that is still starting, with one key."""
    keys = KeyRing(None, {"GEMMA_SERVE_API_KEYS": KEY})
    return TestClient(build_app(ServerState(Profile(model="tiny"), Timeline(), keys=keys)))


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Every documented route, and some that are not."""
    document = client.get("/openapi.json", headers={"x-api-key": KEY}).json()
    listed = [(method.upper(), path) for path, ways in document["paths"].items() for method in ways]
    return [*listed, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nope"), ("POST", "//v1")]


def test_every_route_but_the_probes_needs_a_key(client: TestClient) -> None:
    """Without a key: 401 everywhere but on the probes, for known and unknown routes alike."""
    for method, path in routes(client):
        answer = client.request(method, path)
        if path in OPEN_PATHS:
            assert answer.status_code in (200, 503)
        else:
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"x-api-key": KEY},
    ],
    ids=str,
)
def test_a_known_key_is_let_in(client: TestClient, headers: dict[str, str]) -> None:
    """With the key: what the route itself says, which is 503 while the model loads."""
    answer = client.get("/v1/models", headers=headers)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "starting"
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer "},
        {"x-api-key": ""},
        {"x-api-key": KEY + "x"},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": "k" * 10_000},
        {"cookie": f"x-api-key={KEY}"},
        {"gemma_serve.warm_up": "1"},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_anything_else_is_not(client: TestClient, headers: dict[str, str]) -> None:
    """A wrong, cut, prolonged or misplaced key is a 401; also one in the query."""
    assert client.get(f"/v1/models?api_key={KEY}", headers=headers).status_code == 401


def test_the_host_header_opens_nothing(client: TestClient) -> None:
    """The path is judged as it was routed, not a URL put together from the Host header."""
    answer = client.get("/v1/models", headers={"host": "x/livez?y="})
    assert answer.status_code == 401


def test_refusal_in_the_callers_shape(client: TestClient) -> None:
    """OpenAI's shape and code; Anthropic's under /v1/messages."""
    openai = client.post("/v1/chat/completions", json={}).json()["error"]
    assert openai == {
        "message": "No API key was sent; send a configured one as "
        "'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }
    anthropic = client.post("/v1/messages", json={}, headers={"x-api-key": "no"}).json()
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "authentication_error"
    assert anthropic["error"]["message"].startswith("The API key is not known; ")


def test_keys_from_file_and_environment(tmp_path: Path) -> None:
    """Both add up; comments and empty lines are none."""
    file = tmp_path / "keys"
    file.write_text("# team a\none\n\n two \n")
    assert read_keys(str(file), {"GEMMA_SERVE_API_KEYS": "three,,two"}) == read_keys(
        None, {"GEMMA_SERVE_API_KEYS": "one,two,three"}
    )
    assert read_keys(None, {}) == {}


def test_a_keys_file_must_hold_keys(tmp_path: Path) -> None:
    """A missing or empty file is refused: nobody meant to serve without keys."""
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    with pytest.raises(ProfileError) as caught:
        read_keys(str(empty), {})
    assert caught.value.message == (
        f"server.api_keys_file {str(empty)!r} holds no key; write one key a line."
    )
    missing = tmp_path / "missing"
    with pytest.raises(ProfileError) as caught:
        read_keys(str(missing), {})
    assert caught.value.message == (
        f"server.api_keys_file {str(missing)!r} can't be read (No such file or directory); "
        "give a file with one key a line."
    )
