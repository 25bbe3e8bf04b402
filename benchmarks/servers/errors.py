"""What is wrong with a target or a server's start, in one sentence."""

from __future__ import annotations


class ServerError(Exception):
    """The server cannot be named, installed or started as asked."""
