"""The commands; each is a few lines that call one function elsewhere."""

from __future__ import annotations

import os
import sys

import typer

from gemma_serve.cli import clients, make, quality, serve
from gemma_serve.errors import GemmaServeError

app = typer.Typer(
    name="gemma-serve",
    help="Serve Google's Gemma models on vLLM, from one YAML profile.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for theme in (serve, clients, make):
    app.add_typer(theme.commands)
app.add_typer(quality.commands, name="quality", rich_help_panel=make.PANEL)


def main() -> None:
    """Run a command; an error on purpose is one clear line and its exit code."""
    try:
        app()
    except GemmaServeError as error:
        print(f"gemma-serve: {error.message}", file=sys.stderr)
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as end:  # typer's way to end a command
        _leave(end.code if isinstance(end.code, int) else 0)


def _leave(code: int) -> None:
    """
    Exit with this code and no other; what was said last stays the last line.

    Not by sys.exit: Triton's bindings would print pages of what they leak when the interpreter is
    taken down, and after a KeyboardInterrupt that went through an exec (dataclasses, namedtuples:
    any signal during an import may) CPython kills itself with SIGINT, handled or not.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
