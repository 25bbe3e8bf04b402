"""Class A: what tests/wire sends to a server of the wire alone, sent to a whole one."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.api.kserve.refusals import Witness
from tests.reliability.sending import Tally, in_batches
from tests.wire.cases import bad
from tests.wire.sockets import ask


def send(witness: Witness) -> Tally:
    """
    Each gets the status that tests/wire has for it.

    Those with a body go to a route that reads it; another would answer before.
    """
    where, tally = urlsplit(witness.server.base_url), Tally()
    address = (where.hostname or "", where.port or 80)
    for batch in in_batches(witness, tally, bad()):
        for case in batch:
            found = ask(address, case.sent.replace(b"POST / ", b"POST /v1/chat/completions "))
            tally.sent += 1
            tally.by_status.update(answer.status for answer in found)
            if [answer.status for answer in found] != [case.status]:
                tally.faults.append(f"A {case.name}: {found}, not {case.status}")
    return tally
