"""Class G1 of the bad inputs, and images that are odd but good; written here, byte by byte."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from gemma_serve.profile.schema import Images

SETTINGS = Images(max_bytes=1_000_000)
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def data_url(data: bytes, mime: str = "image/png") -> str:
    """The bytes as a client sends them."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The image as a file of this format."""
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Three colours, no symmetry: any turn, flip or lost channel shows."""
    image = Image.new("RGB", size, (200, 30, 60))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0] // 3, size[1] // 2), fill=(20, 180, 90))
    draw.rectangle((size[0] // 2, size[1] // 2, size[0], size[1]), fill=(10, 40, 220))
    return image.quantize(4) if mode == "P" else image.convert(mode)


def noise(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Pixels that no encoder makes small, the same in each run."""
    state, values = 1, bytearray()
    for _ in range(size[0] * size[1] * 3):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        values.append(state >> 16 & 0xFF)
    return Image.frombytes("RGB", size, bytes(values))


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG with this header and these chunks; its pixels are one short block of zeros."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(3000)))
    return PNG_HEAD + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def grey16(transparent: int | None = None) -> bytes:
    """A PNG of 16-bit grey, 2 x 2: 0x0000, 0x40FF, 0x80FF and 0xFFFF."""
    rows = b"\0\x00\x00\x40\xff" + b"\0\x80\xff\xff\xff"
    trns = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    return PNG_HEAD + header + trns + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def gif_bomb(screen: tuple[int, int], frame: tuple[int, int], disposal: int = 0) -> bytes:
    """A GIF of a few bytes with these sizes."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    control = b"\x21\xf9\x04" + bytes([disposal << 2 | 1]) + b"\0\0\0\0"
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\0"
    return head + control + image + b";"


def webp_bomb(side: int) -> bytes:
    """A WebP whose canvas is said to be this wide and high."""
    extent = (side - 1).to_bytes(3, "little") * 2
    body = saved(picture(), "WEBP")[12:]
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes(4) + extent + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def jpeg_with_size(width: int, height: int) -> bytes:
    """A JPEG whose header claims this size."""
    data = bytearray(saved(picture(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def scan_flood(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = saved(noise(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def animated(file_format: str, frames: int, **options: Any) -> bytes:
    """`picture()`, then frames of another colour."""
    others = [Image.new("RGB", (48, 32), (at % 256, at // 256, 0)) for at in range(1, frames)]
    return saved(picture(), file_format, save_all=True, append_images=others, **options)


def long_gif(frames: int) -> bytes:
    """A GIF with one small frame repeated."""
    data = saved(picture("P", (12, 8)), "GIF")
    at = data.index(b"\x2c")
    return data[:at] + data[at:-1] * frames + b";"


def _bombs() -> Iterator[tuple[str, bytes]]:
    for width, height in [
        (50_000, 50_000),
        (65_535, 65_535),
        (8_000, 5_001),
        (2**31 - 1, 2**31 - 1),
        (0, 0),
    ]:
        yield f"png_{width}x{height}", png(width, height)
    yield "png_interlaced_claim", png(40_000, 40_000, depth=16, colour=6)
    yield "gif_65535", gif_bomb((65_535, 65_535), (65_535, 65_535), disposal=2)
    yield "gif_12000", gif_bomb((12_000, 12_000), (12_000, 12_000), disposal=2)
    yield "gif_frame_over_screen", gif_bomb((2, 2), (12_000, 12_000), disposal=2)
    yield "gif_previous", gif_bomb((12_000, 12_000), (12_000, 12_000), disposal=3)
    yield "webp_16383", webp_bomb(16_383)
    yield "webp_12000", webp_bomb(12_000)
    yield "jpeg_65500", jpeg_with_size(65_500, 65_500)
    yield "jpeg_12000", jpeg_with_size(12_000, 12_000)
    yield "jpeg_scan_flood", scan_flood(200)
    squeezed = zlib.compress(bytes(60_000_000))
    yield "png_ztxt", png(32, 32, chunk(b"zTXt", b"k\0\0" + squeezed))
    yield "png_iccp", png(32, 32, chunk(b"iCCP", b"k\0\0" + squeezed))
    yield "png_itxt", png(32, 32, chunk(b"iTXt", b"k\0\1\0\0\0" + squeezed))
    million = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    yield "png_many_ztxt", png(32, 32, *[million] * 80)


def _other_formats() -> Iterator[tuple[str, bytes]]:
    for file_format in ("TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "ICNS", "PDF"):
        yield file_format.lower(), saved(picture(size=(32, 32)), file_format)
    for file_format in ("EPS", "IM", "MSP", "XBM"):
        mode = "1" if file_format in ("MSP", "XBM") else "RGB"
        yield file_format.lower(), saved(picture(mode), file_format)
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "psd", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(99)
    yield "jpeg2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)
    yield "jpeg2000_stream", b"\xff\x4f\xff\x51" + bytes(99)
    yield "avif", b"\0\0\0\x20ftypavif" + bytes(99)
    yield "heic", b"\0\0\0\x20ftypheic" + bytes(99)
    yield "mp4", b"\0\0\0\x20ftypisom" + bytes(99)
    yield "wav", b"RIFF\x64\0\0\0WAVEfmt " + bytes(99)
    yield "html", b"<html><body>not an image</body></html>"
    yield "zip", b"PK\3\4" + bytes(99)
    yield "pickle", b"\x80\x04\x95" + bytes(99)
    yield "numpy", b"\x93NUMPY" + bytes(99)
    yield "one_byte", b"\x89"
    yield "zeros", bytes(1000)


def _truncated() -> Iterator[tuple[str, bytes]]:
    for file_format, cuts in (("PNG", 16), ("JPEG", 16), ("WEBP", 4), ("GIF", 4)):
        data = saved(noise(), file_format)
        for cut in range(cuts):
            yield f"{file_format.lower()}_cut_{cut}", data[: 1 + len(data) * cut // (cuts + 1)]


def _damaged() -> Iterator[tuple[str, bytes]]:
    good = saved(noise(), "PNG")
    yield "png_signature", PNG_HEAD
    yield "png_bad_crc", good[:29] + bytes(4) + good[33:]
    yield "png_no_palette_bits", png(32, 32, depth=7, colour=3)
    yield "png_bad_colour", png(32, 32, colour=5)
    yield "png_noise_pixels", PNG_HEAD + good[8:33] + chunk(b"IDAT", b"\1\2\3" * 99)
    yield "png_no_pixels", PNG_HEAD + good[8:33] + chunk(b"IEND", b"")
    yield "jpeg_markers_only", b"\xff\xd8\xff\xd9"
    jpeg = saved(picture(), "JPEG")
    yield (
        "jpeg_no_tables",
        jpeg[:2] + jpeg[jpeg.index(b"\xff\xc0") :].replace(b"\xff\xc4", b"\xff\xfe"),
    )
    gif = saved(picture("P"), "GIF")
    yield "gif_no_frame", gif[: gif.index(b"\x2c")] + b";"
    webp = saved(picture(), "WEBP")
    yield "webp_no_frame", webp[:12]
    yield "webp_wrong_chunk", webp[:12] + b"XXXX" + webp[16:]


def _sides() -> Iterator[tuple[str, bytes]]:
    for width, height in [(1, 1), (1, 2), (2, 1), (1, 10_000), (10_000, 1), (2, 402), (402, 2)]:
        yield f"side_{width}x{height}", saved(Image.new("RGB", (width, height)), "PNG")


def _bad_urls() -> Iterator[tuple[str, str]]:
    good = data_url(saved(picture(), "PNG"))
    text = good.partition(",")[2]
    yield "base64_empty", "data:image/png;base64,"
    yield "base64_padding_only", "data:image/png;base64,===="
    yield "base64_no_padding", data_url(b"\x89PNG\r\n\x1a").rstrip("=")
    yield "base64_line_break", good[:60] + "\n" + good[60:]
    yield "base64_space", good[:60] + " " + good[60:]
    yield "base64_url_alphabet", "data:image/png;base64," + "-_" * 50
    yield "base64_percent", good[:60] + "%2B" + good[60:]
    yield "base64_unicode", good[:60] + "\u00e9" + good[60:]
    yield "base64_surrogate", good[:60] + "\ud800" + good[60:]
    yield "base64_nul", good[:60] + "\0" + good[60:]
    yield "base64_after_padding", "data:image/png;base64,QQ==QQ=="
    yield "base64_twice", good + "," + text
    yield "no_base64_word", "data:image/png," + text
    yield "no_comma", good.replace(",", "")
    yield "base64_not_last", "data:image/png;base64;charset=utf-8," + text
    yield "mime_none", "data:;base64," + text
    yield "mime_text", "data:text/plain;base64," + text
    yield "mime_html", "data:text/html;base64," + text
    yield "mime_pdf", "data:application/pdf;base64," + text
    yield "mime_long", "data:image/" + "x" * 1000 + ";base64," + text
    yield "svg_as_text", "data:image/svg+xml;utf8,<svg/>"
    yield "only_scheme", "data:"
    yield "too_many_bytes", data_url(bytes(1_000_001))
    yield "far_too_many_bytes", data_url(bytes(4_000_000))


def bad_images() -> dict[str, str]:
    """Name -> data: URL that must be refused. The settings are `SETTINGS`."""
    files = [*_bombs(), *_other_formats(), *_truncated(), *_damaged(), *_sides()]
    return {name: data_url(data) for name, data in files} | dict(_bad_urls())


def turned(orientation: int) -> bytes:
    """`picture()` stored so that this EXIF orientation shows it upright."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = picture() if back is None else picture().transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(stored, "PNG", exif=exif)


