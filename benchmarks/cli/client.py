"""`calibrate` and `nullserver`: what the client itself can do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Annotated

from benchmarks.cli.common import to_its_end
from benchmarks.load.calibrate import Calibration
from benchmarks.options import Option, numbers
from benchmarks.show import print_calibration, progress


def calibrate(
    concurrency: Annotated[str, Option(help="Concurrencies to try.")] = "1,8,32,64,128",
    ttft_ms: Annotated[float, Option(min=0, help="The null server's time to first token.")] = 20,
    itl_ms: Annotated[float, Option(min=0, help="Its time between tokens.")] = 5,
    as_json: Annotated[bool, Option("--json", help="Print as JSON.")] = False,
) -> None:
    """
    Measure the client itself: its ceiling in tokens/s, and its error against known times.

    Example: python -m benchmarks calibrate --concurrency 1,32,128
    """
    from benchmarks.load.calibrate import calibrate as calibrate_client
    from benchmarks.load.null_server import Pace

    clients = [int(number) for number in numbers("--concurrency", concurrency, "1,32,128")]
    pace = Pace(ttft_ms / 1e3, itl_ms / 1e3)
    with progress("null server") as on_progress:
        found: list[Calibration] = to_its_end(calibrate_client(clients, pace, on_progress))
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    else:
        print_calibration(found)


def nullserver(
    host: Annotated[str, Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 is any free one.")] = 9000,
    ttft_ms: Annotated[float, Option(min=0, help="Time to first token.")] = 20,
    itl_ms: Annotated[float, Option(min=0, help="Time between tokens.")] = 5,
    chunk_tokens: Annotated[int, Option(min=1, help="Tokens an event.")] = 1,
) -> None:
    """
    Serve paced events without a model, to find out what a client can do.

    Example: python -m benchmarks nullserver --port 9000 --itl-ms 5
    """
    from benchmarks.load.null_server import Pace, serve_null

    pace = Pace(ttft_ms / 1e3, itl_ms / 1e3, chunk_tokens)
    with contextlib.suppress(KeyboardInterrupt):
        serve_null(pace, host, port, lambda url: print(f"Null server at {url}", flush=True))
