"""Commands that talk to a running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gemma_serve.cli.options import JsonOption

PANEL = "Talk to a running server"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def chat(
    message: Annotated[
        str | None, typer.Option("-m", "--message", help="Ask once, print the answer, and leave.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Default: the first that it serves.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.")] = None,
) -> None:
    """
    Chat with a running server in the terminal; /quit leaves.

    A key is taken from GEMMA_SERVE_API_KEY. Example: gemma-serve chat -m "What is a haiku?"
    """
    from gemma_serve import terminal_chat

    session = terminal_chat.Session(url, model, system, max_tokens, temperature)
    with session:
        if message is not None:
            session.ask(message)
        else:
            session.loop()


@commands.command(rich_help_panel=PANEL)
def top(
    url: Annotated[str, typer.Argument(help="Where the server is.")] = "http://127.0.0.1:8000",
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds from one look to the next.")
    ] = 2.0,
    window: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds that rates and percentiles cover.")
    ] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one interval and leave; so does a pipe.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Watch a running server: tokens/s, latency, queue, KV cache, errors, use of each key; q leaves.

    A key is taken from GEMMA_SERVE_API_KEY. Example: gemma-serve top --once --json
    """
    from gemma_serve import top as command

    with command.Watch(url, window) as watch:
        if once or not (as_json or sys.stdout.isatty()):
            command.once(watch, interval, as_json=as_json)
        elif as_json:
            command.follow_as_json(watch, interval)
        else:
            command.follow(watch, interval)


@commands.command("triton-check", rich_help_panel=PANEL)
def triton_check(
    golden: Annotated[Path, typer.Option(help="Recorded requests and responses, JSON Lines.")],
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8000",
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="REQUESTS",
            help="Send these requests, and write --golden instead of reading it.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --record replace a file.")] = False,
    model: Annotated[
        str | None, typer.Option(help="The model's name on this server, if it has another.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="What must be equal in a greedy text: exact, prefix:N or ignore.",
            show_default="exact",
        ),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Sent with every request.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests at a time.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds without a byte.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """
    Replay requests that Triton answered, and show what differs.

    Exit codes: 0 nothing differs, 1 something does, 2 a file or an option can't be used, 3 a
    request was not answered, 130 Ctrl-C. A key is taken from GEMMA_SERVE_API_KEY, but not when
    recording.

    Record: gemma-serve triton-check --record requests.jsonl --golden golden.jsonl
    --url http://triton:8000

    Example: gemma-serve triton-check --golden golden.jsonl --url http://127.0.0.1:8000
    """
    from gemma_serve.triton_check import command

    if record is not None:
        command.check_recording(text=text, model=model, as_json=as_json)
    target = command.target_of(url, header or [], timeout, concurrency, sends_key=record is None)
    if record is not None:
        command.run_record(record, golden, target, force=force)
    else:
        raise typer.Exit(
            command.run_replay(golden, target, text=text, model=model, as_json=as_json)
        )
