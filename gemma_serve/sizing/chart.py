"""Memory by part as a picture: one bar, drawn as SVG or, with Pillow, as PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.sizing.report import Part, Report, gib

_WIDTH, _MARGIN, _BAR_TOP, _BAR_HEIGHT, _LINE = 960, 24, 64, 56, 24
_TEXT_PX = 14
_INK, _PAPER, _LIMIT = "#1f2328", "#ffffff", "#cf222e"
# Weights in blues, what is modelled in oranges, the cache green, the rest grey: told apart in grey
# print too.
_COLOURS = {
    "weights: embeddings": "#0a3069",
    "weights: per-layer embeddings": "#0550ae",
    "weights: linear layers": "#218bff",
    "weights: experts": "#54aeff",
    "weights: towers": "#80ccff",
    "weights: other": "#b6e3ff",
    "activations": "#bc4c00",
    "CUDA graphs": "#e16f24",
    "workspaces": "#fb8f44",
    "KV cache": "#1a7f37",
}
_GREY = "#d0d7de"


@dataclass(frozen=True)
class _Rectangle:
    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class _Label:
    x: float
    y: float  # of the baseline
    text: str
    colour: str = _INK


@dataclass(frozen=True)
class _Picture:
    height: int
    shapes: tuple[_Rectangle | _Label, ...]


def write_chart(report: Report, file: Path) -> None:
    """
    Write the chart; the name's ending says in which format.

    Raises:
        ProfileError: Neither .svg nor .png.
        StartupError: The file can't be written.
    """
    writers = {".svg": _svg, ".png": _png}
    if file.suffix.lower() not in writers:
        raise ProfileError(f"--chart {str(file)!r} is neither .svg nor .png; use one of the two.")
    picture = _draw(report)
    try:
        writers[file.suffix.lower()](picture, file)
    except OSError as error:
        raise StartupError(
            f"--chart {str(file)!r} can't be written ({error.strerror or error}); name a file in a "
            "directory that you may write to."
        ) from None


def _draw(report: Report) -> _Picture:
    """Title, the bar of the device with the limit of vLLM's share, and the legend."""
    parts, sizing = report.parts(), report.sizing
    whole = max(sizing.memory_bytes, sum(part.num_bytes for part in parts))
    scale = (_WIDTH - 2 * _MARGIN) / whole
    title = f"{report.subject.loaded.name} on {sizing.platform.label}"
    memory = f"{gib(sizing.memory_bytes)} GiB of one device"
    state = "fits" if sizing.fits else f"does not fit: {gib(sizing.short_bytes)} GiB are missing"
    shapes: list[_Rectangle | _Label] = [
        _Label(_MARGIN, 28, title),
        _Label(_MARGIN, 50, f"{memory}; {state}"),
    ]
    x = float(_MARGIN)
    for part in parts:
        width = part.num_bytes * scale
        shapes.append(_Rectangle(x, _BAR_TOP, width, _BAR_HEIGHT, _colour(part)))
        x += width
    for limit in (sizing.usable_bytes, sizing.memory_bytes):
        x = _MARGIN + limit * scale - 1
        shapes.append(_Rectangle(x, _BAR_TOP - 6, 2, _BAR_HEIGHT + 12, _LIMIT))
    limits = f"what vLLM may take, {gib(sizing.usable_bytes)} GiB, and the whole device"
    legend = [(f"{part.name}: {gib(part.num_bytes)} GiB ({part.how})", part) for part in parts]
    lines = [*((text, _colour(part)) for text, part in legend), (limits, _LIMIT)]
    y = _BAR_TOP + _BAR_HEIGHT + 40
    for text, colour in lines:
        shapes += [_Rectangle(_MARGIN, y - 12, 14, 14, colour), _Label(_MARGIN + 24, y, text)]
        y += _LINE
    return _Picture(y + _MARGIN, tuple(shapes))


def _colour(part: Part) -> str:
    return _COLOURS.get(part.name, _GREY)


def _svg(picture: _Picture, file: Path) -> None:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{picture.height}" '
        f'viewBox="0 0 {_WIDTH} {picture.height}" font-family="sans-serif" '
        f'font-size="{_TEXT_PX}">',
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
    ]
    for shape in picture.shapes:
        if isinstance(shape, _Rectangle):
            lines.append(
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
                f'height="{shape.height:.1f}" fill="{shape.colour}"/>'
            )
        else:
            text = escape(shape.text)
            lines.append(
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" fill="{shape.colour}">{text}</text>'
            )
    file.write_text("\n".join([*lines, "</svg>"]) + "\n", encoding="utf-8")


def _png(picture: _Picture, file: Path) -> None:
    image = Image.new("RGB", (_WIDTH, picture.height), _PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=_TEXT_PX)
    for shape in picture.shapes:
        if isinstance(shape, _Rectangle):
            corner = (shape.x + shape.width, shape.y + shape.height)
            draw.rectangle(((shape.x, shape.y), corner), fill=shape.colour)
        else:
            draw.text((shape.x, shape.y), shape.text, fill=shape.colour, font=font, anchor="ls")
    image.save(file)
