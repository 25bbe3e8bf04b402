"""A real Prometheus and its promtool, which come with Debian's package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import free_port

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
WAIT_S = 60


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    assert found, f"these tests run {name}; install it: apt-get install prometheus"
    return found


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end, with `text` on its standard input."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAIT_S)


def wait_until(what: Callable[[], Any], why: str) -> Any:
    """What `what` gives, once that is true."""
    deadline_s = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < deadline_s, why
        time.sleep(0.2)
    return found


@dataclass
class Prometheus:
    """A running Prometheus."""

    base_url: str
    log: Path

    def ask(self, path: str, **params: Any) -> Any:
        """The data of an answer of its HTTP API; an error is one of the test."""
        answer = httpx.get(f"{self.base_url}/api/v1/{path}", params=params, timeout=WAIT_S)
        body = answer.json()
        assert body["status"] == "success", f"{params}: {body}"
        return body["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        result: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return result

    def has_series(self, selector: str) -> bool:
        """Whether there is, or was, a series that a selector names."""
        return bool(self.ask("series", **{"match[]": selector}))

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return httpx.get(f"{self.base_url}/-/ready").is_success
        except httpx.TransportError:
            return False


def config_for(address: str) -> dict[str, Any]:
    """The configuration of deploy/, which looks at one server, and often: a test can't wait."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(FOLDER / files) for files in config["rule_files"]]
    ours = next(job for job in config["scrape_configs"] if job["job_name"] == "gemma-serve")
    ours["static_configs"] = [{"targets": [address]}]
    config["scrape_configs"] = [ours]
    return config


@contextmanager
def running(config: dict[str, Any], directory: Path) -> Iterator[Prometheus]:
    """Prometheus on a free port of the loopback for the length of a with block."""
    file, log = directory / "prometheus.yml", directory / "prometheus.log"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    command: Sequence[str] = [
        program("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    prometheus = Prometheus(f"http://127.0.0.1:{port}", log)
    try:
        wait_until(prometheus.is_ready, f"Prometheus does not start:\n{log.read_text()}")
        yield prometheus
    finally:
        process.terminate()
        process.wait(WAIT_S)
