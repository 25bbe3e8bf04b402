"""What the pixels of an image may be, and what the model sees of them (class G1)."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from gemma_serve.chat.media import ImageLoader
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Images
from tests.chat.evil_images import SETTINGS, bad_images, data_url, good_images, picture, saved

BAD = bad_images()
GOOD = good_images()
CODES = {"invalid_image", "invalid_image_url", "image_too_large"}


def load(url: str, settings: Images = SETTINGS) -> str:
    """What the loader makes of the URL."""

    async def one() -> str:
        loader = ImageLoader(settings)
        try:
            return await loader.load(url, param="messages[0].content[0]")
        finally:
            await loader.aclose()

    return asyncio.run(one())


def refusal(url: str, settings: Images = SETTINGS) -> RequestError:
    """Why the loader refuses the URL."""
    with pytest.raises(RequestError) as caught:
        load(url, settings)
    return caught.value


def pixels(url: str) -> Image.Image:
    """The image in the data: URL that vLLM gets."""
    head, _, body = url.partition(",")
    assert head == "data:image/bmp;base64"
    return Image.open(BytesIO(base64.b64decode(body, validate=True)), formats=("BMP",))


def test_the_class_is_complete() -> None:
    """Class G1 holds at least the hundred inputs that were promised."""
    assert len(BAD) + len(GOOD) >= 100


@pytest.mark.parametrize("name", BAD)
def test_bad_image_is_refused(name: str) -> None:
    """A bad image is the client's fault, said in one sentence without Pillow's own words."""
    error = refusal(BAD[name])
    assert error.status == 400
    assert error.code in CODES
    assert error.param == "messages[0].content[0]"
    assert len(error.message) <= 300
    assert not re.search(r"0x[0-9a-f]|pil|bytesio|decoder|traceback|\.py", error.message.lower())


@pytest.mark.parametrize("name", GOOD)
def test_model_sees_what_a_viewer_shows(name: str) -> None:
    """Odd modes, transparency, orientation and animations come out as their flattened twin."""
    data, expected = GOOD[name]
    seen = pixels(load(data_url(data)))
    assert (seen.mode, seen.size) == ("RGB", expected.size)
    worst = max(high for _, high in ImageChops.difference(seen, expected).getextrema())
    assert worst <= 1  # two ways of rounding alpha


def test_declared_type_does_not_decide() -> None:
    """A JPEG that calls itself a PNG, in upper case, is decoded as what it is."""
    url = load(data_url(saved(picture(), "JPEG"), "IMAGE/PNG").replace("data:", "DATA:"))
    assert pixels(url).size == picture().size


def test_metadata_does_not_pass() -> None:
    """Comments and EXIF end at the decoder."""
    data = saved(picture(), "JPEG", comment=b"secret place", exif=b"Exif\0\0secret place")
    body = load(data_url(data)).partition(",")[2]
    assert b"secret" not in base64.b64decode(body)


def test_size_is_refused_with_the_numbers() -> None:
    """An image over max_pixels is refused by its header, an image at the limit is taken."""
    url = data_url(saved(Image.new("RGB", (40, 30)), "PNG"))
    assert load(url, Images(max_pixels=1200))
    error = refusal(url, Images(max_pixels=1199))
    assert (error.code, error.message) == (
        "image_too_large",
        "The image has 40 x 30 pixels; this server takes at most 1199 in all (images.max_pixels); "
        "send a smaller one.",
    )


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_bytes_are_counted_exactly(extra: int) -> None:
    """max_bytes counts decoded bytes, whatever the padding."""
    data = saved(picture(), "PNG") + bytes(extra)
    assert load(data_url(data), Images(max_bytes=len(data)))
    assert refusal(data_url(data), Images(max_bytes=len(data) - 1)).code == "image_too_large"


@pytest.mark.parametrize("size", [(2, 2), (2, 400), (400, 2)])
def test_smallest_and_longest(size: tuple[int, int]) -> None:
    """Sides of 2 and a ratio of 200 are still taken."""
    assert pixels(load(data_url(saved(Image.new("RGB", size), "PNG")))).size == size


def test_ordinary_progressive_jpeg_is_taken() -> None:
    """The limit on scans leaves alone what encoders write."""
    assert load(data_url(saved(picture(), "JPEG", progressive=True)))


def test_pillow_does_not_write_to_the_log() -> None:
    """Bombs and broken EXIF leave no warning behind; clients do not write our logs."""
    script = (
        "import asyncio, logging; logging.captureWarnings(True); logging.basicConfig()\n"
        "from tests.chat.evil_images import bad_images, good_images, data_url\n"
        "from tests.chat.test_media_images import load, refusal\n"
        "[refusal(url) for url in bad_images().values()]\n"
        "[load(data_url(data)) for data, _ in good_images().values()]\n"
    )
    ran = run(script)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_bad_images_take_little_memory() -> None:
    """The whole list of bad images raises the process by less than 300 MB, errors kept."""
    script = (
        "from pathlib import Path\n"
        "from tests.chat.evil_images import bad_images\n"
        "from tests.chat.test_media_images import refusal\n"
        # Not ru_maxrss: a child process inherits its parent's.
        "status = lambda: Path('/proc/self/status').read_text()\n"
        "peak = lambda: int(status().partition('VmHWM:')[2].split()[0])\n"
        "urls = bad_images(); before = peak()\n"
        "kept = [refusal(url) for url in urls.values()]\n"
        "print(peak() - before)\n"
    )
    grown_kib = int(run(script).stdout)
    assert grown_kib * 1024 < 300_000_000


def run(script: str) -> subprocess.CompletedProcess[str]:
    """The script in a Python of its own."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
