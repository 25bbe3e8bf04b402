"""The client's priority while it measures, and what of this machine stays here."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from benchmarks.machine import CLIENT_NICE, ahead_of_servers, without_paths


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


@pytest.mark.parametrize(("home", "shown"), [("/home/me", "~/models"), ("/", "/home/me/models")])
def test_a_home_that_is_the_root_is_no_name(
    home: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container HOME may be /, which is part of every path and address."""
    monkeypatch.setattr(Path, "home", lambda: Path(home))

    assert without_paths("/home/me/models at http://h/v1") == f"{shown} at http://h/v1"
