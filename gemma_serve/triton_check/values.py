"""Whether two values are the same, as far as two machines can compute the same."""

from __future__ import annotations

import math
from typing import Any

from gemma_serve.triton_check.json_values import NOT_JSON, parse_json

# Log probabilities of the same tokens differ in the third digit between kernels.
TOLERANCE = 0.01


def are_close(recorded: Any, now: Any) -> bool:
    """Equal; floats to TOLERANCE, also in JSON that an output holds as a string."""
    if isinstance(recorded, bool) or isinstance(now, bool):
        return recorded is now
    if isinstance(recorded, int) and isinstance(now, int):
        return recorded == now
    if isinstance(recorded, int | float) and isinstance(now, int | float):
        return _are_close_floats(recorded, now)
    if isinstance(recorded, str) and isinstance(now, str):
        return recorded == now or _are_close_documents(recorded, now)
    if isinstance(recorded, list) and isinstance(now, list):
        return len(recorded) == len(now) and all(map(are_close, recorded, now))
    if isinstance(recorded, dict) and isinstance(now, dict):
        return recorded.keys() == now.keys() and all(
            are_close(value, now[name]) for name, value in recorded.items()
        )
    return bool(recorded == now)


def _are_close_floats(recorded: float, now: float) -> bool:
    try:
        if math.isnan(recorded) or math.isnan(now):
            return math.isnan(recorded) and math.isnan(now)
        return math.isclose(recorded, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except OverflowError:  # an integer that no float holds
        return False


def _are_close_documents(recorded: str, now: str) -> bool:
    if not (recorded[:1] == now[:1] and recorded[:1] in ("[", "{")):
        return False
    documents = [parse_json(text.encode("utf-8", "replace")) for text in (recorded, now)]
    return NOT_JSON not in documents and are_close(*documents)
