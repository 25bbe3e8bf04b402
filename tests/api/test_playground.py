"""The playground's files and their headers; tests/playground/ opens them in a browser."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from gemma_serve.api.app import build_app
from gemma_serve.api.keys import KeyRing
from gemma_serve.api.playground import OPEN_PATHS
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.profile.load import list_profiles, load_profile
from gemma_serve.profile.schema import Profile

FILES = {
    "/playground": "text/html; charset=utf-8",
    "/playground/playground.css": "text/css; charset=utf-8",
    "/playground/playground.js": "text/javascript; charset=utf-8",
}
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data: blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}


def client(*, playground: bool, key: str = "") -> TestClient:
    """The app of a server that is still starting."""
    server = {"playground": playground}
    profile = Profile.model_validate({"model": "tiny", "server": server})
    keys = KeyRing(None, {"GEMMA_SERVE_API_KEYS": key})
    return TestClient(build_app(ServerState(profile, Timeline(), keys=keys)))


@pytest.mark.parametrize("path", FILES)
def test_files(path: str) -> None:
    """Each file has its type, the policy, and no kind that a browser could guess."""
    answer = client(playground=True).get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == FILES[path]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["referrer-policy"] == "no-referrer"
    directives = answer.headers["content-security-policy"].split("; ")
    assert dict(directive.split(" ", 1) for directive in directives) == POLICY


def test_the_page_is_alone() -> None:
    """It names no other host, has no inline script or style, and links what is there."""
    app = client(playground=True)
    page, *others = (app.get(path).text for path in FILES)

    assert not re.findall(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", page)
    linked = re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page)
    assert {f"/{address}" for address in linked} == set(FILES) - {"/playground"}
    addresses = re.findall(r"https?://[^\s\"')]+", "".join([page, *others]))
    assert set(addresses) <= {
        *("http://www.w3.org/2000/svg'", "http://www.w3.org/2000/svg"),
        "https://html.spec.whatwg.org/multipage/server-sent-events.html",
    }
    assert "innerHTML" not in "".join(others)


def test_open_where_it_is_on() -> None:
    """With keys, its files need none; what they call does."""
    app = client(playground=True, key="right")

    assert set(FILES) == OPEN_PATHS
    assert {app.get(path).status_code for path in FILES} == {200}
    for path in ("/v1/info", "/v1/models", "/playground/", "/playground/../v1/info"):
        assert app.get(path).status_code == 401, path


@pytest.mark.parametrize(("key", "status"), [("", 404), ("right", 401)], ids=["open", "keys"])
def test_not_there_where_it_is_off(key: str, status: int) -> None:
    """Off, its paths are as unknown as any other, and ask for a key as any other."""
    assert {client(playground=False, key=key).get(path).status_code for path in FILES} == {status}


def test_only_the_demo_has_it_on() -> None:
    """Of the packaged profiles, the embedded model's alone serves the page."""
    names = [summary.name for summary in list_profiles()]

    assert [name for name in names if load_profile(name, []).profile.server.playground] == [
        "gemma-3-270m"
    ]
