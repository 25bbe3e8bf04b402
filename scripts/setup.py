"""
Makes .venv and installs gemma-serve into it: `make setup`.

Needs Python 3.11 and nothing but its standard library. The run after an interrupted one mends what
that left; with nothing to do it ends at once.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from setup_steps import SetupError, Step, show

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
COMMAND = VENV / "bin" / "gemma-serve"
STAMP = VENV / "setup.json"
LOG = VENV / "setup.log"
# An environment of its own, as deploy/ray/requirements.txt says why; for the tests alone.
RAY = VENV / "ray"
RAY_REQUIREMENTS = ROOT / "deploy" / "ray" / "requirements.txt"
OLDEST, NEWEST = (3, 11), (3, 13)

TORCH = "torch==2.13.0+cpu"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# With room for downloads. cpu takes 3.9 GB (measured), gpu about 12 GB (estimated from the wheels).
DISK_BYTES = {"cpu": 6_000_000_000, "gpu": 20_000_000_000}

PTH_NAME = "gemma_serve_torchvision.pth"
# Python runs a line that begins with "import" at each start, after the editable install's own file
# (the names are sorted). It must stay silent when gemma_serve is gone.
PTH_LINE = (
    'import sys; exec("try:\\n import gemma_serve.engine.torchvision_ops\\n'
    'except ImportError:\\n pass")\n'
)
PROBE = """
import importlib, importlib.util, json
broken = []
for name in ("torchvision", "torchaudio", "torchcodec"):
    try:
        importlib.util.find_spec(name) and importlib.import_module(name)
    except Exception:
        broken.append(name)
print(json.dumps(broken))
"""
VERIFY = """
import vllm.engine.arg_utils, torchvision.transforms.v2
from transformers import Gemma3ImageProcessor
"""


def check_python(version: tuple[int, int]) -> None:
    """Raise SetupError unless vLLM supports this Python."""
    if OLDEST <= version <= NEWEST:
        return
    names = [f"python3.{minor}" for minor in (12, 13, 11)]
    name = next(filter(shutil.which, names), None)
    advice = f"run make PYTHON={name}" if name else "install one and run make PYTHON=python3.12"
    raise SetupError(
        f"Python {version[0]}.{version[1]} can't run vLLM 0.32, 3.11 to 3.13 can: {advice}."
    )


def check_machine(device: str, free_bytes: int) -> None:
    """Raise SetupError where Python, the disk or a system library would stop us later."""
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetupError(
            "This Python has no venv module: run apt-get install python3-venv (Debian, Ubuntu)."
        )
    if not COMMAND.exists() and free_bytes < DISK_BYTES[device]:
        raise SetupError(
            f"{ROOT} has {free_bytes / 1e9:.1f} GB free and the {device} install may need "
            f"{DISK_BYTES[device] / 1e9:.0f} GB: free some space."
        )
    if device == "cpu":
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            raise SetupError(
                "vLLM on CPU needs libnuma.so.1: run apt-get install libnuma1 (Debian, Ubuntu)."
            ) from None


def find_device(driver: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Name the extra that fits this machine: gpu where there is an NVIDIA driver, else cpu."""
    return "gpu" if driver.exists() or shutil.which("nvidia-smi") else "cpu"


def digest(*parts: bytes) -> str:
    """Hash the parts, each set off from the next."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def venv_key(device: str) -> str:
    """Hash what a venv can't outlive: its Python, its directory, its device."""
    python = f"{sys.version_info[:2]} {sys.base_prefix}"
    return digest(python.encode(), str(ROOT).encode(), device.encode())


def content_key() -> str:
    """Hash what decides which packages are installed."""
    files = (ROOT / "pyproject.toml", Path(__file__), RAY_REQUIREMENTS)
    return digest(*(file.read_bytes() for file in files))


def read_stamp() -> dict[str, object]:
    """Read what the last run wrote; {} where it wrote nothing of use."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: dict[str, object]) -> None:
    """Write the stamp, whole or not at all."""
    draft = STAMP.with_suffix(".tmp")
    draft.write_text(json.dumps(stamp))
    draft.replace(STAMP)


def finished_stamp(device: str, wanted: set[str], stamp: dict[str, object]) -> dict[str, object]:
    """
    Build the stamp of a finished run.

    Extras that are there already stay, so that `make serve` does not undo `make test`.
    """
    key = venv_key(device)
    old = stamp.get("extras") if stamp.get("venv") == key else None
    extras = {device, "embedded", *wanted, *(old if isinstance(old, list) else [])}
    return {"venv": key, "content": content_key(), "extras": sorted(extras)}


def make_venv(device: str, stamp: dict[str, object]) -> None:
    """Make .venv, unless the one that is there works and fits."""
    if stamp.get("venv") == venv_key(device) and pip_starts():
        LOG.unlink(missing_ok=True)
        remove_half_installed(site_packages())
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    step = Step(f".venv, Python {sys.version_info[0]}.{sys.version_info[1]}", LOG)
    returncode, output = step.run(sys.executable, "-m", "venv", VENV)
    if returncode:
        raise step.error("Making .venv", output, returncode)
    step.done()


def pip_starts() -> bool:
    """Tell whether the venv's Python and pip work."""
    command: list[str | Path] = [PYTHON, "-m", "pip", "--version"]
    return PYTHON.exists() and subprocess.run(command, capture_output=True).returncode == 0


