"""make demo: a server, a real Prometheus with our rules beside it, and one Ctrl-C for both."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gemma_serve.errors import ProfileError, StartupError
from scripts import demo
from tests.conftest import free_port
from tests.docs.pages import ROOT

START_S = 300
END_S = 60


def until(holds: Callable[[], Any], log: Path) -> Any:
    """Wait, with a bound, until it holds; what it gave."""
    deadline_s = time.monotonic() + START_S
    while not (found := holds()):
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.2)
    return found


@pytest.mark.engine
def test_demo(tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path: Path) -> None:
    """The addresses that it prints answer, Prometheus has scraped and has the rules, all end."""
    engine_slot.close()
    port, metrics, watcher = free_port(), free_port(), free_port()
    log = tmp_path / "demo.log"
    ports = [
        f"--port={free_port()}",
        f"--set=server.port={port}",  # is stronger
        f"--metrics-port={metrics}",
        f"--prometheus-port={watcher}",
    ]
    command = [sys.executable, "-m", "scripts.demo", str(tiny_profile), *ports]
    with log.open("wb") as output:
        running = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        until(lambda: running.poll() is not None or "Ctrl-C ends" in log.read_text(), log)
        assert f"Prometheus  http://127.0.0.1:{watcher}" in log.read_text()
        assert httpx.get(f"http://127.0.0.1:{port}/playground").status_code == 200
        api = f"http://127.0.0.1:{watcher}/api/v1"
        up = {"query": 'up{job="gemma-serve"} == 1'}
        until(lambda: httpx.get(f"{api}/query", params=up).json()["data"]["result"], log)
        rules = httpx.get(f"{api}/rules").json()["data"]["groups"]
        assert any(rule["name"] == "GemmaServeDown" for group in rules for rule in group["rules"])
    finally:
        below = []
        if running.poll() is None:
            below = psutil.Process(running.pid).children(recursive=True)
            running.send_signal(signal.SIGINT)
        code = running.wait(END_S)
    assert code == 0, log.read_text()
    _, left = psutil.wait_procs(below, timeout=5)
    assert not left
    for each in (port, metrics, watcher):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", each)) != 0


# --- Prometheus, without a server


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def stand_in(file: Path, script: str) -> Path:
    """A shell script of the test's own where a program is expected."""
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.usefixtures("programs")
def test_without_prometheus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Prometheus is missing and can't be installed, the demo says what to do and goes on."""
    with demo.watching(tmp_path, 9090, "127.0.0.1:8002") as prometheus:
        assert prometheus is None
    assert capsys.readouterr().out == (
        "Prometheus is not installed, and there is no apt-get to install it with; put the program "
        "from https://prometheus.io/download on PATH. Serving without it.\n"
    )


@pytest.mark.parametrize(
    ("user", "sudo", "script", "reason"),
    [
        pytest.param(
            1000,
            None,
            "exit 0",
            f"and this user may not; run `{demo.INSTALL}` as root.",
            id="no sudo",
        ),
        pytest.param(
            1000,
            "echo sudo: a password is required >&2; exit 1",
            "exit 0",
            f"and installing it failed (sudo: a password is required); run `sudo {demo.INSTALL}`.",
            id="sudo asks",
        ),
        pytest.param(
            0,
            None,
            "echo E: Unable to locate package prometheus; exit 100",
            "and installing it failed (E: Unable to locate package prometheus); "
            f"run `{demo.INSTALL}`.",
            id="no package",
        ),
        pytest.param(
            0,
            None,
            "exit 100",
            f"and installing it failed (exit code 100); run `{demo.INSTALL}`.",
            id="no word",
        ),
    ],
)
def test_prometheus_that_can_t_be_installed(
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    sudo: str | None,
    script: str,
    reason: str,
) -> None:
    """The sentence says why, and the command by hand; nobody is asked for a password."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    stand_in(programs / "apt-get", "exit 1")
    if sudo is not None:
        stand_in(programs / "sudo", sudo)
    packages = stand_in(programs / "packages.sh", script)

    with pytest.raises(StartupError) as caught:
        demo.find_prometheus(packages)
    assert caught.value.message == f"Prometheus is not installed, {reason}"


@pytest.mark.parametrize("user", [0, 1000])
def test_prometheus_is_installed(
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
) -> None:
    """A stand-in of packages.sh is run as root, by a stand-in of sudo if need be, and says so."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    asked = programs / "asked"
    stand_in(programs / "apt-get", "exit 1")
    stand_in(programs / "sudo", f'echo "sudo $*" >> {asked}; shift; exec "$@"')
    installs = f'echo "$*" >> {asked}; /bin/ln -s /bin/true {programs / "prometheus"}'
    packages = stand_in(programs / "packages.sh", installs)

    assert demo.find_prometheus(packages) == str(programs / "prometheus")
    assert demo.find_prometheus(packages) == str(programs / "prometheus")
    by_sudo = f"sudo -n {packages} prometheus\n" if user else ""
    assert asked.read_text() == f"{by_sudo}prometheus\n"
    begun, done = capsys.readouterr().out.splitlines()
    assert begun == f"Prometheus is not installed; {demo.INSTALL} ..."
    assert done.startswith("Prometheus is installed, ")


