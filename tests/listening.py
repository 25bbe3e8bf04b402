"""What a server's processes listen on, as `ss` (iproute2) says: TCP and UDP, of either IP."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from dataclasses import dataclass

from tests.servers import Server

PROCESS = re.compile(r'\("([^"]+)",pid=(\d+),')


@dataclass(frozen=True)
class Listener:
    """A socket that waits for others."""

    address: str
    port: int
    process: str

    @property
    def is_on_loopback(self) -> bool:
        """Whether no other machine reaches it."""
        if self.address == "*":
            return False
        # gRPC's own listens on IPv4 by IPv6's name for it.
        return ipaddress.ip_address(self.address.removeprefix("::ffff:")).is_loopback


def listeners(server: Server) -> set[Listener]:
    """The sockets of the server and of all processes below it."""
    pids = {process.pid for process in server.processes()}
    said = subprocess.run(
        ["ss", "--no-header", "--listening", "--numeric", "--tcp", "--udp", "--processes"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    found = set()
    for line in said.stdout.splitlines():
        # Netid State Recv-Q Send-Q Local:Port Peer:Port Process
        _, _, _, _, local, _, *rest = line.split(maxsplit=6)
        address, _, port = local.rpartition(":")
        for name, pid in PROCESS.findall("".join(rest)):
            if int(pid) in pids:
                bare = address.strip("[]").partition("%")[0]
                found.add(Listener(bare, int(port), name))
    return found
