"""
Decodes a client's image and writes it anew.

What vLLM gets is our own BMP of the pixels, never the client's file. vLLM tries 37 formats on what
it is given, several of them without a magic number, so that a file that is a good JPEG to us can
be something else to it; and metadata ends here. BMP, because it costs nothing: for 12 megapixels
14 ms to write and 13 ms to read, where PNG at compress_level 1 takes 1,100 and 380 ms (CPU time)
and saves a third of the bytes, which only travel inside this machine.
"""

from __future__ import annotations

import binascii
import contextlib
import warnings
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from gemma_serve.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MIN_SIDE = 2  # Gemma's processors resize by the ratio of the sides
MAX_ASPECT = 200
# Each scan of a progressive JPEG is one more pass over all pixels for a few bytes. Encoders write
# about 10. In coded data an 0xFF is always stuffed, so that the marker counts nothing else there.
MAX_JPEG_SCANS = 100
_START_OF_SCAN = b"\xff\xda"

# Pillow warns of each odd file with figures from it, and logs are not for clients to write.
warnings.filterwarnings("ignore", module=r"PIL\.")


def to_data_url(data: bytes, max_pixels: int) -> str:
    """
    The first frame as a data: URL of RGB pixels: upright, on white, 8 bits, no metadata.

    Raises:
        RequestError: invalid_image where the bytes are not one of `FORMATS`, damaged, or have
            sides that no Gemma takes; image_too_large where they have more than max_pixels.
    """
    # One step at a time: 40 megapixels are 160 MB of base64, which few may be alive of at once.
    bitmap = _to_bitmap(data, max_pixels)
    encoded = binascii.b2a_base64(bitmap.getbuffer(), newline=False)
    del bitmap
    text = encoded.decode("ascii")
    del encoded
    return "data:image/bmp;base64," + text


def _to_bitmap(data: bytes, max_pixels: int) -> BytesIO:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check_header(image, data, max_pixels)
            image.load()
            return _written(_on_white(_upright(image)))
    except UnidentifiedImageError:
        raise RequestError(
            "The image is not a PNG, JPEG, WEBP or GIF file that can be read; send one of these.",
            code="invalid_image",
        ) from None
    except RequestError:
        raise
    # Pillow raises nearly anything on a damaged file, MemoryError and its own bomb error among
    # them, with addresses and offsets in the message.
    except Exception:
        raise RequestError(
            "The image is damaged or cut off and can't be decoded; send a complete PNG, JPEG, "
            "WEBP or GIF file.",
            code="invalid_image",
        ) from None


def _check_header(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse by what the header says, before memory is taken for the pixels."""
    width, height = image.size
    if width * height > max_pixels:
        raise RequestError(
            f"The image has {width} x {height} pixels; this server takes at most {max_pixels} in "
            "all (images.max_pixels); send a smaller one.",
            code="image_too_large",
        )
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise RequestError(
            f"The image has {width} x {height} pixels; each side must be at least {MIN_SIDE} and "
            f"the longer one at most {MAX_ASPECT} times the shorter.",
            code="invalid_image",
        )
    if image.format in ("JPEG", "MPO") and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
        raise RequestError(
            f"The JPEG has more than {MAX_JPEG_SCANS} scans; save it again with an ordinary "
            "encoder.",
            code="invalid_image",
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; where EXIF can't be read, the image is taken as it lies."""
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey: Pillow's own conversion would clip all above 255 to white."""
    transparent = image.info.get("transparency")
    wide = image.convert("I")
    grey = wide.point([shade >> 8 for shade in range(65536)], "L")
    if transparent is None:
        return grey
    alpha = wide.point([0 if shade == transparent else 255 for shade in range(65536)], "L")
    return Image.merge("LA", (grey, alpha))


def _written(image: Image.Image) -> BytesIO:
    bitmap = BytesIO()
    image.save(bitmap, "BMP")
    return bitmap
