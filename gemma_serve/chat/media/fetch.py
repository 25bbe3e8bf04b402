"""
Fetches an image by https from the public internet, and from nowhere else.

The host's addresses are looked up once, all of them are checked, and the connection goes to one of
those, so that a name can't answer differently between check and use. Each redirect is a new URL
under the same rules. No proxy, cookie, credential or retry; whatever fails, the client learns
nothing about addresses or ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin

import httpcore
import httpx

from gemma_serve.chat.media import address
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Images

MAX_REDIRECTS = 3
MAX_URL_CHARS = 8192
RESOLVERS = 4  # threads: names that never resolve wait for each other, not for the server
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = (
    ("Accept", "image/png,image/jpeg,image/webp,image/gif"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
    ("User-Agent", "gemma-serve"),
)
# Printable ASCII, no user:password@, no port but 443, no IPv6 literal, no backslash: what parsers
# read differently is not read at all.
_URL = re.compile(
    r"https://(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?(?::443)?"
    r"(?P<target>(?:[/?][!\"$-\[\]-~]*)?)(?:#[!-\[\]-~]*)?",
    re.IGNORECASE,
)

Resolve = Callable[[str], list[str]]


class Fetcher:
    """Fetches images within `images.max_bytes` and `images.fetch_timeout_s`."""

    def __init__(
        self,
        settings: Images,
        *,
        resolve: Resolve = address.resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            resolve: host name -> addresses; runs in a thread.
            network: what connects to a checked address.
            ssl_context: default: certifi's authorities, or those of SSL_CERT_FILE.
        """
        self._settings = settings
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")
        self._network = _CheckedNetwork(resolve, network or httpcore.AnyIOBackend(), self._threads)
        self._ssl_context = ssl_context or httpx.create_ssl_context()

    async def fetch(self, url: str) -> bytes:
        """
        The bytes at the URL.

        Raises:
            RequestError: invalid_image_url, whatever went wrong.
        """
        try:
            async with asyncio.timeout(self._settings.fetch_timeout_s), self._connections() as pool:
                return await self._follow(pool, url)
        except RequestError:
            raise
        except TimeoutError:
            raise _refused(f"took over {self._settings.fetch_timeout_s:g} s to fetch") from None
        except Exception:  # resolver, socket, TLS, HTTP: the cause is not the client's to see
            raise _refused("could not be fetched") from None

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _connections(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=self._ssl_context,
            network_backend=self._network,
            max_keepalive_connections=0,
        )

    async def _follow(self, pool: httpcore.AsyncConnectionPool, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            target = _checked(url)
            async with pool.stream("GET", target, headers=_HEADERS) as response:
                if response.status not in _REDIRECTS:
                    return await self._body(response)
                url = urljoin(url, _header(response, b"location"))
        raise _refused(f"redirects more than {MAX_REDIRECTS} times")

    async def _body(self, response: httpcore.Response) -> bytes:
        """The body, never more of it than allowed: Content-Length may lie."""
        if response.status != 200:
            raise _refused(f"was answered with HTTP status {response.status}")
        if _header(response, b"content-encoding").lower() not in ("", "identity"):
            raise _refused("was answered in a compressed encoding")
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > self._settings.max_bytes:
                raise _refused(f"has more than {self._settings.max_bytes} bytes (images.max_bytes)")
            await asyncio.sleep(0)  # thousands of one-byte chunks may come in one read
        return bytes(body)


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only: resolve once, check all, connect to one of those."""

    def __init__(
        self, resolve: Resolve, network: httpcore.AsyncNetworkBackend, threads: ThreadPoolExecutor
    ) -> None:
        self._resolve = resolve
        self._network = network
        self._threads = threads

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        options = (timeout, local_address, socket_options)
        *others, last = await self._public_addresses(host)
        for candidate in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(candidate, port, *options)
        return await self._network.connect_tcp(last, port, *options)

    async def _public_addresses(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._resolve, host)
        except (OSError, UnicodeError):
            found = []
        # One message for both, so that nobody learns which private names exist.
        if not found or not all(map(address.is_public, found)):
            raise _refused("has a host without a public address")
        return found


def _checked(url: str) -> httpcore.URL:
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_CHARS else None
    if match is None:
        raise _refused("must be https://host/path in ASCII, at port 443 and without credentials")
    target = match["target"]
    return httpcore.URL(
        scheme=b"https",
        host=match["host"].lower().encode(),
        port=None,
        target=(target if target.startswith("/") else f"/{target}").encode(),
    )


def _header(response: httpcore.Response, name: bytes) -> str:
    values = [value for key, value in response.headers if key.lower() == name]
    return b",".join(values).decode("latin-1")


def _refused(fault: str) -> RequestError:
    return RequestError(
        f"The image URL {fault}; send the image as a data: URL, or a public https URL.",
        code="invalid_image_url",
    )
