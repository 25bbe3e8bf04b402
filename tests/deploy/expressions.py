"""Every PromQL expression under deploy/, and the series that each names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "gemma-serve.json"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))


@dataclass(frozen=True)
class Expression:
    """An expression, and where it stands."""

    where: str
    expr: str
    legend_labels: frozenset[str] = field(default_factory=frozenset)

    def selectors(self) -> Iterator[Any]:
        """The vector selectors: a metric's name and matchers of its labels."""
        found: list[Any] = []

        def visit(node: Any) -> None:
            if isinstance(node, promql_parser.MatrixSelector):
                found.append(node.vector_selector)
            elif isinstance(node, promql_parser.VectorSelector):
                found.append(node)

        promql_parser.walk(promql_parser.parse(self.expr), pre_visit=visit)
        yield from found

    def names(self) -> set[str]:
        """The metrics that it reads."""
        return {selector.name for selector in self.selectors()}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def panels() -> Iterator[dict[str, Any]]:
    """Every panel that shows something, those inside of rows too."""
    for panel in dashboard()["panels"]:
        yield from [panel] if panel["type"] != "row" else panel["panels"]


def of_panels() -> Iterator[Expression]:
    """The dashboard's queries, with its variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            labels = frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            yield Expression(panel["title"], filled(target["expr"]), labels)


def of_dashboard() -> Iterator[Expression]:
    """The queries of panels, annotations and variables."""
    yield from of_panels()
    for annotation in dashboard()["annotations"]["list"]:
        yield Expression(annotation["name"], filled(annotation["expr"]))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert selector, variable
            yield Expression(f"${variable['name']}", f'{selector[1]}{{{selector[2]}!=""}}')


def rules() -> Iterator[dict[str, Any]]:
    """The recording and alert rules."""
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def of_rules() -> Iterator[Expression]:
    """The rules' expressions."""
    for rule in rules():
        yield Expression(rule.get("alert") or rule["record"], rule["expr"])


def of_autoscaler() -> Iterator[Expression]:
    """The questions that KEDA asks."""
    for file in DEPLOY.glob("kubernetes/**/scaled-object*.yaml"):
        for trigger in yaml.safe_load(file.read_text())["spec"]["triggers"]:
            if trigger["type"] == "prometheus":
                yield Expression(f"{file.name}: {trigger['name']}", trigger["metadata"]["query"])


def filled(expr: str) -> str:
    """An expression with what Grafana would put in for its variables."""
    expr = expr.replace("$__rate_interval", "1m")
    for variable in dashboard()["templating"]["list"]:
        value = variable.get("allValue") or variable["current"]["value"]
        expr = expr.replace(f"${variable['name']}", value)
    assert "$" not in expr, f"a variable that the test does not know: {expr}"
    return expr
