"""The manifests as kustomize renders them, and what a pod of theirs starts."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gemma_serve.profile.load import LoadedProfile, load_profile

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
KUBECTL = Path(sys.executable).parent / "kubectl"
Object = dict[str, Any]
# What LeaderWorkerSet gives the containers of a group's second pod, for the kubelet to put in.
GROUP = {
    "$(LWS_GROUP_SIZE)": "2",
    "$(LWS_LEADER_ADDRESS)": "gemma-serve-0.gemma-serve",
    "$(LWS_WORKER_INDEX)": "1",
}


@functools.cache
def rendered(overlay: str) -> list[Object]:
    """An overlay's objects, by `kubectl kustomize`: as `kubectl apply --kustomize` sends them."""
    command = [KUBECTL, "kustomize", KUBERNETES / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecations
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> list[Object]:
    """The overlay's objects of one kind."""
    return [found for found in rendered(overlay) if found["kind"] == kind]


@dataclass(frozen=True)
class Pod:
    """A pod template of an overlay, and how many of it make one replica."""

    overlay: str
    template: Object
    count: int

    @property
    def spec(self) -> Object:
        """The pod's spec."""
        spec: Object = self.template["spec"]
        return spec

    @property
    def container(self) -> Object:
        """Its one container."""
        (container,) = self.spec["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def serves(self) -> bool:
        """Whether gemma-serve runs in it; a worker's GPUs are driven from elsewhere."""
        return str(self.container["name"]) == "gemma-serve"

    @property
    def arguments(self) -> list[str]:
        """What follows `gemma-serve`, from the args or from a shell's line."""
        *_, last = self.container["args"]
        if "command" not in self.container:
            return list(self.container["args"])
        return str(last).partition("exec gemma-serve ")[2].split()

    @property
    def overrides(self) -> list[str]:
        """Each KEY=VALUE of --set."""
        words = " ".join(self.arguments)
        for variable, value in GROUP.items():
            words = words.replace(variable, value)
        prefix = "--set="
        return [word.removeprefix(prefix) for word in words.split() if word.startswith(prefix)]

    def profile(self, directory: Path) -> LoadedProfile:
        """The profile that it serves, loaded as the server would from its ConfigMap."""
        return load_profile(str(self.write_profile(directory)), self.overrides)

    def write_profile(self, directory: Path) -> Path:
        """Write the ConfigMap's files as the volume would hold them."""
        (name,) = (
            volume["configMap"]["name"] for volume in self.spec["volumes"] if "configMap" in volume
        )
        configs = {found["metadata"]["name"]: found for found in of_kind(self.overlay, "ConfigMap")}
        for file, text in configs[name]["data"].items():
            (directory / file).write_text(text)
        return directory / "profile.yaml"


def pods(overlay: str) -> Iterator[Pod]:
    """Every pod template of an overlay."""
    for found in of_kind(overlay, "Deployment"):
        yield Pod(overlay, found["spec"]["template"], 1)
    for found in of_kind(overlay, "LeaderWorkerSet"):
        group = found["spec"]["leaderWorkerTemplate"]
        yield Pod(overlay, group["leaderTemplate"], 1)
        yield Pod(overlay, group["workerTemplate"], group["size"] - 1)


def serving(overlay: str) -> Pod:
    """The overlay's pod in which gemma-serve runs."""
    (found,) = (pod for pod in pods(overlay) if pod.serves)
    return found


def pre_stop_s(pod: Pod) -> float:
    """Seconds that pass before SIGTERM."""
    return float(pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})["seconds"])
