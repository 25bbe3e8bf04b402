"""From an image's URL to a data: URL whose bytes we wrote ourselves."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVarTuple

from gemma_serve.chat.media.decode import to_data_url
from gemma_serve.chat.media.fetch import Fetcher
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Images

Given = TypeVarTuple("Given")

DECODERS = 2  # threads, and with them the pixels that are in memory at once
FETCHES = 16  # at once, and with them the fetched bytes that wait for a decoder
_MAX_HEADER_CHARS = 256  # of a data: URL, before its comma


class ImageLoader:
    """Loads images one by one; the pool and the number of fetches are shared by all requests."""

    def __init__(self, settings: Images, fetcher: Fetcher | None = None) -> None:
        """Takes `fetcher` in place of the real one where `images.fetch_urls` is on."""
        self._settings = settings
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="image")
        self._fetches = asyncio.Semaphore(FETCHES)
        self._fetcher = (fetcher or Fetcher(settings)) if settings.fetch_urls else None

    async def load(self, url: str, *, param: str) -> str:
        """
        The image as a data: URL: decoded, upright, without transparency, written anew.

        Raises:
            RequestError: invalid_image_url where the URL or its base64 is refused or the fetch
                fails, image_too_large where bytes or pixels are over the limit, invalid_image
                where the bytes are no image that we take.
        """
        try:
            if url[:5].lower() == "data:":
                return await self._in_pool(_load_data_url, url, self._settings)
            return await self._load_fetched(url)
        except RequestError as error:
            raise _alone(error, param) from None

    async def aclose(self) -> None:
        """Let the threads go; what is being decoded ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._fetcher:
            self._fetcher.close()

    async def _load_fetched(self, url: str) -> str:
        if self._fetcher is None:
            raise RequestError(
                "Images by URL are off here; send the image as a data: URL "
                "(data:image/png;base64,...), or the operator may set images.fetch_urls.",
                code="invalid_image_url",
            )
        async with self._fetches:
            data = await self._fetcher.fetch(url)
            return await self._in_pool(to_data_url, data, self._settings.max_pixels)

    async def _in_pool(self, work: Callable[[*Given], str], *args: *Given) -> str:
        """Pixels and long base64 would hold up every other request on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


def _alone(error: RequestError, param: str) -> RequestError:
    """The error without the frames that raised it: they would keep the pixels in memory."""
    error.param = param
    error.__context__ = None
    return error.with_traceback(None)


def _load_data_url(url: str, settings: Images) -> str:
    return to_data_url(_bytes_of(url, settings.max_bytes), settings.max_pixels)


def _bytes_of(url: str, max_bytes: int) -> bytes:
    """What a data: URL carries; the size is checked before anything is decoded."""
    comma = url.find(",", 0, _MAX_HEADER_CHARS)
    media_type, *parameters = url[5:comma].lower().split(";")
    if comma < 0 or not media_type.startswith("image/") or parameters[-1:] != ["base64"]:
        raise _invalid("must begin with data:image/png;base64, (or another image type)")
    if (len(url) - comma - 1) // 4 * 3 - url.count("=", -2) > max_bytes:
        raise RequestError(
            f"The image has more than {max_bytes} bytes, which is the most that this server takes "
            "(images.max_bytes); send a smaller one.",
            code="image_too_large",
        )
    try:
        data = binascii.a2b_base64(url[comma + 1 :], strict_mode=True)
    except ValueError:  # binascii.Error is one; characters outside ASCII raise the plain one
        raise _invalid("is not valid base64") from None
    if not data:
        raise _invalid("carries no bytes")
    return data


def _invalid(fault: str) -> RequestError:
    return RequestError(
        f"The image's data: URL {fault}; send data:image/png;base64, and the standard alphabet "
        "with padding and no line breaks.",
        code="invalid_image_url",
    )
