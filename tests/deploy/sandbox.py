"""
Runs a pod of the manifests without a cluster: bubblewrap makes its file system, user and process 1.

What of the pod's spec holds here: args, env with plain values, the mounts (ConfigMap, Secret,
claims and emptyDirs as directories), the read-only root, the user id and no capabilities. What does
not: the image's own files (this machine's stand in for them), seccomp, cgroups, the pod's network.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.deploy.manifests import ROOT, Object, Pod

END_S = 60
# Laid anew for each pod, or brought by it.
OWN = {"dev", "etc", "home", "proc", "run", "tmp", "weights"}


def image_environment() -> dict[str, str]:
    """The ENV of Dockerfile.cpu; the commands are this machine's."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile.cpu").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", text, flags=re.MULTILINE)
    found = dict(word.split("=", 1) for word in line.split())
    here = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return found | here


@dataclass
class Sandbox:
    """A running pod."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """What `kubectl logs` would show."""
        return self.log.read_text(errors="replace")

    def terminate(self) -> int:
        """SIGTERM to process 1 of the pod, as the kubelet sends it; the exit code."""
        (first,) = psutil.Process(self.process.pid).children()
        first.send_signal(signal.SIGTERM)
        return self.process.wait(END_S)


@contextlib.contextmanager
def running(
    pod: Pod,
    directories: Mapping[str, Path],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
) -> Iterator[Sandbox]:
    """
    Start the pod's container; it is killed at the end if it still runs.

    Args:
        directories: Name of a volume -> what it holds. A volume in memory needs none.
        arguments: Added to the container's own.
        environ: Added to the image's and to the container's own.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_bubblewrap(pod, directories, environ), "gemma-serve", *pod.arguments, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Sandbox(process, log)
    finally:
        process.kill()
        process.wait(END_S)


def _bubblewrap(
    pod: Pod, directories: Mapping[str, Path], environ: Mapping[str, str]
) -> Iterator[str]:
    user = pod.spec["securityContext"]
    yield from ("bwrap", "--die-with-parent", "--unshare-user", "--unshare-pid", "--as-pid-1")
    yield from ("--uid", str(user["runAsUser"]), "--gid", str(user["runAsGroup"]))
    yield from _root()
    for mount in sorted(pod.container["volumeMounts"], key=lambda mount: str(mount["mountPath"])):
        yield from _mount(mount, pod.spec["volumes"], directories)
    # Wherever this repository lies, be it below one of the pod's own directories.
    for path in (ROOT, sys.base_prefix, sys.prefix):
        where = str(Path(path).resolve())
        yield from ("--ro-bind", where, where)
    if pod.container["securityContext"]["readOnlyRootFilesystem"]:
        yield from ("--remount-ro", "/")
    yield from ("--clearenv", "--chdir", "/home/vllm")
    plain = {item["name"]: item["value"] for item in pod.container["env"] if "value" in item}
    for name, value in {**image_environment(), **plain, **environ}.items():
        yield from ("--setenv", name, value)
    yield "--"


def _root() -> Iterator[str]:
    """This machine's files, read-only, but for what is the pod's own."""
    for path in sorted(Path("/").iterdir()):
        if path.name not in OWN:
            yield from ("--ro-bind", str(path), str(path))
    # One by one, so that there is room for /etc/gemma-serve.
    for path in sorted(Path("/etc").iterdir()):
        yield from ("--ro-bind-try", str(path), str(path))
    yield from ("--dev", "/dev", "--proc", "/proc", "--dir", "/run")


def _mount(mount: Object, volumes: list[Any], directories: Mapping[str, Path]) -> Iterator[str]:
    (volume,) = [found for found in volumes if found["name"] == mount["name"]]
    if volume.get("emptyDir", {}).get("medium") == "Memory":
        yield from ("--tmpfs", mount["mountPath"])
        return
    how = "--ro-bind" if mount.get("readOnly") else "--bind"
    yield from (how, str(directories[mount["name"]]), mount["mountPath"])
