"""The keys file is followed: no restart, no moment between, and a broken file changes nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from gemma_serve.api.app import build_app
from gemma_serve.api.keys import POLL_S, Key, KeyRing, followed, read_keys
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.errors import ProfileError
from gemma_serve.profile.schema import Profile


def test_names_of_keys(tmp_path: Path) -> None:
    """A word behind a key is its name; keys of one name are one tenant, each other its own."""
    file = tmp_path / "keys"
    file.write_text("one team-a\ntwo team-a # until March\nthree\nfour  # Dana\n#five\n")
    keys = read_keys(str(file), {"GEMMA_SERVE_API_KEYS": "six batch,seven"})
    assert [key.label for key in keys.values()] == [
        *("batch", "unnamed"),
        *("team-a", "team-a", "unnamed", "unnamed"),
    ]
    assert len({key.tenant for key in keys.values()}) == 5
    ring = KeyRing(str(file), {})
    assert ring.find("two") == Key("team-a", "team-a")
    assert ring.find("two team-a") is None
    assert ring.find("five") is None


@pytest.mark.parametrize("name", ["two words", "x" * 33, "9lives", "a{b}"])
def test_a_name_that_is_no_label(tmp_path: Path, name: str) -> None:
    """It is refused without a word of the line, which may hold a key."""
    file = tmp_path / "keys"
    file.write_text(f"secret {name}\n")
    with pytest.raises(ProfileError, match=r"^A key's name is \d+ characters long or has") as no:
        read_keys(str(file), {})
    assert "secret" not in no.value.message
    assert name not in no.value.message


def test_keys_change_while_the_server_runs(tmp_path: Path) -> None:
    """An old key dies within a second and a new one lives; a broken file keeps what there was."""
    file = tmp_path / "keys"
    file.write_text("old\n")
    ring = KeyRing(str(file), {"GEMMA_SERVE_API_KEYS": "fixed"})
    state = ServerState(Profile(model="tiny"), Timeline(), keys=ring)
    client = TestClient(build_app(state))
    said: list[str] = []

    def statuses() -> list[int]:
        keys = ("old", "new", "fixed")
        answers = [client.get("/v1/models", headers={"x-api-key": key}) for key in keys]
        return [answer.status_code for answer in answers]

    async def changes() -> None:
        async with followed(ring, said.append):
            assert statuses() == [503, 401, 503]
            other = tmp_path / "other"  # as editors and Kubernetes replace a file
            other.write_text("new team-b\n")
            os.replace(other, file)
            await asyncio.sleep(2 * POLL_S)
            assert statuses() == [401, 503, 503]
            for broken in ("", "new bad name\n"):
                file.write_text(broken)
                await asyncio.sleep(2 * POLL_S)
                assert statuses() == [401, 503, 503]
            file.unlink()
            await asyncio.sleep(2 * POLL_S)
            assert statuses() == [401, 503, 503]

    before = REGISTRY.get_sample_value("gemma_serve_keys_reloads_total", {"outcome": "kept"}) or 0
    asyncio.run(changes())
    assert said[0] == "The keys file has changed; the server takes its 2 keys from now on."
    assert [sentence.endswith("The keys from before stay good.") for sentence in said[1:]] == [
        True,
        True,
        True,
    ]
    kept = REGISTRY.get_sample_value("gemma_serve_keys_reloads_total", {"outcome": "kept"})
    assert kept == before + 3
