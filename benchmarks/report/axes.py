"""A panel: its scales, grid, ticks and axis names; and where labels go so that none overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from benchmarks.report.scales import Scale
from benchmarks.report.svg import Point, line, text, text_width
from benchmarks.report.words import tick

WIDTH, HEIGHT = 620.0, 360.0
WIDE = 1280.0
TICK_PX = 12.0


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Panel:
    """The inside of a plot's axes; x and y lie over its box."""

    box: Box
    x: Scale
    y: Scale
    x_name: str
    y_name: str
    x_tick: Callable[[float], str] = tick
    y_tick: Callable[[float], str] = tick

    def at(self, x: float, y: float) -> Point:
        """The pixel of a pair of values."""
        return self.x(x), self.y(y)

    def axes(self, *, x_labels: bool = True) -> list[Markup]:
        """Grid, ticks and names; drawn first, under the data."""
        box = self.box
        drawn = [line(box.left, self.y(v), box.right, self.y(v), "grid") for v in self.y.ticks]
        drawn += [
            text(box.left - 8, self.y(v) + 4, self.y_tick(v), anchor="end") for v in self.y.ticks
        ]
        drawn.append(text(box.left, box.top - 12, self.y_name, "axis-name"))
        drawn.append(line(box.left, box.bottom, box.right, box.bottom, "axis"))
        drawn += [
            line(self.x(v), box.bottom, self.x(v), box.bottom + 4, "axis") for v in self.x.ticks
        ]
        if x_labels:
            drawn += x_tick_labels(self.x, self.x_tick, box.bottom + 18)
            middle = (box.left + box.right) / 2
            drawn.append(text(middle, box.bottom + 38, self.x_name, "axis-name", "middle"))
        return drawn


def plot_box(
    width: float = WIDTH, height: float = HEIGHT, left: float = 62.0, right: float = 20.0
) -> Box:
    """The inside of a single plot, with room for ticks and names around it."""
    return Box(left, 32.0, width - right, height - 48.0)


def x_tick_labels(scale: Scale, write: Callable[[float], str], y: float) -> list[Markup]:
    """Labels under an axis; those that would touch the one before are left out."""
    drawn, free_from = [], float("-inf")
    for value in scale.ticks:
        words, x = write(value), scale(value)
        half = text_width(words, TICK_PX) / 2
        if x - half < free_from:
            continue
        drawn.append(text(x, y, words, anchor="middle"))
        free_from = x + half + 8
    return drawn


@dataclass
class Labels:
    """Places labels beside their points, clear of each other, of all points and of the edge."""

    box: Box
    taken: list[Box] = field(default_factory=list)

    def keep_clear(self, points: Iterable[Point], radius: float = 5.0) -> None:
        """No label goes over these points."""
        self.taken += [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]

    def keep_clear_of_line(self, points: Sequence[Point]) -> None:
        """No label goes over the straight lines between these points."""
        for (x1, y1), (x2, y2) in pairwise(points):
            count = max(1, int((abs(x2 - x1) + abs(y2 - y1)) // 8))
            on_line = [
                (x1 + (x2 - x1) * i / count, y1 + (y2 - y1) * i / count) for i in range(count)
            ]
            self.keep_clear(on_line, 2.0)

    def place(self, x: float, y: float, words: str, class_: str = "label") -> Markup | None:
        """The label of a point; None where there is no free place: its tip still says it."""
        width = text_width(words, TICK_PX)
        for left, baseline in _places(x, y, width):
            box = Box(left - 1, baseline - 10, left + width + 1, baseline + 3)
            if self._is_free(box):
                self.taken.append(box)
                return text(left, baseline, words, class_)
        return None

    def keep_clear_of(self, box: Box) -> None:
        """No label goes over this."""
        self.taken.append(box)

    def _is_free(self, box: Box) -> bool:
        inside = (
            box.left >= self.box.left
            and box.right <= self.box.right
            and box.top >= self.box.top
            and box.bottom <= self.box.bottom
        )
        return inside and not any(box.overlaps(other) for other in self.taken)


def _places(x: float, y: float, width: float) -> Iterable[Point]:
    """Left end and baseline of the places around a point, the best first."""
    for gap in (9.0, 18.0):
        yield x + gap, y + 4
        yield x + gap * 0.7, y - gap * 0.8
        yield x - width / 2, y - gap
        yield x - gap * 0.7 - width, y - gap * 0.8
        yield x - gap - width, y + 4
        yield x + gap * 0.7, y + gap * 0.8 + 9
        yield x - width / 2, y + gap + 9
        yield x - gap * 0.7 - width, y + gap * 0.8 + 9
