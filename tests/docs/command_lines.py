"""The command lines that pages speak of, held to the real ones, and nothing of them run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from benchmarks.cli import app as benchmarks
from gemma_serve.cli import app as gemma_serve

# typer brings a click of its own, whose classes have no public name.
ClickCommand = Any


APPS: dict[str, typer.Typer] = {"gemma-serve": gemma_serve, "benchmarks": benchmarks}


def resolve(words: Sequence[str]) -> tuple[ClickCommand, list[str]]:
    """The command that these words name, from the program's name on, and the rest of them."""
    program, *rest = words
    command = typer.main.get_command(APPS[program])
    while rest and (commands := getattr(command, "commands", None)):
        # `quality record|compare` speaks of two at once.
        name = rest.pop(0).partition("|")[0]
        assert name in commands, f"no command {name!r}; there are {', '.join(commands)}"
        command = commands[name]
    return command, rest


def parse(words: Sequence[str]) -> None:
    """Read the words as the command line does; an option or value that it refuses raises."""
    command, rest = resolve(words)
    command.make_context(words[0], rest).close()
