"""
deploy/ray on a real Ray head: replicas of our server behind Serve's proxy.

The tests go on from one another, as a day does: one replica, two under load, a server that dies,
the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import free_port
from tests.deploy.ray_serve import FOLDER, RAY, Cluster, cluster, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two replicas need two cores"),
]
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True}
# So long that a test which has to wait for its turn on the machine still sees it under way.
SHORT, LONG = CHAT | {"max_tokens": 8}, CHAT | {"max_tokens": 8000, "stream": True}
LOAD = LONG | {"max_tokens": 600}
PATH = "/v1/chat/completions"
# One thread each: two replicas that spin on the same two cores would wait for one another.
ONE_THREAD = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def config_of(profile: Path) -> dict[str, Any]:
    """deploy/ray/serve.yaml, with the tiny model, and decisions within seconds."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "serve.yaml").read_text())
    config["http_options"]["port"] = free_port()
    (application,) = config["applications"]
    application["args"] |= {
        "profile": str(profile),
        "overrides": [
            "max_model_len=8192",
            *(f'env.{key}="{value}"' for key, value in ONE_THREAD.items()),
        ],
        "command": [sys.executable, "-m", "gemma_serve"],
    }
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 1}
    deployment["autoscaling_config"] |= {
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0,
        "look_back_period_s": 2,
    }
    return config


@pytest.fixture(scope="module")
def ray(
    tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A head with the application on it."""
    assert RAY.is_dir(), "no .venv/ray; run make setup-dev"
    engine_slot.close()
    with cluster(config_of(tiny_profile), tmp_path_factory.mktemp("ray")) as running:
        running.until_ready(1)
        yield running


def series(port: int, name: str, **labels: str) -> float:
    """The sum of a server's series with this name and these labels."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def chats(port: int, status: str) -> float:
    """Chats that a server has answered with this status; 499 is a client that left."""
    return series(port, "gemma_serve_http_requests_total", route=PATH, status=status)


def test_an_answer_is_the_servers(ray: Cluster) -> None:
    """Status, headers and body of a bad and of a good request come through as they are."""
    (port,) = ray.ready()
    bad = SHORT | {"max_tokens": -1}
    with httpx.Client(timeout=60) as client:
        for body, status in ((bad, 400), (SHORT, 200)):
            headers = {"x-request-id": "of-the-client"}
            ours = client.post(f"http://127.0.0.1:{port}{PATH}", json=body, headers=headers)
            through = client.post(f"{ray.base_url}{PATH}", json=body, headers=headers)

            assert through.status_code == ours.status_code == status, through.text
            assert through.headers.get_list("x-request-id") == ["of-the-client"]
            assert through.headers["content-type"] == ours.headers["content-type"]
            if status == 400:
                assert through.json() == ours.json()
            else:
                assert through.json()["usage"] == ours.json()["usage"]
        answer = client.get(f"{ray.base_url}/v1/models?verbose=%2F")
        assert answer.json()["data"][0]["id"] == "tiny"


def test_a_stream_comes_as_it_is_made(ray: Cluster) -> None:
    """The first events are there while the server still writes; a client that goes ends it."""
    (port,) = ray.ready()
    with httpx.stream("POST", f"{ray.base_url}{PATH}", json=LONG, timeout=60) as answer:
        events = (line for line in answer.iter_lines() if line.startswith("data: {"))
        for _ in range(5):
            assert "error" not in json.loads(next(events).removeprefix("data: "))
        assert chats(port, "499") == 0

    try:
        until(lambda: chats(port, "499") == 1, "end of the request", 60)
    except AssertionError as error:
        found = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
        told = ("gemma_serve_http_requests_total{", "vllm:num_requests", "vllm:generation_tokens")
        lines = "\n".join(line for line in found if line.startswith(told))
        raise AssertionError(f"{error}:\n{lines}\n{ray.logs()}") from error
    assert series(port, "vllm:generation_tokens_total") < LONG["max_tokens"]


def test_load_brings_a_second_replica(ray: Cluster) -> None:
    """More requests at a time than a replica's target: Serve starts another, and both answer."""
    with under_load(ray):
        until(lambda: len(ray.servers()) == 2, "second server")
    # Without load, which would have the cores that the second one needs to start.
    ports = ray.until_ready(2)
    before = {port: chats(port, "200") for port in ports}
    with under_load(ray):
        until(lambda: all(chats(port, "200") > before[port] for port in ports), "answers of both")


@contextlib.contextmanager
def under_load(ray: Cluster) -> Iterator[None]:
    """Four clients at work for the length of a with block; each of their streams has its end."""
    done = threading.Event()
    ends: list[str] = []

    def ask() -> None:
        while not done.is_set():
            with httpx.stream("POST", f"{ray.base_url}{PATH}", json=LOAD, timeout=60) as answer:
                ends.append(list(filter(None, answer.iter_lines()))[-1])

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            yield
        finally:
            done.set()
        for client in asking:
            client.result(60)
    assert set(ends) == {"data: [DONE]"}


def test_a_replica_goes_with_its_server(ray: Cluster) -> None:
    """
    A server that is killed takes its replica along. What it was writing breaks off, and looks like
    no end; the other one answers the rest, and a third starts.
    """
    servers = ray.servers()
    with httpx.stream("POST", f"{ray.base_url}{PATH}", json=LONG, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        victim = max(servers, key=lambda port: series(port, "vllm:num_requests_running"))
        servers[victim].kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)

    def answers() -> bool:
        codes = {
            httpx.post(f"{ray.base_url}{PATH}", json=SHORT, timeout=60).status_code
            for _ in range(8)
        }
        assert codes <= {200, 500, 503}
        return codes == {200}

    until(answers, "eight answers in a row", 30)
    until(lambda: bool(ray.servers().keys() - servers.keys()), "third server", 60)


def test_the_end_leaves_nothing(ray: Cluster) -> None:
    """Ctrl-C drains the replicas, also one that still starts, and no process is left."""
    below = ray.below()
    assert len(ray.servers()) == 2
    ray.stop()

    _, left = psutil.wait_procs(below, timeout=10)
    assert left == []
