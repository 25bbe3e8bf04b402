"""A real HTTP server with a child of its own, and the command that a target would have for it."""

from __future__ import annotations

import sys

from benchmarks.servers.commands import Command

# The child is not ended by its parent: whoever ends the tree has to.
FAMILY = """
import http.server, os, signal, subprocess, sys
subprocess.Popen(["sleep", "1000"])
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("serving", os.getpid(), flush=True)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
BROKEN = "import sys; print('no such weights'); sys.exit(3)"


def family(port: int, *words: str) -> list[str]:
    """Its words."""
    return [sys.executable, "-c", FAMILY, str(port), *words]


async def family_command(_spec: object, port: int, _on_progress: object = None) -> Command:
    """In place of `commands.command`."""
    return Command(family(port), "/")


async def broken_command(_spec: object, _port: int, _on_progress: object = None) -> Command:
    """A server that cannot start."""
    return Command([sys.executable, "-c", BROKEN], "/")


async def silent_command(_spec: object, _port: int, _on_progress: object = None) -> Command:
    """A server that never answers."""
    return Command(["sleep", "1000"], "/")
