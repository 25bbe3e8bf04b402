"""The Kubernetes manifests, rendered: valid, consistent, and true of the server that they start."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

from gemma_serve.api.operations import OPEN_PATHS, router
from gemma_serve.errors import ProfileError
from gemma_serve.follower import is_follower
from gemma_serve.profile.load import load_profile
from tests.deploy.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Object,
    of_kind,
    pods,
    pre_stop_s,
    rendered,
    serving,
)
from tests.deploy.prometheus import promtool
from tests.docs.pages import blocks

# The newest whose schemas the validator brings.
KUBERNETES_VERSION = kubernetes_validate.latest_version()
# What vLLM's processes get to end, after the drain; docs/behaviour.md.
ENGINE_END_S = 10
# Generated from the definitions that KEDA and the Prometheus operator install.
CUSTOM_MODELS = {"ScaledObject": ScaledObject, "ServiceMonitor": ServiceMonitor}
CUSTOM_KINDS = {*CUSTOM_MODELS, "LeaderWorkerSet"}
# LeaderWorkerSet's is not to be had as a package. These are the keys of its spec, down to the pods,
# which are Kubernetes' own.
# Source: LeaderWorkerSet 0.9, config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml.
NUMBER_OR_SHARE = {"type": ["integer", "string"]}


def keys_of(properties: Object, *required: str) -> Object:
    """The schema of an object that has these keys and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


GROUP_POD = keys_of({"metadata": {"type": "object"}, "spec": {"type": "object"}})
GROUP_SPEC = keys_of(
    {
        "replicas": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
        "startupPolicy": {"enum": ["LeaderCreated", "LeaderReady"]},
        "networkConfig": keys_of(
            {"subdomainPolicy": {"enum": ["Shared", "UniquePerReplica"]}}, "subdomainPolicy"
        ),
        "rolloutStrategy": keys_of(
            {
                "type": {"enum": ["RollingUpdate"]},
                "rollingUpdateConfiguration": keys_of(
                    {
                        "maxSurge": NUMBER_OR_SHARE,
                        "maxUnavailable": NUMBER_OR_SHARE,
                        "partition": {"type": "integer"},
                    }
                ),
            },
            "type",
        ),
        "leaderWorkerTemplate": keys_of(
            {
                "leaderTemplate": GROUP_POD,
                "workerTemplate": GROUP_POD,
                "size": {"type": "integer", "minimum": 1},
                "restartPolicy": {
                    "enum": [
                        "Default",
                        "RecreateGroupOnPodRestart",
                        "RecreateGroupAfterStart",
                        "None",
                    ]
                },
                "subGroupPolicy": {"type": "object"},
                "volumeClaimTemplates": {"type": "array"},
                "persistentVolumeClaimRetentionPolicy": {"type": "object"},
            },
            "workerTemplate",
        ),
    },
    "leaderWorkerTemplate",
)
# Overlays in which several pods hold one model.
GROUPS = ["multi-node", "multi-node-vllm"]
SECRET = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text())


def validate(found: Object) -> None:
    """Raise unless the object fits Kubernetes' own schema, unknown keys refused."""
    kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)


def labels_match(selector: Object, labels: Object) -> bool:
    """Whether a selector of labels chooses a pod with these."""
    return bool(selector) and selector.items() <= labels.items()