def site_packages() -> Path:
    """Name the venv's package directory."""
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def remove_half_installed(directory: Path) -> None:
    """Remove what an interrupted pip left; RECORD is the last file that it writes of a package."""
    for info in directory.glob("*.dist-info"):
        if not (info / "RECORD").exists():
            shutil.rmtree(info)
    for remnant in directory.glob("~*"):
        shutil.rmtree(remnant, ignore_errors=True)


def pip_install(step: Step, arguments: list[str]) -> tuple[int, str]:
    """Run pip install in the venv."""
    options = ["--progress-bar", "off", "--disable-pip-version-check", "--no-input"]
    return step.run(PYTHON, "-m", "pip", "install", *options, *arguments)


def torch_choices() -> list[list[str]]:
    """List pip's arguments for a CPU torch, to try in order: own configuration, PyTorch's index."""
    # PyTorch's index also has CPU builds of what is CUDA only on PyPI; pip prefers the +cpu ones.
    media = ["torchvision", "torchaudio", "torchcodec"]
    return [[TORCH], [TORCH, *media, "--extra-index-url", CPU_INDEX]]


def install_torch() -> None:
    """Install CPU torch from where it is to be had."""
    step = Step(TORCH, LOG)
    for arguments in torch_choices():
        returncode, output = pip_install(step, arguments)
        if returncode == 0:
            return step.done()
    what = f"Installing {TORCH} from pip's own configuration and then from {CPU_INDEX}"
    raise step.error(what, output, returncode)


def install_project(extras: object) -> None:
    """Install gemma-serve itself, editable, with its extras."""
    name = f"gemma-serve[{','.join(extras)}]" if isinstance(extras, list) else "gemma-serve"
    step = Step(name, LOG)
    target = name.replace("gemma-serve", str(ROOT), 1)
    returncode, output = pip_install(step, ["--editable", target])
    if returncode:
        raise step.error(f"Installing {name}", output, returncode)
    step.done()


def mend_media_packages() -> None:
    """
    Make torchvision import, and remove torchaudio and torchcodec where they do not.

    PyPI has CUDA builds of them; beside a CPU torch these break `import vllm` itself.
    """
    step = Step("torchvision, torchaudio, torchcodec", LOG)
    pth = site_packages() / PTH_NAME
    pth.unlink(missing_ok=True)
    returncode, output = step.run(PYTHON, "-c", PROBE)
    if returncode:
        raise step.error("Importing torch", output, returncode)
    broken = set(json.loads(output.strip().splitlines()[-1]))
    results = []
    if "torchvision" in broken:
        pth.write_text(PTH_LINE)
        results.append("a CUDA torchvision made to import")
    dropped = sorted(broken - {"torchvision"})
    if dropped:
        step.run(PYTHON, "-m", "pip", "uninstall", "--yes", *dropped)
        results.append(f"CUDA {' and '.join(dropped)} removed, so audio and video input are off")
    step.done("; ".join(results) or "all import")


def install_ray() -> None:
    """Make Ray's own environment."""
    step = Step("ray, in .venv/ray", LOG)
    returncode, output = step.run(PYTHON, "-m", "venv", "--without-pip", "--clear", RAY)
    if returncode == 0:
        # Compiled when imported: of Ray's thousands of files a test takes a few hundred.
        options = ["--no-compile", "--progress-bar", "off", "--no-input"]
        python = RAY / "bin" / "python"
        pip: list[str | Path] = [PYTHON, "-m", "pip", "--python", python, "install", *options]
        returncode, output = step.run(*pip, "--requirement", RAY_REQUIREMENTS)
    if returncode:
        raise step.error("Installing ray", output, returncode)
    step.done()


def verify() -> None:
    """Import in a new process what vLLM's own processes will import."""
    step = Step("import vllm", LOG)
    returncode, output = step.run(PYTHON, "-c", VERIFY)
    if returncode:
        raise step.error("Importing vllm and torchvision", output, returncode)
    step.done("works")


def set_up(device: str, wanted: set[str]) -> None:
    """Bring .venv up to date; return at once if it is."""
    stamp = read_stamp()
    finished = finished_stamp(device, wanted, stamp)
    if stamp == finished and COMMAND.exists():
        return
    check_machine(device, shutil.disk_usage(ROOT).free)
    start = time.monotonic()
    show(f"Setting up .venv for {device}; the whole output goes to {LOG}")
    make_venv(device, stamp)
    write_stamp({"venv": finished["venv"]})  # a run cut short from here on is mended by the next
    if device == "cpu":
        install_torch()
    extras = finished["extras"]
    install_project(extras)
    if device == "cpu":
        mend_media_packages()
    if isinstance(extras, list) and "dev" in extras:
        install_ray()
    verify()
    write_stamp(finished)
    show(f"Ready after {time.monotonic() - start:.0f} s: {COMMAND}")


def main() -> int:
    """Run the set-up, one at a time in this directory."""
    parser = argparse.ArgumentParser(description="Make .venv and install gemma-serve into it.")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: by the NVIDIA driver")
    parser.add_argument("extras", nargs="*", help="more extras of pyproject.toml, such as dev")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_python(sys.version_info[:2])
        with Path(__file__).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            set_up(arguments.device or find_device(), set(arguments.extras))
    except (SetupError, OSError) as error:
        show(f"setup: {error}")
        return 1
    except KeyboardInterrupt:
        show("setup: interrupted; the next run goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
