"""The run directory of one server, and what is left of killed ones."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gemma_serve import rundir
from gemma_serve.errors import StartupError
from gemma_serve.rundir import PREFIX, remove_abandoned, run_directory

HOLDER = """
import sys, time
from gemma_serve.rundir import run_directory
with run_directory() as folder:
    (folder / "socket").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A temporary directory of the test's own, in which nothing is too young to be abandoned."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(rundir, "ABANDONED_S", -1.0)
    return tmp_path


def test_it_is_private_and_goes() -> None:
    """Only this user can read it, and nothing of it is left at the end."""
    with run_directory() as folder:
        (folder / "events.jsonl").touch()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_a_killed_servers_goes_and_a_running_ones_stays(temporary: Path) -> None:
    """The kernel drops a dead server's lock; that of a living one keeps its directory."""
    holders = []
    for _ in range(2):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
        assert holder.stdout is not None
        holders.append((holder, Path(holder.stdout.readline().strip())))
    (killed, its_folder), (running, other_folder) = holders
    killed.kill()
    killed.wait(10)

    remove_abandoned(temporary)

    assert not its_folder.exists()
    assert (other_folder / "socket").exists()
    running.communicate(timeout=10)
    assert not other_folder.exists()


def test_others_are_left_alone(temporary: Path) -> None:
    """Links and files of the same name are nobody's run directory."""
    target = temporary / "precious"
    target.mkdir()
    link = temporary / f"{PREFIX}link"
    link.symlink_to(target)
    file = temporary / f"{PREFIX}file"
    file.touch()

    remove_abandoned(temporary)

    assert target.exists()
    assert link.is_symlink()
    assert file.exists()


def test_no_place_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A start without temporary files is one sentence that says what to do."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StartupError) as refused, run_directory():
        pass
    assert refused.value.message == (
        "No temporary file can be written (No such file or directory); free space in /tmp, or set "
        "TMPDIR to a directory that has some."
    )
