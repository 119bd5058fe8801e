"""The clusters to start from: valid for what reads them, safe, and of a size that does not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cluster.ray.options import parse
from cluster.study import file

ROOT = Path(__file__).parents[3]
CLUSTERS = ROOT / "cluster" / "ray" / "clusters"
STUDIES = ROOT / "studies"
LAUNCHER_FILES = ["gpu.yaml", "tpu.yaml"]

# What of a RayCluster is used here, strictly, but for its pods: written after KubeRay's API reference of
# v1.6 (https://docs.ray.io/en/master/cluster/kubernetes/references/api.html), in which a missing or
# misspelt key would be found out only by the operator. It is not the whole CRD.
KUBERNETES = "1.34"
POD_HEADER = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
POD = {"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object"}}}
START_PARAMS = {"type": "object", "additionalProperties": {"type": "string"}}
RAY_CLUSTER = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["headGroupSpec"],
            "additionalProperties": False,
            "properties": {
                "rayVersion": {"type": "string"},
                "authOptions": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"mode": {"enum": ["disabled", "token"]}, "secretName": {"type": "string"}},
                },
                "headGroupSpec": {
                    "type": "object",
                    "required": ["template"],
                    "additionalProperties": False,
                    "properties": {"rayStartParams": START_PARAMS, "template": POD},
                },
                "workerGroupSpecs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["groupName", "maxReplicas", "minReplicas", "template"],
                        "additionalProperties": False,
                        "properties": {
                            "groupName": {"type": "string"},
                            "replicas": {"type": "integer", "minimum": 0},
                            "minReplicas": {"type": "integer", "minimum": 0},
                            "maxReplicas": {"type": "integer", "minimum": 0},
                            "rayStartParams": START_PARAMS,
                            "template": POD,
                        },
                    },
                },
            },
        },
    },
}


def read(name: str) -> dict[str, Any]:
    content = yaml.safe_load((CLUSTERS / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_cluster_launcher_takes_it(name: str) -> None:
    """By the schema that this version of Ray ships, and by what Ray checks beside."""
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    config = read(name)
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"head_nodetype": "head"}, schema)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_such_a_cluster_is_safe_and_measures_like_any_other(name: str) -> None:
    config = read(name)
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert not any("ray stop" in command for command in starts)
    assert all("RAY_AUTH_MODE=token" in c and "RAY_worker_niceness=0" in c for c in starts)
    assert all("--include-dashboard=false" in c for c in config["head_start_ray_commands"])
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    types = config["available_node_types"]
    assert all(kind["min_workers"] == kind["max_workers"] for kind in types.values())
    assert sum(kind["max_workers"] for kind in types.values()) == config["max_workers"]


def test_the_tpu_nodes_have_the_chips_they_say() -> None:
    """What Ray's Google provider asks of a TPU node; its own check needs Google's client library."""
    node = read("tpu.yaml")["available_node_types"]["tpu"]
    assert node["node_config"].keys() == {"acceleratorType", "runtimeVersion"}
    generation, _, cores = node["node_config"]["acceleratorType"].partition("-")
    assert generation in ("v2", "v3", "v4", "v5p")  # named by their TensorCores, two on each chip
    assert node["resources"]["TPU"] == int(cores) // 2


def test_the_kubernetes_manifest_is_a_raycluster() -> None:
    manifest = read("kubernetes.yaml")
    jsonschema.validate(manifest, RAY_CLUSTER)
    spec = manifest["spec"]
    assert spec["authOptions"]["mode"] == "token"
    (group,) = spec["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    for template in (spec["headGroupSpec"]["template"], group["template"]):
        pod = template["spec"]
        # By the schema that Kubernetes publishes; strictly, as the API server with --validate=strict.
        kubernetes_validate.validate(POD_HEADER | template, KUBERNETES, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(POD_HEADER | {"spec": pod | {"affinty": {}}}, KUBERNETES, strict=True)
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {"name": "RAY_worker_niceness", "value": "0"} in container["env"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_manifest_is_for_the_ray_that_is_installed() -> None:
    from importlib.metadata import version

    assert read("kubernetes.yaml")["spec"]["rayVersion"] == version("ray")


def test_the_study_for_ray_is_a_study() -> None:
    study = file.parse(STUDIES / "ray.yaml")
    assert study.launcher.kind == "ray"
    assert parse(study.launcher.options).shared_results
