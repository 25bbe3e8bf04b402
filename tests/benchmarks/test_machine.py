"""The client's place while it measures, who else ran, and what of this machine stays here."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.machine import (
    CLIENT_NICE,
    CpuWatch,
    ahead_of_servers,
    undisturbed,
    waited_s,
    without_paths,
)


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


def test_client_keeps_to_its_cores_and_is_let_go() -> None:
    """It and its threads, while it measures and no longer; the record names the cores."""
    before = os.sched_getaffinity(0)
    core = max(before)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    ids = [0, thread.native_id or 0]
    try:
        with undisturbed([core]) as said:
            assert [os.sched_getaffinity(one) for one in ids] == [{core}] * 2
        assert [os.sched_getaffinity(one) for one in ids] == [before] * 2
    finally:
        end.set()
        thread.join()
    with undisturbed() as free:
        assert os.sched_getaffinity(0) == before

    assert said["client_cpus"] == str(core)
    assert free["client_cpus"] == ",".join(map(str, sorted(before)))


def test_heap_is_frozen_while_it_measures() -> None:
    """What was there before is not collected meanwhile, and is again after it."""
    frozen = gc.get_freeze_count()
    with undisturbed():
        assert gc.get_freeze_count() > frozen

    assert gc.get_freeze_count() <= frozen


def test_wait_for_cores_is_taken_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The part of the time in which some process waited: PSI's total, microseconds since boot."""
    pressure = tmp_path / "cpu"
    monkeypatch.setattr(machine, "PRESSURE", pressure)
    pressure.write_text("some avg10=0.00 avg60=1.50 avg300=0.20 total=2500000\nfull avg10=0.00\n")
    watch, began_s = CpuWatch(None), time.perf_counter()
    assert waited_s() == 2.5
    time.sleep(0.05)
    # 20 ms more
    pressure.write_text("some avg10=0.00 avg60=1.50 avg300=0.20 total=2520000\nfull avg10=0.00\n")
    use, wall_s = watch.stop(), time.perf_counter() - began_s

    assert use.psi_cpu == pytest.approx(0.02 / wall_s, rel=0.2)
    assert use.foreign_cpu is None
    assert use.load_average is not None


@pytest.mark.parametrize("text", [None, "", "some total=x"])
def test_kernel_that_does_not_count_waits(
    text: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without PSI nothing is said of it."""
    monkeypatch.setattr(machine, "PRESSURE", tmp_path / "cpu")
    if text is not None:
        (tmp_path / "cpu").write_text(text)

    assert CpuWatch(None).stop().psi_cpu is None


@pytest.mark.parametrize(("home", "shown"), [("/home/me", "~/models"), ("/", "/home/me/models")])
def test_a_home_that_is_the_root_is_no_name(
    home: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container HOME may be /, which is part of every path and address."""
    monkeypatch.setattr(Path, "home", lambda: Path(home))

    assert without_paths("/home/me/models at http://h/v1") == f"{shown} at http://h/v1"
