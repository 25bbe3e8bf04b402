"""The dashboard and its provisioning, by their structure; no Grafana can be had here."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import yaml

from tests.deploy.dashboard_images import pictures
from tests.deploy.expressions import DEPLOY, dashboard, of_panels, panels
from tests.docs.pages import ROOT

PROVISIONING = DEPLOY / "grafana" / "provisioning"
KINDS = {"bargauge", "stat", "table", "timeseries"}
GRID_COLUMNS = 24


def grids() -> list[list[dict[str, Any]]]:
    """Panels that share a page: the top, and each collapsed row's own."""
    top = dashboard()["panels"]
    return [top, *(panel["panels"] for panel in top if panel.get("collapsed"))]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two places on the grid share a cell."""
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_no_panel_covers_another() -> None:
    """Every panel has a place of its own on the grid, and an id of its own."""
    for grid in grids():
        places = [panel["gridPos"] for panel in grid]
        assert all(0 <= place["x"] <= GRID_COLUMNS - place["w"] for place in places)
        assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    ids = [panel["id"] for grid in grids() for panel in grid]
    assert len(ids) == len(set(ids))


def test_every_panel_is_explained() -> None:
    """Each panel has a title of its own, a sentence, a unit, and asks the chosen data source."""
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
    for panel in panels():
        assert panel["type"] in KINDS
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"], panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))


def test_the_optional_row_says_so() -> None:
    """Series of NVIDIA's exporter stand in the closed row that says so, and only there."""
    foreign = {one.where for one in of_panels() if any("DCGM" in name for name in one.names())}
    (row,) = [panel for panel in dashboard()["panels"] if panel.get("collapsed")]
    assert "optional" in row["title"]
    assert foreign == {panel["title"] for panel in row["panels"]}


def test_what_the_issue_asks_for_is_there() -> None:
    """Each thing that an operator looks for has a row, in the order in which it is looked for."""
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows[:-1] == [
        "Now",
        "Traffic",
        "Latency",
        "Tokens",
        "Queue and KV cache",
        "Errors and goodput",
        "Start-up and processes",
    ]


def test_provisioning_fits_the_dashboard() -> None:
    """The data source that is provisioned is the dashboard's default; its folder is read."""
    source = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())
    (prometheus,) = source["datasources"]
    chosen = next(one for one in dashboard()["templating"]["list"] if one["name"] == "datasource")
    assert chosen["query"] == prometheus["type"] == "prometheus"
    assert chosen["current"]["value"] == prometheus["uid"]
    folder = yaml.safe_load((PROVISIONING / "dashboards" / "gemma-serve.yml").read_text())
    (provider,) = folder["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_the_pictures_show_every_row() -> None:
    """docs/images has the pictures of all open rows and no others, and the page shows each."""
    docs = ROOT / "docs"
    assert sorted(file.name for file in (docs / "images").glob("dashboard-*.png")) == [*pictures()]
    page = (docs / "operations.md").read_text()
    assert [name for name in pictures() if f"](images/{name})" not in page] == []
