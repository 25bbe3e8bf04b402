"""
Whether the hosts that share a model are still there.

Each of torch's ranks holds a connection to the store of rank 0, on node 0, for as long as it lives.
vLLM looks at the workers of its own host alone: without a request it would never find out.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil

MASTER_PORT = 29501  # vLLM 0.32's default of engine.master_port
# Whose connections could not be read for a moment is not gone yet.
LOOKS = 3
Address = tuple[str, int]


class Absence:
    """Counts the looks in a row at which somebody was not there."""

    def __init__(self) -> None:
        self.looks = 0

    def is_sure(self, *, missing: bool) -> bool:
        """Whether that was so for LOOKS looks, this one included."""
        self.looks = self.looks + 1 if missing else 0
        return self.looks >= LOOKS


def is_connected_to_store(port: int) -> bool:
    """Whether a worker below us has a connection to node 0's store, on this port there."""
    return any(theirs[1] == port for _, theirs in _connections())


class Ranks:
    """Node 0's view of all ranks, its own among them, from the time this is made."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ranks = self._connected()

    def one_is_gone(self) -> bool:
        """Whether a rank that was there has no connection to the store any more."""
        return not self.ranks <= self._connected()

    def _connected(self) -> frozenset[Address]:
        return frozenset(theirs for ours, theirs in _connections() if ours[1] == self.port)


def _connections() -> Iterator[tuple[Address, Address]]:
    """Both ends of every TCP connection of the processes below us."""
    for process in psutil.Process().children(recursive=True):
        try:
            found = process.net_connections("tcp")
        except psutil.Error:
            continue
        for connection in found:
            ours, theirs = connection.laddr, connection.raddr
            if connection.status == psutil.CONN_ESTABLISHED and ours and theirs:
                yield (ours.ip, ours.port), (theirs.ip, theirs.port)
