"""SVG elements as escaped markup; every text that comes from data passes through here or jinja2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

Point = tuple[float, float]

SHAPES = ("circle", "square", "triangle", "diamond")
# em widths of Arial and its likes, by groups of equally wide characters.
_NARROW, _WIDE = set("ijl.,:;'|!It()[]fr/ "), set("mwMW%@")
_UPPER_EM, _LOWER_EM, _NARROW_EM, _WIDE_EM = 0.7, 0.57, 0.34, 0.9


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """`<name attributes>children</name>`: class_ is class, view_box viewBox, a_b a-b."""
    written = "".join(
        f' {_attribute(key)}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def group(children: Iterable[Markup], **attributes: object) -> Markup:
    """Children under common attributes."""
    return element("g", *children, **attributes)


def text(
    x: float, y: float, words: str, class_: str = "tick", anchor: str = "start", **more: object
) -> Markup:
    """Words with their baseline at y."""
    return element("text", words, x=x, y=y, class_=class_, text_anchor=anchor, **more)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(
    x: float, y: float, width: float, height: float, class_: str, tip: str = "", **more: object
) -> Markup:
    """A rectangle, with a tip when pointed at."""
    tips = [element("title", tip)] if tip else []
    return element(
        "rect", *tips, x=x, y=y, width=max(width, 0.0), height=height, class_=class_, **more
    )


def polyline(points: Sequence[Point], class_: str) -> Markup:
    """Straight lines from point to point."""
    return element("path", d=_path(points), class_=class_)


def area(points: Sequence[Point], class_: str) -> Markup:
    """The inside of a closed line."""
    return element("path", d=_path(points) + "Z", class_=class_)


def steps(points: Sequence[Point]) -> list[Point]:
    """The corners of a line that keeps each value until the next x."""
    corners: list[Point] = list(points[:1])
    for (_, before), (x, y) in pairwise(points):
        corners += [(x, before), (x, y)]
    return corners


def marker(x: float, y: float, shape: str, class_: str, size: float = 4.5, tip: str = "") -> Markup:
    """A point of one of SHAPES, or a cross, with a tip when pointed at."""
    tips = [element("title", tip)] if tip else []
    if shape == "circle":
        return element("circle", *tips, cx=x, cy=y, r=size, class_=class_)
    s = size
    corners: dict[str, list[Point]] = {
        "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
        "triangle": [(0, -1.25 * s), (1.2 * s, s), (-1.2 * s, s)],
        "diamond": [(0, -1.4 * s), (1.4 * s, 0), (0, 1.4 * s), (-1.4 * s, 0)],
    }
    if shape == "cross":
        d = _path([(x - s, y - s), (x + s, y + s)]) + _path([(x - s, y + s), (x + s, y - s)])
        return element("path", *tips, d=d, class_=class_)
    d = _path([(x + dx, y + dy) for dx, dy in corners[shape]]) + "Z"
    return element("path", *tips, d=d, class_=class_)


def drawing(
    width: float, height: float, name: str, title: str, description: str, body: Iterable[Markup]
) -> Markup:
    """A whole SVG that scales with its place and says to a screen reader what it shows."""
    title_id, description_id = f"{name}-title", f"{name}-desc"
    return element(
        "svg",
        element("title", title, id=title_id),
        element("desc", description, id=description_id),
        *body,
        view_box=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{title_id} {description_id}",
        class_="plot",
        id=name,
    )


def text_width(words: str, size: float = 12) -> float:
    """About how wide words are in a sans serif font, rather too wide than too narrow."""
    return size * sum(map(_em, words))


def shorten(words: str, width: float, size: float = 12) -> str:
    """Words cut to a width, with an ellipsis where something was cut."""
    if text_width(words, size) <= width:
        return words
    while words and text_width(words + "…", size) > width:
        words = words[:-1]
    return words.rstrip() + "…"


def _em(character: str) -> float:
    if character in _NARROW:
        return _NARROW_EM
    if character in _WIDE:
        return _WIDE_EM
    return _UPPER_EM if character.isupper() or ord(character) > 0x2E80 else _LOWER_EM


def _attribute(key: str) -> str:
    return "viewBox" if key == "view_box" else key.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
