"""The commands as a user types them: help, JSON, errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from gemma_serve import __version__
from gemma_serve.cli import app

COMMANDS = [
    *("serve", "check", "plan", "profiles", "schema", "chat", "top", "render"),
    *("import-triton", "quantize", "tune", "version", "triton-check"),
]
BOUND_S = 120


def run(*words: str, python: tuple[str, ...] = ("-m", "gemma_serve")) -> Any:
    """`gemma-serve WORDS`, to its end."""
    command = [sys.executable, *python, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)


def test_commands() -> None:
    """These are all the commands there are."""
    assert sorted(typer.main.get_command(app).commands) == sorted([*COMMANDS, "quality"])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    """Each command's help ends in something to copy."""
    done = run(command, "--help")

    assert done.returncode == 0
    assert f"Example: gemma-serve {command}" in " ".join(done.stdout.split())


def test_unknown_command() -> None:
    """A misspelt command is exit code 2 and the closest right word, on stderr."""
    done = run("serv")

    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'serv'. Did you mean 'serve'?" in done.stderr


def test_no_command_shows_the_help() -> None:
    """Without a command, all of them are shown."""
    done = run()

    assert all(command in done.stdout for command in COMMANDS)


def test_version() -> None:
    """Ours, and that of the vLLM there is."""
    ours, vllm = run("version").stdout.splitlines()

    assert ours == f"gemma-serve {__version__}"
    assert vllm.startswith("vllm")


def test_profiles_for_people() -> None:
    """Each profile says what hardware it wants, and whether it was ever run."""
    lines = [" ".join(line.split()) for line in run("profiles").stdout.splitlines()]

    (large,) = [line for line in lines if line.startswith("gemma-3-27b-it ")]
    assert large.startswith("gemma-3-27b-it 2 x 79 GiB Gemma 3 27B")
    assert large.endswith("none yet")
    (embedded,) = [line for line in lines if line.startswith("gemma-3-270m ")]
    assert embedded.startswith("gemma-3-270m none Embedded Gemma 3")
    assert not embedded.endswith("none yet")


def test_profiles_as_json() -> None:
    """The packaged profiles for machines, the default one among them."""
    found = json.loads(run("profiles", "--json").stdout)

    assert "gemma-3-270m" in [profile["name"] for profile in found]


def test_schema_is_json() -> None:
    """The schema is the one that editors are given."""
    assert json.loads(run("schema").stdout)["title"]


def test_check_as_json() -> None:
    """What a profile resolves to on another machine, each setting with origin and reason."""
    done = run("check", "gemma-2-9b-it", "--gpu", "h100", "--set", "max_model_len=4096", "--json")
    report = json.loads(done.stdout)

    assert done.returncode == 0
    [length] = [each for each in report["engine_args"] if each["key"] == "max_model_len"]
    assert length["value"] == 4096
    assert "--set" in length["origin"]


def test_check_does_not_import_vllm() -> None:
    """Once vLLM's arguments are known, `check` needs neither vLLM nor torch, and takes no time."""
    assert run("check", "gemma-2-9b-it", "--gpu", "l4").returncode == 0
    code = (
        "import sys; from gemma_serve.cli import app; "
        "app(['check', 'gemma-2-9b-it', '--gpu', 'l4', '--json'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('vllm', 'torch', 'transformers')))"
    )

    assert run(python=("-c", code)).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ["check", "nosuch", "--json"],
            2,
            "No profile named 'nosuch'; list them with: gemma-serve profiles.",
        ),
        (
            ["check", "gemma-2-9b-it", "--gpu", "h900"],
            3,
            "GPU 'h900' is not known; use h100, h200, a100, a100-40, a100-80, l4, b200 or none.",
        ),
        (
            ["check", "gemma-2-9b-it", "--gpu", "l4", "--set", "tensor_parallel_size=3"],
            3,
            "tensor_parallel_size 3 does not divide the 16 attention heads of "
            "google/gemma-2-9b-it; use 1, 2, 4, 8 or 16.",
        ),
    ],
)
def test_error_is_one_line(words: list[str], code: int, sentence: str) -> None:
    """An error on purpose is one line on stderr, its exit code, and nothing on stdout."""
    done = run(*words)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"gemma-serve: {sentence}\n")


def test_mistakes_of_a_profile_come_at_once(tmp_path: Path) -> None:
    """Each mistake of a profile has a line of its own, with file and line number."""
    profile = tmp_path / "p.yaml"
    profile.write_text("model: google/gemma-3-4b-it\ndtpye: bf16\nmax_model_len: long\n")

    done = run("check", str(profile))
    first, second = done.stderr.splitlines()
    assert done.returncode == 2
    assert first.startswith(f"gemma-serve: {profile}:2: ")
    assert second.startswith(f"{profile}:3: ")


def test_interrupted_exec_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """An interrupt that was handled stays handled, also where CPython would kill itself for it."""
    (tmp_path / "interrupted.py").write_text(
        "from gemma_serve import cli\n"
        "def app():\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemExit(3)\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=BOUND_S, check=False
    )

    assert done.returncode == 3