def values(tree: object, key: str) -> Iterator[object]:
    """Every value under a key, wherever it stands."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(tree, list):
        for item in tree:
            yield from values(item, key)


# --- schemas


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_fit_the_schemas(overlay: str) -> None:
    """Every object of Kubernetes' own kinds is valid, to the last key."""
    kinds = {found["kind"] for found in rendered(overlay)}

    assert {"Namespace", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= kinds
    for found in rendered(overlay):
        if found["kind"] not in CUSTOM_KINDS:
            validate(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_objects_fit_their_definitions(overlay: str) -> None:
    """The types are right, and no key is lost: the models would drop what they don't know."""
    for kind, model in CUSTOM_MODELS.items():
        for found in of_kind(overlay, kind):
            read = model.model_validate(found)
            assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == found


@pytest.mark.parametrize("overlay", GROUPS)
def test_groups_fit_their_definition(overlay: str) -> None:
    """A LeaderWorkerSet has the keys of its definition and no other, with values that it allows."""
    (group,) = of_kind(overlay, "LeaderWorkerSet")
    assert group["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    assert set(group) == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(group["spec"], GROUP_SPEC)

    for key, value, said in (
        ("sizes", 2, "'sizes' was unexpected"),
        ("restartPolicy", "Recreate", "'Recreate' is not one of"),
    ):
        wrong = copy.deepcopy(group["spec"])
        wrong["leaderWorkerTemplate"][key] = value
        with pytest.raises(jsonschema.ValidationError, match=said):
            jsonschema.validate(wrong, GROUP_SPEC)


@pytest.mark.parametrize("overlay", GROUPS)
def test_group_pods_fit_the_schemas(overlay: str) -> None:
    """The pods inside a LeaderWorkerSet are Kubernetes' own, and valid."""
    for pod in pods(overlay):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}}
        validate(template | {"template": pod.template})


def test_example_secret_fits_the_schema_and_holds_no_secret() -> None:
    """It can be applied once its values are replaced, and says nothing before."""
    validate(SECRET)
    assert {value.strip() for value in SECRET["stringData"].values()} == {"replace-me"}


def test_wrong_key_is_refused_by_name() -> None:
    """A patch with a key that Kubernetes does not know is found, as these tests would find ours."""
    (deployment,) = copy.deepcopy(of_kind("cpu", "Deployment"))
    deployment["spec"]["replica"] = 2

    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        validate(deployment)


# --- what the objects say of each other


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_namespace(overlay: str) -> None:
    """Everything is in the namespace that comes with it."""
    (namespace,) = of_kind(overlay, "Namespace")
    others = [found for found in rendered(overlay) if found is not namespace]

    assert {found["metadata"]["namespace"] for found in others} == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_pod_mounts_exists(overlay: str) -> None:
    """ConfigMap and claim are in the overlay, every volume is mounted."""
    claims = {found["metadata"]["name"] for found in of_kind(overlay, "PersistentVolumeClaim")}
    configs = {found["metadata"]["name"] for found in of_kind(overlay, "ConfigMap")}

    for pod in pods(overlay):
        volumes = {volume["name"] for volume in pod.spec["volumes"]}
        assert {mount["name"] for mount in pod.container["volumeMounts"]} == volumes
        assert set(values(pod.spec, "claimName")) <= claims
        for source in values(pod.spec, "configMap"):
            assert isinstance(source, dict)
            assert source["name"] in configs


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_the_examples(overlay: str) -> None:
    """Secret and keys that the pods ask for are those that the example makes."""
    asked = [
        (secret["secretName"], item["key"])
        for pod in pods(overlay)
        for secret in values(pod.spec, "secret")
        if isinstance(secret, dict)
        for item in secret["items"]
    ] + [
        (reference["name"], reference["key"])
        for pod in pods(overlay)
        for reference in values(pod.spec, "secretKeyRef")
        if isinstance(reference, dict)
    ]

    assert set(asked) == {(SECRET["metadata"]["name"], key) for key in SECRET["stringData"]}


@pytest.mark.parametrize("page", ["deploy.md", "quickstart.md"])
def test_pages_make_the_secret_first(page: str) -> None:
    """Who follows a page from line to line has the Secret when the pods ask for it."""
    apply = "kubectl apply --kustomize"
    texts = [block.text for block in blocks(ROOT / "docs" / page) if apply in block.text]

    assert texts
    for text in texts:
        assert 0 <= text.find("create secret generic gemma-serve") < text.index(apply)


def test_rule_for_traces_can_be_taken_in() -> None:
    """Without its # the rule for a collector is valid, and opens one port more."""
    text = (KUBERNETES / "base" / "network-policy.yaml").read_text()
    taken_in = yaml.safe_load(re.sub("^    # (?=[- ])", "    ", text, flags=re.MULTILINE))

    validate(taken_in)
    assert taken_in["spec"]["egress"][:-1] == yaml.safe_load(text)["spec"]["egress"]
    assert taken_in["spec"]["egress"][-1]["ports"] == [{"port": 4317}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_choose_the_pods(overlay: str) -> None:
    """The Service finds the pods that serve; budget and policies hold for every pod."""
    (service,) = of_kind(overlay, "Service")
    (budget,) = of_kind(overlay, "PodDisruptionBudget")
    policies = of_kind(overlay, "NetworkPolicy")

    for pod in pods(overlay):
        labels = pod.template["metadata"]["labels"]
        assert labels_match(service["spec"]["selector"], labels) == pod.serves
        assert labels_match(budget["spec"]["selector"]["matchLabels"], labels)
        for policy in policies:
            assert labels_match(policy["spec"]["podSelector"]["matchLabels"], labels)
    for monitor in of_kind(overlay, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        assert labels_match(selector, service["metadata"]["labels"])
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_update_frees_the_volume_first(overlay: str) -> None:
    """A volume of one node at a time has one replica, which goes before the next one comes."""
    claims = of_kind(overlay, "PersistentVolumeClaim")
    once = {found["metadata"]["name"] for found in claims
            if "ReadWriteMany" not in found["spec"]["accessModes"]}  # fmt: skip
    for deployment in of_kind(overlay, "Deployment"):
        spec = deployment["spec"]
        if once & set(values(spec["template"]["spec"], "claimName")):
            assert spec["strategy"] == {"type": "Recreate"}
            assert spec["replicas"] == 1
            assert not of_kind(overlay, "ScaledObject")
        else:
            assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert bool(once) == (overlay == "cpu")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_autoscaler_has_the_say(overlay: str) -> None:
    """Where KEDA scales a Deployment it exists, and names no number of replicas itself."""
    deployments = {found["metadata"]["name"]: found for found in of_kind(overlay, "Deployment")}
    scaled = of_kind(overlay, "ScaledObject")

    assert bool(scaled) == (overlay in {"one-gpu", "tensor-parallel"})
    for found in scaled:
        target = deployments[found["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"]
        # Prometheus knows the servers by their Service.
        for trigger in found["spec"]["triggers"]:
            where = f'{{namespace="{found["metadata"]["namespace"]}",job="gemma-serve"}}'
            assert where in trigger["metadata"]["query"]


def test_autoscaler_asks_what_can_be_asked(tmp_path: Path) -> None:
    """Its queries are PromQL, of series that rules and dashboard use, which a test holds."""
    (scaled,) = of_kind("one-gpu", "ScaledObject")
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in (ROOT / "deploy").rglob("*") if path.suffix in {".yml", ".json"}]
    known = "".join(path.read_text() for path in files)
    asked = {name for query in queries for name in re.findall(r"vllm:\w+", query)}
    assert len(asked) == 3
    assert {name for name in asked if name not in known} == set()


# --- what they say of the server


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_profile_loads_and_ports_agree(overlay: str, tmp_path: Path) -> None:
    """The profile with the container's --set is valid, and listens where the pod says."""
    pod = serving(overlay)
    server = pod.profile(tmp_path).profile.server
    ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}

    assert pod.arguments[0] == "serve"
    assert ports == {
        "http": server.port,
        "grpc": server.grpc_port,
        "metrics": server.metrics_port,
    }
    assert server.host == "0.0.0.0"
    (service,) = of_kind(overlay, "Service")
    targets = {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}
    assert targets == ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_are_the_servers(overlay: str) -> None:
    """Each of the three probes asks its own route, which exists and needs no key."""
    routes = {route.path for route in router.routes}
    asked = {
        kind: (probe["httpGet"]["path"], probe["httpGet"]["port"])
        for kind, probe in serving(overlay).container.items()
        if kind.endswith("Probe")
    }

    assert asked == {
        "startupProbe": ("/startupz", "http"),
        "livenessProbe": ("/livez", "http"),
        "readinessProbe": ("/readyz", "http"),
    }
    assert {path for path, _ in asked.values()} <= routes & OPEN_PATHS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_grace_is_longer_than_pre_stop_and_drain(overlay: str, tmp_path: Path) -> None:
    """Kubernetes' SIGKILL comes after preStop, the drain and the end of vLLM's processes."""
    pod = serving(overlay)
    drain_s = pod.profile(tmp_path).profile.limits.drain_s

    grace_s = pod.spec["terminationGracePeriodSeconds"]
    assert grace_s > pre_stop_s(pod) + drain_s + ENGINE_END_S


@pytest.mark.parametrize("overlay", GROUPS)
def test_workers_outlive_the_leaders_drain(overlay: str, tmp_path: Path) -> None:
    """A group gets SIGTERM at once; the workers keep their GPUs until the leader has ended."""
    leader, worker = pods(overlay)
    drain_s = leader.profile(tmp_path).profile.limits.drain_s

    assert pre_stop_s(worker) >= pre_stop_s(leader) + drain_s + ENGINE_END_S
    assert worker.spec["terminationGracePeriodSeconds"] > pre_stop_s(worker)


def test_nodes_of_a_group_share_a_profile(tmp_path: Path) -> None:
    """Without Ray each pod starts its own workers: the leader answers, the other follows it."""
    leader, worker = (pod.profile(tmp_path) for pod in pods("multi-node-vllm"))
    (group,) = of_kind("multi-node-vllm", "LeaderWorkerSet")
    node = leader.profile.engine

    assert node["nnodes"] == group["spec"]["leaderWorkerTemplate"]["size"]
    assert worker.profile.engine == node | {"node_rank": 1}
    assert (is_follower(leader), is_follower(worker)) == (False, True)
    sizes = [(found.profile.tensor_parallel_size, found.profile.pipeline_parallel_size)
             for found in (leader, worker)]  # fmt: skip
    assert sizes == [(8, 2)] * 2
    assert leader.profile.distributed_executor_backend is None


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gpus_are_as_many_as_the_profile_takes(overlay: str, tmp_path: Path) -> None:
    """All pods of a replica together have tensor_parallel_size x pipeline_parallel_size GPUs."""
    group = list(pods(overlay))
    profile = serving(overlay).profile(tmp_path).profile
    limits = [(pod.container["resources"]["limits"], pod.count) for pod in group]
    gpus = sum(int(limit.get("nvidia.com/gpu", 0)) * count for limit, count in limits)

    on_gpus = profile.tensor_parallel_size * profile.pipeline_parallel_size
    assert gpus == (0 if overlay == "cpu" else on_gpus)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined(overlay: str) -> None:
    """No root, no new privileges, no writable root file system: `restricted`, and more."""
    for pod in pods(overlay):
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] == 2000
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {mount["mountPath"] for mount in pod.container["volumeMounts"]}
        assert {"/home/vllm", "/tmp", "/dev/shm", "/weights"} <= mounted


def test_wrong_key_in_a_profile_is_said_with_its_line(tmp_path: Path) -> None:
    """What the pod's last line would be, if the overlay's profile had a typing mistake."""
    file = tmp_path / "profile.yaml"
    file.write_text("extends: gemma-3-4b-it\nmax_model_length: 8192\n")

    with pytest.raises(ProfileError) as caught:
        load_profile(str(file))
    assert f"{file}:2: Unknown key 'max_model_length'; the closest is 'max_model_len'." in str(
        caught.value
    )