def on_white(image: Image.Image) -> Image.Image:
    """The flattened twin of an image with alpha, by Pillow's other way of doing it."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def good_images() -> dict[str, tuple[bytes, Image.Image]]:
    """Name -> file, and the pixels that the model must see."""
    half = picture("RGBA")
    half.putalpha(Image.linear_gradient("L").resize(half.size))
    palette = picture("P")
    cmyk = saved(picture("CMYK"), "JPEG", quality=95)
    grey = Image.frombytes("L", (2, 2), b"\x00\x40\x80\xff")
    found = {
        "rgb": (saved(picture(), "PNG"), picture()),
        "grey": (saved(picture("L"), "PNG"), picture("L")),
        "grey_alpha": (saved(half.convert("LA"), "PNG"), on_white(half.convert("LA"))),
        "one_bit": (saved(picture("1"), "PNG"), picture("1")),
        "palette": (saved(palette, "PNG"), palette),
        "alpha": (saved(half, "PNG"), on_white(half)),
        "webp_alpha": (saved(half, "WEBP", lossless=True, exact=True), on_white(half)),
        "webp": (saved(picture(), "WEBP", lossless=True), picture()),
        "cmyk": (cmyk, Image.open(BytesIO(cmyk)).convert("RGB")),
        "gif": (saved(palette, "GIF"), palette),
        "grey16": (grey16(), grey),
        "grey16_trns": (grey16(0x80FF), Image.frombytes("L", (2, 2), b"\x00\x40\xff\xff")),
        "gif_10k_frames": (long_gif(10_000), picture("P", (12, 8))),
        "webp_animated": (animated("WEBP", 30, lossless=True), picture()),
        "apng": (animated("PNG", 30), picture()),
    }
    red, white = (200, 30, 60), (255, 255, 255)
    flat = picture()
    flat.putdata([white if pixel == red else pixel for pixel in picture().get_flattened_data()])
    found["rgb_trns"] = (saved(picture(), "PNG", transparency=red), flat)
    index = palette.getpixel((47, 0))
    found["palette_trns"] = (saved(palette, "PNG", transparency=index), flat)
    found["gif_trns"] = (saved(palette, "GIF", transparency=index), flat)
    for orientation in range(1, 9):
        found[f"exif_{orientation}"] = (turned(orientation), picture())
    found["exif_broken"] = (
        saved(picture(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        picture(),
    )
    return {name: (data, image.convert("RGB")) for name, (data, image) in found.items()}
