"""The systemd unit: systemd itself reads it, and its numbers are the server's."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path

import pytest

from gemma_serve.errors import ProfileError
from gemma_serve.profile.load import load_profile
from tests.deploy.manifests import ROOT

UNIT = ROOT / "deploy" / "systemd" / "gemma-serve@.service"
INSTALLED = "/opt/gemma-serve/.venv/bin/gemma-serve"
ENGINE_END_S = 10
# Of 100, by systemd's own count; what is left is mostly the network, the devices and DynamicUser's
# missing root directory.
EXPOSURE = 25


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit for one profile, with a command that is there."""
    file = tmp_path / "gemma-serve@chat.service"
    file.write_text(UNIT.read_text().replace(INSTALLED, "/bin/true"))
    return file


def analyze(*words: str | Path) -> str:
    """Run systemd-analyze, which needs no running systemd for this; what it printed."""
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def service() -> configparser.SectionProxy:
    """The unit's [Service] section; of a key that occurs twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text().replace("\\\n", " "))
    return parser["Service"]


def test_systemd_takes_the_unit(unit: Path) -> None:
    """Not a word of complaint: an unknown key or value would be one."""
    assert analyze("verify", unit) == ""


def test_an_unknown_key_would_be_said(unit: Path) -> None:
    """The test above can fail."""
    unit.write_text(unit.read_text().replace("RestartSec=5", "RestartSecs=5"))

    assert "Unknown key 'RestartSecs' in section [Service]" in analyze("verify", unit)


def test_service_is_confined(unit: Path) -> None:
    """By systemd's own count of what the service could do to the machine."""
    analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)


def test_systemd_waits_for_the_drain() -> None:
    """TimeoutStopSec is longer than the drain and the end of vLLM's processes."""
    # %d is the directory of the credentials.
    words = shlex.split(service()["ExecStart"].replace("%d", "/run/credentials"))
    overrides = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
    profile = load_profile("gemma-3-270m", overrides).profile

    assert (words[0], words[1], words[2]) == (INSTALLED, "serve", "/etc/gemma-serve/%i.yaml")
    assert float(service()["TimeoutStopSec"]) > profile.limits.drain_s + ENGINE_END_S
    assert profile.server.api_keys_file == "/run/credentials/api-keys"
    assert service()["LoadCredential"].startswith("api-keys:")


def test_a_wrong_profile_is_not_tried_again() -> None:
    """The exit code of a profile that can't be used is the one that no restart follows."""
    assert service()["Restart"] == "on-failure"
    assert service()["RestartPreventExitStatus"] == str(ProfileError.exit_code)


def test_readiness_is_told_by_the_server() -> None:
    """The unit waits for READY=1 and watches for WATCHDOG=1, both of the main process."""
    assert (service()["Type"], service()["NotifyAccess"]) == ("notify", "main")
    assert float(service()["WatchdogSec"]) > 0
