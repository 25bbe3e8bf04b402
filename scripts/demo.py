"""
A server and a Prometheus that watches it, until Ctrl-C: `make demo`.

    python -m scripts.demo [PROFILE] [--set KEY=VALUE]...

Prometheus is the program of that name on PATH, with the rules of deploy/prometheus; where there is
none, the server runs alone and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parent.parent / "deploy" / "prometheus"
HOST = "127.0.0.1"
POLL_S = 0.5
PROMETHEUS_EXIT_S = 10


def main() -> int:
    """Run both; the exit code is the server's."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="gemma-serve-demo-") as folder,
        watching(Path(folder), options.prometheus_port, options.metrics_port) as prometheus,
    ):
        # In sessions of their own they hear no Ctrl-C but ours: the server drains first.
        server = subprocess.Popen(_serve(options), start_new_session=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: server.send_signal(number))
        if wait_until_ready(server, options.port):
            print(addresses(options, prometheus), flush=True)
        return server.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("profile", nargs="?", default="gemma-3-270m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--prometheus-port", type=int, default=9090)
    return parser.parse_args()


def _serve(options: argparse.Namespace) -> list[str]:
    settings = [
        f"server.port={options.port}",
        f"server.metrics_port={options.metrics_port}",
        "server.playground=true",
        *options.set,
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "gemma_serve", "serve", options.profile, *words]


@contextlib.contextmanager
def watching(
    folder: Path, port: int, metrics_port: int
) -> Iterator[subprocess.Popen[bytes] | None]:
    """Prometheus for the length of a with block; None where it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        print("Prometheus is not installed (apt-get install prometheus); serving without it.")
        yield None
        return
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(prometheus_config(f"{HOST}:{metrics_port}")), encoding="utf-8")
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is not None:
            print(f"Prometheus had ended by itself: {log.read_text(errors='replace').strip()}")
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PROMETHEUS_EXIT_S)
        process.kill()
        process.wait()


def prometheus_config(target: str) -> dict[str, Any]:
    """The configuration of deploy/prometheus, for one server on this machine, looked at often."""
    config: dict[str, Any] = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    config["rule_files"] = [str(RULES / files) for files in config["rule_files"]]
    [ours] = [job for job in config["scrape_configs"] if job["job_name"] == "gemma-serve"]
    config["scrape_configs"] = [ours | {"static_configs": [{"targets": [target]}]}]
    return config


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it became ready; False where it ended before."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    return False


def addresses(options: argparse.Namespace, prometheus: subprocess.Popen[bytes] | None) -> str:
    """Where to look."""
    served = f"http://{HOST}:{options.port}"
    lines = [
        f"  API         {served}/v1",
        f"  Playground  {served}/playground",
        f"  Metrics     http://{HOST}:{options.metrics_port}/metrics",
    ]
    if prometheus is not None and prometheus.poll() is None:
        lines.append(f"  Prometheus  http://{HOST}:{options.prometheus_port}/alerts")
    return "\n".join([*lines, "Ctrl-C ends all of it."])


if __name__ == "__main__":
    sys.exit(main())
