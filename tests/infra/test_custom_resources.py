"""Custom resources against what their projects publish of their types: unknown fields, wrong types, missing keys."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.infra.render import Object, everything, find, named
from tests.infra.render import render as rendered
from tests.infra.test_render import CUSTOM

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def errors(checks: Path) -> Callable[[Object], list[str]]:
    """What is wrong with a custom resource: unknown fields, wrong types, missing keys."""
    done = subprocess.run([checks / "python", HERE / "crd_schemas.py"], capture_output=True, text=True, check=True)
    published = json.loads(done.stdout)
    kueue = yaml.safe_load((HERE / "kueue.schema.yaml").read_text(encoding="utf-8"))
    kinds: dict[str, Any] = {key: {"$ref": f"#/$defs/{name}"} for key, name in published["kinds"].items()}
    whole = {"required": ["apiVersion", "kind", "metadata"]}
    kinds |= {key: {**whole, "properties": {"spec": spec}} for key, spec in kueue["kinds"].items()}
    definitions = published["definitions"] | kueue["$defs"]

    def of(manifest: Object) -> list[str]:
        schema = {**kinds[f"{manifest['apiVersion']}/{manifest['kind']}"], "$defs": definitions}
        found = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
        return [f"{error.json_path}: {error.message}" for one in found for error in _leaves(one)]

    return of


def _leaves(error: Any) -> list[Any]:
    return [leaf for one in error.context for leaf in _leaves(one)] if error.context else [error]


def test_every_custom_resource_fits_its_own_schema(errors: Callable[[Object], list[str]]) -> None:
    seen = set()
    for folder, manifest in everything():
        if manifest["apiVersion"].startswith(CUSTOM):
            seen.add(manifest["kind"])
            assert errors(manifest) == [], f"infra/{folder}: {named(manifest)}"
    assert seen == {"InferenceService", "ClusterTrainingRuntime", "ResourceFlavor", "ClusterQueue", "LocalQueue"}


@pytest.mark.parametrize(
    ("folder", "kind", "name", "path", "value"),
    [
        ("serving", "InferenceService", "text-classifier", "spec.predictor.model.storageURI", "s3://a/b"),
        ("serving", "InferenceService", "text-classifier", "spec.predictor.minReplicas", "two"),
        ("serving", "InferenceService", "text-classifier", "spec.predictor.model.env", [{"value": "1"}]),
        (
            "platform/runtime",
            "ClusterTrainingRuntime",
            "tuneline-torch",
            "spec.mlPolicy.torch",
            {"numProcPerNode": "auto"},
        ),
        ("platform/runtime", "ClusterTrainingRuntime", "tuneline-torch", "spec.template.spec.backoffLimit", 3),
        ("platform/queues", "ClusterQueue", "tuneline", "spec.cohort", "all"),
        ("platform/queues", "ClusterQueue", "tuneline", "spec.queueingStrategy", "LIFO"),
        ("platform/queues", "LocalQueue", "tuneline", "spec.queue", "tuneline"),
        ("platform/queues", "ResourceFlavor", "gpu", "spec.tolerations", [{"operator": "Anyhow"}]),
    ],
)
def test_a_wrong_field_is_refused(
    errors: Callable[[Object], list[str]], folder: str, kind: str, name: str, path: str, value: object
) -> None:
    manifest = copy.deepcopy(find(folder, kind, name))
    *parents, last = path.split(".")
    tree = manifest
    for key in parents:
        tree = tree[key]
    tree[last] = value
    assert errors(manifest)


def test_the_quotas_name_flavors_and_resources_that_are_there() -> None:
    flavors = {one["metadata"]["name"] for one in rendered("platform/queues") if one["kind"] == "ResourceFlavor"}
    for group in find("platform/queues", "ClusterQueue", "tuneline")["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            assert flavor["name"] in flavors
            assert [one["name"] for one in flavor["resources"]] == group[
                "coveredResources"
            ]  # Kueue asks for this order
    assert find("platform/queues", "LocalQueue", "tuneline")["spec"]["clusterQueue"] == "tuneline"


def test_a_trainjob_on_our_runtime_fits_the_schema(errors: Callable[[Object], list[str]]) -> None:
    job = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "train-1", "namespace": "kubeflow"},
        "spec": {
            "runtimeRef": {
                "name": find("platform/runtime", "ClusterTrainingRuntime", "tuneline-torch")["metadata"]["name"]
            },
            "trainer": {"numNodes": 2, "numProcPerNode": 1, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}}},
        },
    }
    assert errors(job) == []
    assert errors({**job, "spec": {**job["spec"], "runtime": "tuneline-torch"}})
