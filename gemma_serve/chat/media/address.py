"""
Which addresses a client may make this server connect to.

`ipaddress.is_global` follows the IANA registries of the Python at hand; what it misses, or answers
differently from one patch release to the next, is written out here.
"""

from __future__ import annotations

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291: all that is given out
_REFUSED = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's host agent, on every virtual machine
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata: 192.0.0.192
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays, deprecated by RFC 7526
    ipaddress.ip_network("3fff::/20"),  # documentation, RFC 9637
)


def resolve(host: str) -> list[str]:
    """
    Every address that the system's resolver gives for the host, best first.

    Raises:
        OSError: the name is not known.
        UnicodeError: the name is no host name.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether the address is one of the public internet, whatever form it is wrapped in."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(str(inner))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _REFUSED):
        return False
    return address.is_global and not address.is_multicast


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address end up at, if there is one."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
