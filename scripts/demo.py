"""
A server and a Prometheus that watches it, until Ctrl-C: `make demo`.

    python -m scripts.demo [PROFILE] [--set KEY=VALUE]... [--prometheus-port PORT]

Prometheus is the program of that name on PATH, with the rules of deploy/prometheus. Where there is
none it is installed, if that needs no question; if it does, the server runs alone and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.listen import listen, reached_at
from gemma_serve.notify import SOCKET_VARIABLE
from gemma_serve.profile.load import load_profile
from gemma_serve.profile.schema import Server as ServerSettings

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy" / "prometheus"
PACKAGES = ROOT / "deploy" / "docker" / "build" / "packages.sh"
INSTALL = "deploy/docker/build/packages.sh prometheus"
HOST = "127.0.0.1"
POLL_S = 0.5
PROMETHEUS_EXIT_S = 10
say = partial(print, flush=True)


@dataclass(frozen=True)
class Prometheus:
    """The one that runs beside the server."""

    process: subprocess.Popen[bytes]
    url: str


def main() -> int:
    """Run both; the exit code is the server's."""
    options = _options()
    settings = _settings(options)
    try:
        server = addressed(options.profile, settings)
    except ProfileError as error:
        print(f"gemma-serve: {error.message}", file=sys.stderr)
        return error.exit_code
    target = f"{reached_at(server.host)}:{server.metrics_port}"
    with (
        tempfile.TemporaryDirectory(prefix="gemma-serve-demo-") as folder,
        watching(Path(folder), options.prometheus_port, target) as prometheus,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
    ):
        notices.bind(f"{folder}/notify")
        # In sessions of their own they hear no Ctrl-C but ours: the server drains first.
        process = subprocess.Popen(
            _serve(options.profile, settings),
            start_new_session=True,
            env=os.environ | {SOCKET_VARIABLE: f"{folder}/notify"},
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: process.send_signal(number))
        if wait_until_ready(process, notices):
            say(addresses(server, prometheus))
        return process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    profile_help = "a packaged profile's name, or the path of a YAML file"
    add("profile", nargs="?", default="gemma-3-270m", help=profile_help)
    set_help = "change a key of the profile; stronger than the ports below"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=set_help)
    ports = (
        ("--port", 8000, "where the server is"),
        ("--metrics-port", 8002, "where Prometheus reads it, without a key"),
        ("--prometheus-port", 9090, "where Prometheus is; a free one where that is taken"),
    )
    for name, default, what in ports:
        said = f"{what} (%(default)s)"
        add(name, type=port_number, default=default, metavar="PORT", help=said)
    return parser.parse_args()


def port_number(text: str) -> int:
    """A port that can be told beforehand, so not 0."""
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; give one of 1 to 65535.")
    return number


def _settings(options: argparse.Namespace) -> list[str]:
    return [
        f"server.port={options.port}",
        f"server.metrics_port={options.metrics_port}",
        "server.playground=true",
        *options.set,
    ]


def addressed(profile: str, settings: list[str]) -> ServerSettings:
    """
    Where the server will be: what the profile and every --set come to.

    Raises:
        ProfileError: the profile can't be used, or leaves a port open.
    """
    server = load_profile(profile, settings).profile.server
    for key in ("port", "metrics_port"):
        if not (port := getattr(server, key)):
            raise ProfileError(
                f"server.{key} is {json.dumps(port)}, and the demo has to know it beforehand; "
                f"give a free port with --{key.replace('_', '-')}."
            )
    return server


def _serve(profile: str, settings: list[str]) -> list[str]:
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "gemma_serve", "serve", profile, *words]


# --- Prometheus


@contextlib.contextmanager
def watching(folder: Path, port: int, target: str) -> Iterator[Prometheus | None]:
    """
    Prometheus for the length of a with block; None where there is none and none can be installed.

    Args:
        target: HOST:PORT of the server's metrics.
    """
    try:
        program = find_prometheus()
    except StartupError as error:
        say(f"{error.message} Serving without it.")
        yield None
        return
    port = _free(port)
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(prometheus_config(target)), encoding="utf-8")
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    ending = threading.Event()
    told = threading.Thread(target=_tell_if_it_ends, args=(process, log, ending), daemon=True)
    told.start()
    try:
        yield Prometheus(process, f"http://{HOST}:{port}")
    finally:
        ending.set()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PROMETHEUS_EXIT_S)
        process.kill()
        process.wait()
        told.join()


