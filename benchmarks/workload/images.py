"""Generated images: smooth colour fields, so that a PNG has the size of a photo's, not of noise."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

GRID = 16


def draw_png(rng: np.random.Generator, width: int, height: int) -> bytes:
    """
    A PNG of this size, different with every draw.

    Its bytes depend on Pillow's and zlib's versions too: replay the file, not the seed.
    """
    grid = rng.integers(0, 256, size=(GRID, GRID, 3), dtype=np.uint8)
    image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def image_part(png: bytes) -> dict[str, Any]:
    """A content part of a chat message, in OpenAI's words."""
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
