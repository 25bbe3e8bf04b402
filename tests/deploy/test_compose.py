"""The compose project: valid, true of the server, and started with a key."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gemma_serve.profile.load import load_profile
from gemma_serve.profile.schema import MAX_BODY_BYTES_WITH_IMAGES
from tests.deploy.manifests import ROOT

COMPOSE = ROOT / "deploy" / "compose"
FILES = ["compose.yaml", "compose.gpu.yaml"]
CHECK = Path(sys.executable).parent / "check-jsonschema"
ENGINE_END_S = 10


def services() -> dict[str, Any]:
    """The services of compose.yaml."""
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    return found


def check(*files: Path) -> subprocess.CompletedProcess[str]:
    """Hold files to the schema of the compose specification."""
    command = [CHECK, "--builtin-schema", "vendor.compose-spec", *files]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_files_fit_the_compose_specification(tmp_path: Path) -> None:
    """Both files are valid to the last key, and one with a wrong key would not be."""
    done = check(*(COMPOSE / name for name in FILES))
    assert done.returncode == 0, done.stdout

    wrong = tmp_path / "compose.yaml"
    wrong.write_text((COMPOSE / "compose.yaml").read_text().replace("shm_size:", "shm_sise:"))
    refused = check(wrong)
    assert refused.returncode == 1
    assert "shm_sise" in refused.stdout


def test_what_is_mounted_exists() -> None:
    """Each path beside the file is there: Docker would make an empty directory of a missing one."""
    sources = [
        volume.partition(":")[0]
        for service in services().values()
        for volume in service.get("volumes", [])
    ]
    paths = [source for source in sources if source.startswith(".")]

    assert len(paths) == 5
    assert [path for path in paths if not (COMPOSE / path).exists()] == []


def test_server_is_started_as_the_others_expect_it() -> None:
    """The command's profile is valid, and Prometheus and nginx find its ports."""
    verb, _profile, *options = services()["gemma-serve"]["command"]
    overrides = [option.removeprefix("--set=") for option in options]
    profile = load_profile("gemma-3-270m", overrides).profile
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = [
        target
        for job in prometheus["scrape_configs"]
        for config in job["static_configs"]
        for target in config["targets"]
    ]
    nginx = (COMPOSE / "nginx.conf").read_text()

    assert verb == "serve"
    assert profile.server.host == "0.0.0.0"
    assert f"gemma-serve:{profile.server.metrics_port}" in targets
    assert f"http://gemma-serve:{profile.server.port};" in nginx
    assert f"grpc://gemma-serve:{profile.server.grpc_port};" in nginx
    assert f"client_max_body_size {MAX_BODY_BYTES_WITH_IMAGES // 2**20}m;" in nginx
    assert profile.server.api_keys_file == "/run/secrets/api-keys"


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    """Real nginx reads it to the end: a directive in the wrong place would stop the container."""
    text = (COMPOSE / "nginx.conf").read_text().replace(" /tmp/", f" {tmp_path}/")
    (tmp_path / "nginx.conf").write_text(text)

    command = ["nginx", "-t", "-c", tmp_path / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_docker_waits_for_the_drain() -> None:
    """stop_grace_period is longer than the drain and the end of vLLM's processes."""
    server = services()["gemma-serve"]
    overrides = [word.removeprefix("--set=") for word in server["command"] if "=" in word]
    drain_s = load_profile("gemma-3-270m", overrides).profile.limits.drain_s

    assert float(server["stop_grace_period"].removesuffix("s")) > drain_s + ENGINE_END_S


@pytest.mark.parametrize("name", ["gemma-serve", "nginx", "prometheus", "grafana"])
def test_services_are_confined(name: str) -> None:
    """Read-only, without capabilities, and published on the loopback alone."""
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    # Nobody goes past nginx.
    assert name != "gemma-serve" or "ports" not in service


@pytest.fixture
def up(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """
    `up.sh` of a copy of the directory.

    No Docker engine runs here, so `docker` only writes down how it was called, and for which keys.
    """
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/called\n'
        f'echo "$GEMMA_SERVE_API_KEYS_FILE" >>{tmp_path}/keys\n'
    )
    docker.chmod(0o755)
    shutil.copytree(COMPOSE, tmp_path / "compose", ignore=shutil.ignore_patterns("secrets"))
    path = f"{docker.parent}:{os.environ['PATH']}"

    def run(*options: str, keys: str | Path | None = None) -> subprocess.CompletedProcess[str]:
        environ = dict(os.environ) | {"PATH": path}
        environ.pop("GEMMA_SERVE_API_KEYS_FILE", None)
        if keys is not None:
            environ["GEMMA_SERVE_API_KEYS_FILE"] = str(keys)
        return subprocess.run(
            [tmp_path / "compose" / "up.sh", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        )

    return run


@pytest.mark.parametrize("named", [None, "own/api-keys", "/own/api-keys"])
def test_up_makes_a_key_once(
    up: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, named: str | None
) -> None:
    """
    The one command: a key that only its owner finds, kept the next time, and the addresses.

    A path is meant from the caller's directory, and Compose gets the same file.
    """
    key = tmp_path / (named or "compose/secrets/api-keys").lstrip("/")
    keys = key if named and named.startswith("/") else named

    seen = []
    for options in ([], ["--file", "compose.gpu.yaml"]):
        done = up(*options, keys=keys)
        assert done.returncode == 0, done.stderr
        assert "http://127.0.0.1:8000/v1" in done.stdout
        # From wherever the caller is.
        assert f"docker compose --file {tmp_path}/compose/compose.yaml logs" in done.stdout
        assert (f"Made an API key: {key}\n" in done.stdout) == (not seen)
        seen.append(key.read_text())

    assert seen[0] == seen[1]
    assert len(bytes.fromhex(seen[0])) == 32
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert (tmp_path / "keys").read_text().splitlines() == [str(key)] * 2
    assert (tmp_path / "called").read_text().splitlines() == [
        "compose --file compose.yaml up --build --detach",
        "compose --file compose.yaml --file compose.gpu.yaml up --build --detach",
    ]


def test_up_leaves_other_peoples_directories(
    up: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """
    A key of one's own is taken as it is; a missing one is not made in a directory that is there.

    As in /etc: closed to others, the machine would have no names any more; open, they'd read it.
    """
    theirs = tmp_path / "etc"
    theirs.mkdir()
    theirs.chmod(0o755)

    done = up(keys=theirs / "gemma.keys")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"up.sh: GEMMA_SERVE_API_KEYS_FILE '{theirs}/gemma.keys' does not exist, and a new key is "
        "only put into a directory that is new too; write one key a line into it, or leave the "
        "variable out.\n"
    )
    assert list(theirs.iterdir()) == []
    assert not (tmp_path / "called").exists()

    (theirs / "gemma.keys").write_text("mine\n")
    assert up(keys="etc/gemma.keys").returncode == 0
    assert (theirs / "gemma.keys").read_text() == "mine\n"
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755
    assert (tmp_path / "keys").read_text() == f"{theirs}/gemma.keys\n"
