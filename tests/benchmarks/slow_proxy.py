"""A proxy that makes any server slower by a known time for each token."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

EVENT, MARK = b"data: ", b"\0"


@contextlib.contextmanager
def slowed(url: str, delay_s: float) -> Iterator[str]:
    """The address of a proxy that holds every event of a stream back for `delay_s` more."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = asyncio.run_coroutine_threadsafe(_serve(url, delay_s), loop).result(10)
    try:
        yield f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(proxy.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _serve(url: str, delay_s: float) -> asyncio.Server:
    server = urlsplit(url)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(server.hostname, server.port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_copy(reader, to_server, 0.0), _copy(from_server, writer, delay_s))

    return await asyncio.start_server(connect, "127.0.0.1", 0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """The n-th event leaves n delays after it came: each token is that much slower, none waits."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    leaving = asyncio.create_task(_write(coming, writer))
    number = 0
    while data := await reader.read(65536):
        for part in filter(None, data.replace(EVENT, MARK + EVENT).split(MARK)):
            number = 0 if part.startswith(b"HTTP/") else number + part.startswith(EVENT)
            coming.put_nowait((loop.time() + number * delay_s, part))
    coming.put_nowait((0.0, b""))
    await leaving


async def _write(coming: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while (item := await coming.get())[1]:
        due_s, part = item
        if (early_s := due_s - loop.time()) > 0:
            await asyncio.sleep(early_s)
        writer.write(part)
        await writer.drain()
    writer.close()
