"""
deploy/kubernetes/ray-service: a RayService, whose application is deploy/ray's.

Its definition is not to be had as a package. What is checked is the keys that we use, the pods in
it, which are Kubernetes' own, and the application, by Ray Serve's schema.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from gemma_serve.profile.load import load_profile
from tests.deploy.manifests import ROOT, Object, of_kind, rendered
from tests.deploy.ray_serve import FOLDER, RAY
from tests.deploy.test_kubernetes import (
    CUSTOM_KINDS,
    ENGINE_END_S,
    SECRET,
    labels_match,
    validate,
)

FOLDER_OF_MANIFESTS = "../ray-service"
# Source: KubeRay 1.7, ray-operator/config/crd/bases/ray.io_rayservices.yaml.
CLUSTER_KEYS = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions"} | {
    "headGroupSpec",
    "workerGroupSpecs",
}
AUTOSCALER_KEYS = {"upscalingMode", "idleTimeoutSeconds", "securityContext"}
HEAD_KEYS = {"rayStartParams", "template"}
WORKER_KEYS = HEAD_KEYS | {"groupName", "minReplicas", "maxReplicas"}
CHECK = """
import sys, yaml
from gemma_serve_ray import Arguments
from ray.serve.schema import ServeDeploySchema
config = ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin.read()))
for application in config.applications:
    Arguments.model_validate(application.args)
"""


def service() -> Object:
    """The RayService's spec."""
    (found,) = of_kind(FOLDER_OF_MANIFESTS, "RayService")
    assert found["apiVersion"] == "ray.io/v1"
    spec: Object = found["spec"]
    return spec


def groups() -> dict[str, Object]:
    """Head and workers, by their role."""
    cluster = service()["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"], "worker": workers}


def application() -> dict[str, Any]:
    """The one application of the Serve config."""
    (found,) = yaml.safe_load(service()["serveConfigV2"])["applications"]
    assert isinstance(found, dict)
    return found


def test_objects_fit_their_definitions() -> None:
    """Kubernetes' own kinds and the pods are valid to the last key; the rest has known keys."""
    for found in rendered(FOLDER_OF_MANIFESTS):
        if found["kind"] not in {*CUSTOM_KINDS, "RayService"}:
            validate(found)
    for group in groups().values():
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}}
        validate(template | {"template": group["template"]})
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    cluster = service()["rayClusterConfig"]
    assert set(service()) == {"serveConfigV2", "rayClusterConfig"}
    assert set(cluster) <= CLUSTER_KEYS
    assert set(cluster["autoscalerOptions"]) <= AUTOSCALER_KEYS
    assert set(groups()["head"]) <= HEAD_KEYS
    assert set(groups()["worker"]) <= WORKER_KEYS


def test_serve_takes_the_configs() -> None:
    """Ray Serve's own schema, and our arguments, accept both configs that are shipped."""
    for text in (service()["serveConfigV2"], (FOLDER / "serve.yaml").read_text()):
        done = subprocess.run(
            [RAY / "python", "-c", CHECK],
            input=text,
            env={"PYTHONPATH": str(FOLDER)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_ray_is_the_one_of_the_image() -> None:
    """The operator is told the version that deploy/ray/Dockerfile installs."""
    pinned = re.search(r"^ray\[serve\]==(.+)$", (FOLDER / "requirements.txt").read_text(), re.M)

    assert pinned is not None
    assert service()["rayClusterConfig"]["rayVersion"] == pinned[1]


def test_the_replicas_profile_and_ports(tmp_path: Path) -> None:
    """The profile with the overrides loads; its metrics port is the one that Prometheus asks."""
    (config,) = of_kind(FOLDER_OF_MANIFESTS, "ConfigMap")
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    arguments = application()["args"]
    file = tmp_path / Path(arguments["profile"]).name
    loaded = load_profile(str(file), arguments["overrides"])
    (container,) = groups()["worker"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    http = yaml.safe_load(service()["serveConfigV2"])["http_options"]
    assert ports == {"serve": http["port"], "metrics": loaded.profile.server.metrics_port}
    (found,) = of_kind(FOLDER_OF_MANIFESTS, "Service")
    assert {port["targetPort"]: port["port"] for port in found["spec"]["ports"]} == ports
    mounted = {
        volume["name"]: volume for volume in groups()["worker"]["template"]["spec"]["volumes"]
    }
    assert mounted["profile"]["configMap"]["name"] == config["metadata"]["name"]
    assert mounted["api-keys"]["secret"]["secretName"] == SECRET["metadata"]["name"]
    assert arguments["overrides"].count("server.api_keys_file=/run/secrets/gemma-serve/api-keys")


def test_a_pod_holds_one_replica(tmp_path: Path) -> None:
    """GPUs, replicas and pods agree, and a replica has the time to drain."""
    (deployment,) = application()["deployments"]
    worker = groups()["worker"]
    (container,) = worker["template"]["spec"]["containers"]
    scaling = deployment["autoscaling_config"]

    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert deployment["ray_actor_options"]["num_gpus"] == gpus
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (
        worker["minReplicas"],
        worker["maxReplicas"],
    )
    drain_s = load_profile(
        "gemma-3-4b-it", application()["args"]["overrides"]
    ).profile.limits.drain_s
    shutdown_s = deployment["graceful_shutdown_timeout_s"]
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > shutdown_s
    assert shutdown_s > drain_s + ENGINE_END_S
    assert groups()["head"]["rayStartParams"]["num-cpus"] == "0"


def test_selectors_and_confinement() -> None:
    """Requests go to the workers, policies hold for all pods, and none is privileged."""
    (found,) = of_kind(FOLDER_OF_MANIFESTS, "Service")
    policies = of_kind(FOLDER_OF_MANIFESTS, "NetworkPolicy")
    assert {policy["metadata"]["name"] for policy in policies} == {
        "gemma-serve",
        "gemma-serve-ray",
    }
    for role, group in groups().items():
        template = group["template"]
        labels = template["metadata"]["labels"]
        assert labels_match(found["spec"]["selector"], labels) == (role == "worker")
        for policy in policies:
            assert labels_match(policy["spec"]["podSelector"]["matchLabels"], labels)
        (container,) = template["spec"]["containers"]
        assert container["image"] == "registry.example.com/gemma-serve-ray:0.1.0"
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        names = {volume["name"] for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_nodes_can_be_emptied() -> None:
    """
    No disruption budget chooses the pods of the RayCluster.

    It has no scale subresource, so that Kubernetes would allow no disruption under maxUnavailable,
    and a number in minAvailable can't follow Ray's autoscaler.
    """
    assert of_kind(FOLDER_OF_MANIFESTS, "RayService")
    assert of_kind(FOLDER_OF_MANIFESTS, "PodDisruptionBudget") == []


def test_the_image_is_built_on_ours() -> None:
    """deploy/ray/Dockerfile passes hadolint, and has what its pods need on their paths."""
    file = FOLDER / "Dockerfile"
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", file], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert "!deploy/ray" in (ROOT / ".dockerignore").read_text().splitlines()
    assert "PYTHONPATH=/opt/gemma-serve/deploy/ray" in file.read_text()