def test_the_script_that_installs_is_there() -> None:
    """What the sentences name can be run from the root of the repository."""
    assert ROOT / demo.INSTALL.split()[0] == demo.PACKAGES
    assert os.access(demo.PACKAGES, os.X_OK)


def test_a_taken_port_of_prometheus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said at once, with who has it and the option; Prometheus is on another meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with demo.watching(tmp_path, taken, "127.0.0.1:1") as prometheus:
            said = capsys.readouterr().out
            assert prometheus is not None
            until(lambda: answers(f"{prometheus.url}/-/ready"), tmp_path / "prometheus.log")
    port = prometheus.url.rpartition(":")[2]
    assert said.startswith(f"Port {taken} on 127.0.0.1 is taken by process {os.getpid()} (")
    assert said.endswith(
        "); stop that program or choose another --prometheus-port. "
        f"Until then Prometheus is on port {port}.\n"
    )
    assert capsys.readouterr().out == ""


def answers(url: str) -> bool:
    """Whether a GET gets 200."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


def test_prometheus_that_ends(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said when it happens, with its last line, and the list of addresses has no dead one."""
    stand_in(programs / "prometheus", "echo starting; echo it broke >&2; exit 3")
    said = []

    def told() -> bool:
        said.append(capsys.readouterr().out)
        return "\n" in "".join(said)

    server = demo.addressed("gemma-3-270m", ["server.metrics_port=8002"])
    with demo.watching(tmp_path, free_port(), "127.0.0.1:1") as prometheus:
        until(told, tmp_path / "prometheus.log")
        assert "  Prometheus  none; the reason is above\n" in demo.addresses(server, prometheus)
    assert "".join(said) == (
        "Prometheus has ended by itself (it broke); the server goes on without it. "
        "If its port is the reason, --prometheus-port takes another.\n"
    )


# --- where the server is


@pytest.mark.parametrize(
    ("settings", "served", "metrics"),
    [
        ([], "http://127.0.0.1:8000", "http://127.0.0.1:8002"),
        (["server.port=9000"], "http://127.0.0.1:9000", "http://127.0.0.1:8002"),
        (["server.host=0.0.0.0"], "http://127.0.0.1:8000", "http://127.0.0.1:8002"),
        (["server.host=::1"], "http://[::1]:8000", "http://[::1]:8002"),
        (
            ["server.tls={certfile: a.pem, keyfile: b.pem}", "server.metrics_port=9002"],
            "https://127.0.0.1:8000",
            "http://127.0.0.1:9002",
        ),
    ],
)
def test_the_addresses_are_the_profile_s(settings: list[str], served: str, metrics: str) -> None:
    """What --set changes is what is printed."""
    server = demo.addressed("gemma-3-270m", ["server.metrics_port=8002", *settings])

    assert demo.addresses(server, None).splitlines()[:3] == [
        f"  API         {served}/v1",
        f"  Playground  {served}/playground",
        f"  Metrics     {metrics}/metrics",
    ]


@pytest.mark.parametrize(("key", "value"), [("port", "0"), ("metrics_port", "null")])
def test_a_port_that_is_not_told(key: str, value: str) -> None:
    """A port that the server would choose, or none, is refused with the option to use."""
    with pytest.raises(ProfileError) as caught:
        demo.addressed("gemma-3-270m", ["server.metrics_port=8002", f"server.{key}={value}"])
    assert caught.value.message == (
        f"server.{key} is {value}, and the demo has to know it beforehand; give a free port with "
        f"--{key.replace('_', '-')}."
    )


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_no_port(port: str) -> None:
    """An option takes a port that can be told beforehand."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"{port} is no port; give one of 1 to"):
        demo.port_number(port)


@pytest.mark.parametrize(
    ("does", "is_ready"),
    [("notify('STATUS=x'); notify('READY=1', 'STATUS=y'); open(0).read()", True), ("pass", False)],
)
def test_the_wait_for_the_server(tmp_path: Path, does: str, is_ready: bool) -> None:
    """It ends when the server says that it is ready, or with the server (a stand-in here)."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(address))
        server = subprocess.Popen(
            [sys.executable, "-c", f"from gemma_serve.notify import notify; {does}"],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"NOTIFY_SOCKET": str(address)},
        )
        with server:  # its end closes the pipe that it reads from
            assert demo.wait_until_ready(server, notices) is is_ready
