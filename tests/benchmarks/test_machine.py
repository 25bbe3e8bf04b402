"""The client's priority while it measures."""

from __future__ import annotations

import os
import threading

import pytest

from benchmarks.machine import CLIENT_NICE, ahead_of_servers


def test_all_threads_go_ahead_and_back() -> None:
    """Threads that a library started before are raised too, and nothing stays raised."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    ids = [0, thread.native_id or 0]
    try:
        before = [os.getpriority(os.PRIO_PROCESS, one) for one in ids]
        with ahead_of_servers() as ahead:
            if not ahead:
                pytest.skip("only root may raise a priority")
            assert [os.getpriority(os.PRIO_PROCESS, one) for one in ids] == [CLIENT_NICE] * 2
        assert [os.getpriority(os.PRIO_PROCESS, one) for one in ids] == before
    finally:
        end.set()
        thread.join()
