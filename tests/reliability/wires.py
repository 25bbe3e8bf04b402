"""Class A: what tests/wire sends to a server of the wire alone, sent to a whole one."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.reliability.sending import Tally
from tests.wire.cases import bad
from tests.wire.sockets import ask


def send(base_url: str) -> Tally:
    """
    Each gets the status that tests/wire has for it.

    Those with a body go to a route that reads it; another would answer before.
    """
    where, tally = urlsplit(base_url), Tally()
    address = (where.hostname or "", where.port or 80)
    for case in bad():
        found = ask(address, case.sent.replace(b"POST / ", b"POST /v1/chat/completions "))
        tally.sent += 1
        tally.by_status.update(answer.status for answer in found)
        if [answer.status for answer in found] != [case.status]:
            tally.faults.append(f"A {case.name}: {found}, not {case.status}")
    return tally
