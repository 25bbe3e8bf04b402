"""What a plot function gives back: a figure with its legend, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from benchmarks.report import svg
from benchmarks.report.axes import HEIGHT, WIDTH

Key = Literal["line", "dashed", "dot", "area", "box"]
NUM_COLOURS = 6


@dataclass(frozen=True)
class LegendItem:
    """One entry: its swatch, and the series that it shows or hides when pressed."""

    words: str
    colour: str  # a class: c1 to c6, or a meaning such as wait and stall
    key: Key = "line"
    shape: str = ""
    series: str = ""  # elements with this data-series are toggled; empty: no button

    def swatch(self) -> Markup:
        """A small drawing of how the series looks."""
        drawn = []
        if self.key in ("line", "dashed"):
            dashed = " dashed" if self.key == "dashed" else ""
            drawn.append(svg.line(1, 7, 27, 7, f"line{dashed}"))
        if self.key in ("area", "box"):
            drawn.append(svg.rectangle(3, 2, 22, 10, self.key))
        if self.shape:
            drawn.append(svg.marker(14, 7, self.shape, mark_class(self.shape)))
        return svg.element(
            "svg",
            svg.group(drawn, class_=self.colour),
            width=28,
            height=14,
            view_box="0 0 28 14",
            class_="swatch",
            aria_hidden="true",
        )


@dataclass(frozen=True)
class Figure:
    """One plot, ready for the page."""

    plot: str  # its key, the same in every report: data-plot
    title: str
    note: str  # one sentence: how to read it
    said: str  # the figures in words, for who cannot see the drawing
    body: Sequence[Markup]
    legend: Sequence[LegendItem] = field(default_factory=list)
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def wide(self) -> bool:
        """Whether it takes both columns."""
        return self.width > WIDTH

    def drawing(self, prefix: str) -> Markup:
        """The SVG; the prefix keeps ids apart where a page has a plot twice."""
        name = f"{prefix}-{self.plot}"
        return svg.drawing(self.width, self.height, name, self.title, self.said, self.body)


@dataclass(frozen=True)
class LeftOut:
    """A plot for which there is no data."""

    plot: str
    title: str
    reason: str


def colour(index: int) -> str:
    """The class of the colour of a series; pairs of neighbours differ for every kind of sight."""
    return f"c{index % NUM_COLOURS + 1}"


def shape(index: int) -> str:
    """The shape of a series: never the colour alone tells which it is."""
    return svg.SHAPES[index % len(svg.SHAPES)]


def mark_class(marker_shape: str) -> str:
    """Crosses are stroked, all others filled."""
    return "cross" if marker_shape == "cross" else "dot"
