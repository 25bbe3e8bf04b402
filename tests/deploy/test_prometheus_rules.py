"""The rules without a server: promtool reads them, and plays what each alert is for."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule

from gemma_serve.metrics_view import VLLM_RELEASE
from tests.deploy.expressions import RULES, of_dashboard, of_rules, rules
from tests.deploy.prometheus import FOLDER, promtool
from tests.docs.pages import blocks

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "operations.md"
ALERTS = sorted({rule["alert"] for rule in rules() if "alert" in rule})
TESTS = FOLDER / "tests" / "alerts_test.yml"


def test_prometheus_takes_the_configuration() -> None:
    """promtool finds nothing wrong with the configuration and the rules that it names."""
    done = promtool("check", "config", "--lint-fatal", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(RULES) == done.stdout.count("rules found")


def test_alerts_fire_on_what_they_are_for() -> None:
    """promtool plays series and times: what fires then, with which labels and sentences."""
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_played() -> None:
    """No alert is without a series on which it fires."""
    fired = {
        alert["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for alert in test.get("alert_rule_test", [])
        if alert["exp_alerts"]
    }
    assert sorted(fired) == ALERTS


def test_other_vllms_are_all_but_the_pinned_one() -> None:
    """What the alert, the dashboard and `top` take for the right release is the pinned one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = (one.partition("==")[2] for one in project["optional-dependencies"]["gpu"])
    right = [
        matcher.value
        for expression in (*of_rules(), *of_dashboard())
        for selector in expression.selectors()
        for matcher in selector.matchers.matchers
        if matcher.name == "vllm_version"
    ]
    assert len(right) == 2  # the alert and the panel
    for pattern in right:
        assert re.fullmatch(pattern, pinned)
        assert not re.fullmatch(pattern, "0.31.1")
    assert pinned.startswith(f"{VLLM_RELEASE}.")


def test_the_operator_gets_the_rules(tmp_path: Path) -> None:
    """What docs/deploy.md says makes an object of each file, and the operator's model takes it."""
    [commands] = [
        block.text
        for block in blocks(ROOT / "docs" / "deploy.md")
        if "PrometheusRule" in block.text
    ]
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\nif [ "$3" = apply ]; then echo ---; cat; fi\n')
    kubectl.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", commands], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )

    objects = list(yaml.safe_load_all(done.stdout))
    files = {file.stem: yaml.safe_load(file.read_text()) for file in RULES}
    assert {found["metadata"]["name"]: found["spec"] for found in objects} == {
        f"gemma-serve-{name}": content for name, content in files.items()
    }
    for found in objects:
        read = PrometheusRule.model_validate(found)
        assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == found


@pytest.mark.parametrize("alert", ALERTS)
def test_runbook_has_each_alert(alert: str) -> None:
    """Each alert leads to a section of the runbook which says what it means and what to do."""
    section = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.M | re.S)
    assert section
    assert "**What it means.**" in section[1]
    assert "**What to do.**" in section[1]
    for rule in (rule for rule in rules() if rule.get("alert") == alert):
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{alert.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
