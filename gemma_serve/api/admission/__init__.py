"""
Which requests are taken, and which runs next: one bounded queue before anything is tokenised.

`demand.py` reads what a request asks for, `gate.py` decides, by the limits of `bounds.py`; a
request waits in `fair_queue.py` and then has a `slot.py`. `estimates.py` learns how fast the
engine is, `tenants.py` keeps each key's account.
"""

from gemma_serve.api.admission.bounds import Capacity
from gemma_serve.api.admission.demand import Demand, demand_of
from gemma_serve.api.admission.gate import Admission
from gemma_serve.api.admission.slot import Slot

__all__ = ["Admission", "Capacity", "Demand", "Slot", "demand_of"]
