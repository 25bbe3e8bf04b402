"""
Keeps the store of torch's workers on the loopback, where all of them are on one host.

torch.distributed's TCPStore listens on every interface, whatever host it is given, and believes
whoever connects; only a socket that is handed to it stays where it is bound.
"""

from __future__ import annotations

import ipaddress
import socket
from importlib import import_module
from typing import Any


def keep_on_loopback() -> None:
    """Have torch make its store on a socket of ours, in this process and from now on."""
    # As an attribute of the package it is the function of that name.
    rendezvous: Any = import_module("torch.distributed.rendezvous")

    if getattr(rendezvous._create_c10d_store, "on_loopback", False):
        return
    of_torch = rendezvous._create_c10d_store

    def create(
        hostname: str, port: int, rank: int, world_size: int, timeout: Any, use_libuv: bool = True
    ) -> Any:
        if rank != 0 or not _is_loopback(hostname):
            return of_torch(hostname, port, rank, world_size, timeout, use_libuv)
        return rendezvous.TCPStore(
            host_name=hostname,
            port=port,
            world_size=world_size,
            is_master=True,
            timeout=timeout,
            multi_tenant=True,
            use_libuv=use_libuv,
            master_listen_fd=_listening(hostname, port),
        )

    create.on_loopback = True  # type: ignore[attr-defined]
    rendezvous._create_c10d_store = create


def _is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


def _listening(hostname: str, port: int) -> int:
    """A descriptor that listens there; the store closes it."""
    family, *_, address = socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    listening.listen()
    return listening.detach()
