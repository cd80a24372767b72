"""Writes trainer.kubeflow.org_trainjobs.yaml: the schema of a TrainJob, from Kubeflow Trainer's own typed models.

pip install kubeflow-trainer-api==2.3.0 (in an environment of its own), then python make_trainjobs.py from this folder.
Left out are descriptions, affinity and the kinds of volume that no manifest here uses, and unknown keys are refused,
as `kubectl apply --validate=strict` does. The bounds below are in Trainer's CRD but not in its models.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob  # pyright: ignore

VOLUMES = {"name", "persistentVolumeClaim", "emptyDir", "secret", "configMap", "projected"}
NAME = {"pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
QUANTITY = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$",
    "x-kubernetes-int-or-string": True,
}
HEAD = """\
# The TrainJob of Kubeflow Trainer {version}, made by make_trainjobs.py from the package kubeflow-trainer-api (PyPI).
# Copyright The Kubeflow Authors, Apache-2.0. Trimmed: no descriptions, no affinity, only the kinds of volume used here;
# unknown keys are refused.
"""


class Plain(yaml.SafeDumper):
    """YAML without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        del data
        return True


def plain(node: Any, definitions: dict[str, Any]) -> Any:
    """A schema without references, nulls, titles and descriptions, closed against unknown keys."""
    if isinstance(node, list):
        return [plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name == "IoK8sApimachineryPkgApiResourceQuantity":
            return QUANTITY
        found = plain(definitions[name], definitions)
        if name == "IoK8sApiCoreV1Volume":
            found["properties"] = {key: value for key, value in found["properties"].items() if key in VOLUMES}
        if name == "TrainerV1alpha1PodSpecPatch":
            del found["properties"]["affinity"]
        return found
    kinds = [kind for kind in node.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return plain(kinds[0], definitions)
    dropped = {"$defs", "default", "title"} | ({"description"} if isinstance(node.get("description"), str) else set())
    made = {}
    for key, value in node.items():
        if key == "properties":
            made[key] = {name: plain(field, definitions) for name, field in value.items()}
        elif key not in dropped:
            made[key] = plain(value, definitions)
    return made | ({"additionalProperties": False} if "properties" in node else {})


def main() -> None:
    """Write the file."""
    source = TrainerV1alpha1TrainJob.model_json_schema(by_alias=True)
    schema = plain(source, source["$defs"])
    schema["properties"]["apiVersion"] = {"type": "string", "enum": ["trainer.kubeflow.org/v1alpha1"]}
    schema["properties"]["kind"] = {"type": "string", "enum": ["TrainJob"]}
    schema["properties"]["metadata"]["properties"]["name"] |= NAME
    schema["properties"]["spec"]["properties"]["activeDeadlineSeconds"]["minimum"] = 1
    schema["properties"]["spec"]["properties"]["runtimePatches"]["maxItems"] = 16
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    names = {"kind": "TrainJob", "listKind": "TrainJobList", "plural": "trainjobs", "singular": "trainjob"}
    served = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "trainjobs.trainer.kubeflow.org"},
        "spec": {"group": "trainer.kubeflow.org", "names": names, "scope": "Namespaced", "versions": [served]},
    }  # fmt: skip
    head = HEAD.format(version=version("kubeflow-trainer-api"))
    text = yaml.dump(crd, Dumper=Plain, sort_keys=False, width=4096)
    (Path(__file__).parent / "trainer.kubeflow.org_trainjobs.yaml").write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    main()