def find_prometheus(packages: Path = PACKAGES) -> str:
    """
    The program, installed first where it is missing and that can be done without a question.

    Raises:
        StartupError: there is none, and it can't be installed so.
    """
    if found := shutil.which("prometheus"):
        return found
    missing = "Prometheus is not installed"
    if shutil.which("apt-get") is None:
        raise StartupError(
            f"{missing}, and there is no apt-get to install it with; put the program from "
            "https://prometheus.io/download on PATH."
        )
    # With -n, sudo fails where it would ask for a password.
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and shutil.which("sudo") is None:
        raise StartupError(f"{missing}, and this user may not; run `{INSTALL}` as root.")
    say(f"{missing}; {INSTALL} ...")
    begin_s = time.monotonic()
    installing = subprocess.run(
        [*as_root, packages, "prometheus"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if found := shutil.which("prometheus"):
        say(f"Prometheus is installed, {time.monotonic() - begin_s:.1f} s.")
        return found
    said = installing.stdout.decode(errors="replace").strip().splitlines()
    why = said[-1] if said else f"exit code {installing.returncode}"
    by_hand = f"sudo {INSTALL}" if as_root else INSTALL
    raise StartupError(f"{missing}, and installing it failed ({why}); run `{by_hand}`.")


def _free(port: int) -> int:
    """The port, or another where it is taken: then it says why at once."""
    try:
        listen(HOST, port, "--prometheus-port").close()
    except StartupError as error:
        with listen(HOST, 0, "--prometheus-port") as found:
            other: int = found.getsockname()[1]
        say(f"{error.message} Until then Prometheus is on port {other}.")
        return other
    return port


def _tell_if_it_ends(process: subprocess.Popen[bytes], log: Path, ending: threading.Event) -> None:
    """Wait for its end, and say why it came unless it was us."""
    process.wait()
    if not ending.is_set():
        said = log.read_text(errors="replace").strip().splitlines()
        say(
            f"Prometheus has ended by itself ({said[-1] if said else process.returncode}); the "
            "server goes on without it. If its port is the reason, --prometheus-port takes another."
        )


def prometheus_config(target: str) -> dict[str, Any]:
    """The configuration of deploy/prometheus, for one server on this machine, looked at often."""
    config: dict[str, Any] = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    config["rule_files"] = [str(RULES / files) for files in config["rule_files"]]
    [ours] = [job for job in config["scrape_configs"] if job["job_name"] == "gemma-serve"]
    config["scrape_configs"] = [ours | {"static_configs": [{"targets": [target]}]}]
    return config


# --- the server


def wait_until_ready(server: subprocess.Popen[bytes], notices: socket.socket) -> bool:
    """
    Whether it became ready; False where it ended before.

    It tells us, as it tells systemd: at its address another server may answer, or only over TLS.
    """
    notices.settimeout(POLL_S)
    while server.poll() is None:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in notices.recv(4096).splitlines():
                return True
    return False


def addresses(server: ServerSettings, prometheus: Prometheus | None) -> str:
    """Where to look."""
    host = reached_at(server.host)
    served = f"{'https' if server.tls else 'http'}://{host}:{server.port}"
    lines = [f"  API         {served}/v1"]
    if server.playground:
        lines.append(f"  Playground  {served}/playground")
    lines.append(f"  Metrics     http://{host}:{server.metrics_port}/metrics")
    if prometheus is not None and prometheus.process.poll() is None:
        lines.append(f"  Prometheus  {prometheus.url}/alerts")
    else:
        lines.append("  Prometheus  none; the reason is above")
    return "\n".join([*lines, "Ctrl-C ends all of it."])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before there is a server that hears it
        sys.exit(130)
