"""A real Prometheus scrapes a real server: every series that is asked for exists."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

import httpx
import pytest
import tritonclient.grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.api.kserve.triton_clients import inputs_of
from tests.deploy.dashboard_images import Source, page, sections
from tests.deploy.expressions import (
    Expression,
    of_autoscaler,
    of_dashboard,
    of_panels,
    of_rules,
    rules,
)
from tests.deploy.prometheus import Prometheus, config_for, promtool, running, wait_until
from tests.servers import Server

# Not from our /metrics: NVIDIA's exporter, for the row of the dashboard that says so.
OF_OTHERS = "DCGM_FI_"
# Declared, and without a sample on this server: its profile has neither slo nor quality.
WITHOUT_SAMPLES = {"gemma_serve_slo_seconds", "gemma_serve_quality_kl_nats"}
# What a server of text without an SLO has nothing to show for.
EMPTY = {"Images in the cache"}
ALL = [*of_dashboard(), *of_rules(), *of_autoscaler()]


@pytest.fixture(scope="module")
def prometheus(
    tiny_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus with our configuration and rules, after every kind of request."""
    config = config_for(httpx.URL(tiny_server.base_url).netloc.decode())
    with running(config, tmp_path_factory.mktemp("prometheus")) as prometheus:
        # Before and after: a rate needs two samples of a series.
        for _ in range(2):
            send_every_kind(tiny_server)
            scrapes = samples_of_up(prometheus)
            wait_until(lambda s=scrapes: samples_of_up(prometheus) > s + 1, "no scrape")
        last = [rule["record"] for rule in rules() if "record" in rule][-1]
        wait_until(lambda: prometheus.query(last), f"{last} is never recorded")
        yield prometheus


def samples_of_up(prometheus: Prometheus) -> int:
    """How often the server was scraped."""
    counted = prometheus.query('sum_over_time(up{job="gemma-serve"}[1h])')
    return int(counted[0]["value"][1]) if counted else 0


def send_every_kind(server: Server) -> None:
    """One request of each kind that has a series of its own."""
    user = {"role": "user", "content": "Name three rivers."}
    chat = {"messages": [user], "max_tokens": 8, "ignore_eos": True}
    with server.client() as http:
        assert http.post("/v1/chat/completions", json=chat).status_code == 200
        twice = chat | {"messages": [user, user], "stream": True}  # which a rule mends
        assert http.post("/v1/chat/completions", json=twice).status_code == 200
        assert http.post("/v1/chat/completions", json={"messages": 1}).status_code == 400
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json=chat | {"max_tokens": 4000}, timeout=0.2)
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.infer("tiny", inputs_of(tritonclient.grpc, {"text_input": "The sea"}))


def test_metrics_are_well_formed(tiny_server: Server) -> None:
    """promtool reads /metrics, and has nothing to say of our own series."""
    with tiny_server.client() as http:
        done = promtool("check", "metrics", text=http.get("/metrics").text)
    # 3: it would have named or described a series in another way; those are vLLM's and Triton's.
    assert done.returncode in (0, 3), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("gemma_serve")]
    assert not said, said


def test_the_target_is_up(prometheus: Prometheus) -> None:
    """The server is scraped, and the rules see it as ready."""
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    (up,) = prometheus.query('up{job="gemma-serve"}')
    assert up["value"][1] == "1"


def test_no_alert_of_a_well_server(prometheus: Prometheus) -> None:
    """On a server that is well, nothing fires and no rule fails."""
    assert prometheus.ask("alerts")["alerts"] == []
    states = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in states if rule["health"] != "ok"] == []
    assert len(states) == len(list(rules()))


@pytest.mark.parametrize("expression", ALL, ids=lambda one: one.where)
def test_every_series_exists(
    prometheus: Prometheus, tiny_server: Server, expression: Expression
) -> None:
    """Each metric that an expression reads is there, with the labels that it is chosen by."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for selector in expression.selectors():
        if selector.name.startswith(OF_OTHERS):
            continue
        if selector.name in WITHOUT_SAMPLES:
            assert selector.name in declared(tiny_server)
            continue
        what = f"{expression.where}: {selector.name}"
        assert prometheus.has_series(selector.name), f"{what} does not exist"
        for matcher in selector.matchers.matchers:
            # The operator adds the namespace in Kubernetes.
            if matcher.name != "namespace" and selector.name not in recorded:
                labelled = f'{selector.name}{{{matcher.name}!=""}}'
                assert prometheus.has_series(labelled), f"{what} has no label {matcher.name}"
    prometheus.query(expression.expr)


def declared(server: Server) -> set[str]:
    """The families that /metrics describes, also those without a sample."""
    with server.client() as http:
        text = http.get("/metrics").text
    return {family.name for family in text_string_to_metric_families(text)}


@pytest.mark.parametrize("expression", list(of_panels()), ids=lambda one: one.where)
def test_every_panel_shows_something(prometheus: Prometheus, expression: Expression) -> None:
    """Each query of the dashboard has a result, with the labels that its legend names."""
    names = expression.names()
    if expression.where in EMPTY or names & WITHOUT_SAMPLES:
        return
    if any(name.startswith(OF_OTHERS) for name in names):
        return
    result = prometheus.query(expression.expr)
    assert result, f"{expression.where} is empty: {expression.expr}"
    labels = set(chain.from_iterable(series["metric"] for series in result))
    assert labels >= expression.legend_labels


def test_every_panel_can_be_drawn(prometheus: Prometheus) -> None:
    """The pictures of the documentation come from the same JSON: each panel has its place there."""
    source = Source(prometheus.base_url, time.time() - 60, time.time())
    for title, row in sections():
        text, _ = page([(title, row)], source)
        assert text.count("<section") == len(row)
        assert "polyline" in text or "value" in text


def test_a_series_that_is_not_there_is_found(prometheus: Prometheus, tiny_server: Server) -> None:
    """The check itself: an invented metric, and an invented label, fail."""
    with pytest.raises(AssertionError, match="does not exist"):
        test_every_series_exists(prometheus, tiny_server, Expression("x", "rate(vllm:no_such[1m])"))
    invented = Expression("x", 'vllm:num_requests_running{no_label="1"}')
    with pytest.raises(AssertionError, match="has no label"):
        test_every_series_exists(prometheus, tiny_server, invented)
