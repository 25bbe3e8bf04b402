"""The images: their Dockerfiles linted, their build steps run here, outside a container."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from gemma_serve import __version__
from tests.deploy.manifests import OVERLAYS, ROOT, pods

BIN = Path(sys.executable).parent
DEPLOY = ROOT / "deploy"
DOCKER = DEPLOY / "docker"
DOCKERFILES = {name: DOCKER / name for name in ("Dockerfile", "Dockerfile.cpu")}
SCRIPTS = sorted(
    path for name in ("docker", "compose", "replicas") for path in (DEPLOY / name).rglob("*.sh")
)
# In the index, or new and not ignored.
KNOWN = ("--cached", "--others", "--exclude-standard")
each_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)


def run(
    *words: str | Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = dict(os.environ) | dict(environ or {})
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def instructions(name: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions in order, each in one line."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILES[name].read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word
    ]


def the(name: str, instruction: str) -> str:
    """The last instruction of a kind, which is the one that counts."""
    return [rest for word, rest in instructions(name) if word == instruction][-1]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What .dockerignore lets into a build, of the files that git knows."""
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    listed = run("git", "-C", ROOT, "ls-files", *KNOWN, "--", *allowed)
    assert listed.returncode == 0, listed.stderr
    for line in listed.stdout.splitlines():
        target = tmp_path / "context" / line
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / line, target)
    return tmp_path / "context"


# --- lint


@each_dockerfile
def test_hadolint_finds_nothing(name: str) -> None:
    """Docker's rules and, for the RUN lines, the shell's."""
    done = run(BIN / "hadolint", "--no-color", DOCKERFILES[name])

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    """The scripts are plain sh, executable, and stop at the first failure."""
    done = run(BIN / "shellcheck", script)

    assert (done.returncode, done.stdout) == (0, "")
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -eu\n" in script.read_text()


# --- what both images have in common


@each_dockerfile
def test_image_is_unprivileged_and_pinned(name: str) -> None:
    """The base image has a tag, the user is no root, and the health is the server's own."""
    (first, base), (second, image) = instructions(name)[:2]
    argument, _, tagged = base.partition("=")

    assert (first, second, image) == ("ARG", "FROM", f"${{{argument}}}")
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", tagged)
    assert the(name, "USER") == "2000:0"
    assert '"python3", "/opt/gemma-serve/deploy/docker/healthcheck.py"' in the(name, "HEALTHCHECK")
    assert the(name, "EXPOSE") == "8000 8001 8002"
    assert "HOME=/home/vllm" in the(name, "ENV")


def test_images_have_one_name_everywhere() -> None:
    """What the pages build is what Compose starts, the manifests pull and Ray's image stands on."""
    gpu, cpu = f"gemma-serve:{__version__}", f"gemma-serve:{__version__}-cpu"
    ray = f"gemma-serve-ray:{__version__}"
    compose = [
        yaml.safe_load((DEPLOY / "compose" / name).read_text())["services"]["gemma-serve"]["image"]
        for name in ("compose.yaml", "compose.gpu.yaml")
    ]
    pulled = {pod.container["image"] for overlay in OVERLAYS for pod in pods(overlay)}

    for file, image in {
        DOCKERFILES["Dockerfile"]: gpu,
        DOCKERFILES["Dockerfile.cpu"]: cpu,
        DEPLOY / "ray" / "Dockerfile": ray,
    }.items():
        command = f"docker build --file {file.relative_to(ROOT)} --tag {image} ."
        assert f"#   {command}\n" in file.read_text()
        assert f"{command} " in (ROOT / "docs" / "deploy.md").read_text()
    assert f"\nARG GEMMA_SERVE_IMAGE={gpu}\n" in (DEPLOY / "ray" / "Dockerfile").read_text()
    assert compose == [cpu, gpu]
    # The last is the GPU image with EXTRA_PACKAGES=ray.
    assert pulled == {f"registry.example.com/{image}" for image in (gpu, cpu, f"{gpu}-ray")}


def test_gpu_image_is_of_the_pinned_vllm() -> None:
    """The base image's vLLM is the one that pyproject.toml pins."""
    pinned = re.search(r'gpu = \["vllm==([\d.]+)"\]', (ROOT / "pyproject.toml").read_text())

    assert pinned is not None
    assert f"VLLM_IMAGE=vllm/vllm-openai:v{pinned[1]}" in DOCKERFILES["Dockerfile"].read_text()


@each_dockerfile
def test_what_an_image_runs_is_in_the_build_context(name: str, context: Path) -> None:
    """Each file that a Dockerfile names below /opt/gemma-serve is let in by .dockerignore."""
    named = set(re.findall(r"/opt/gemma-serve/([\w./-]+)", DOCKERFILES[name].read_text()))
    named = {path for path in named if not path.startswith(".venv")}

    assert "deploy/docker/healthcheck.py" in named
    assert {path for path in named if not (context / path).is_file()} == set()


# --- the build steps


def test_install_changes_no_package_that_is_there(context: Path) -> None:
    """
    Beside an installed vLLM, pip would install gemma-serve alone, from the build context.

    A dry run: what it would do is resolved in full and not done.
    """
    done = run(
        context / "deploy/docker/build/install.sh",
        context,
        environ={"PYTHON": sys.executable, "DRY_RUN": "1"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    (would,) = [line for line in done.stdout.splitlines() if line.startswith("Would install")]
    assert re.fullmatch(r"Would install gemma-serve-[\d.]+", would)


def test_install_wants_vllm(tmp_path: Path) -> None:
    """A base image without vLLM is one sentence, before anything is installed."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    done = run(DOCKER / "build/install.sh", ROOT, environ={"PYTHON": str(python)})

    assert done.returncode == 1
    assert done.stderr == (
        f"install.sh: {python} has no vLLM; build from an image that has, such as "
        "vllm/vllm-openai:v0.32.0.\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("passwd", ["root:x:0:0::/root:/bin/sh\n", "vllm:x:2000:0::/home/vllm:\n"])
def test_user_is_made_once(passwd: str, tmp_path: Path) -> None:
    """User 2000 exists in whatever image, once, and its group may write its home as well."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(passwd)

    for _ in range(2):
        assert run(DOCKER / "build/user.sh", tmp_path).returncode == 0

    users = (tmp_path / "etc" / "passwd").read_text().splitlines()
    assert [line.split(":")[3] for line in users if line.split(":")[2] == "2000"] == ["0"]
    home = (tmp_path / "home" / "vllm" / ".cache").stat()
    assert (home.st_uid, home.st_gid) == (2000, 0)
    assert home.st_mode & 0o070 == 0o070


# --- the health check


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/readyz", "localhost"])
def test_health_without_a_server(url: str) -> None:
    """Nobody there is unhealthy, with one line that says where was asked."""
    done = run(sys.executable, DOCKER / "healthcheck.py", environ={"GEMMA_SERVE_HEALTH_URL": url})

    assert done.returncode == 1
    assert done.stdout.startswith(f"{url} can't be reached (")
    assert done.stdout.endswith("GEMMA_SERVE_HEALTH_URL names another address.\n")
