"""The TrainJob that is created, held against the schema of its custom resource, and what it is called."""

from __future__ import annotations

from typing import Any

import pytest

from tests.components.conftest import model_config
from tests.components.train.stand_in import validator
from tuneline.artifacts import PreparedData
from tuneline.config import Distributed, TrainConfig
from tuneline.tracking import KFP_RUN
from tuneline.train.job_manifest import JobSettings, job_name, manifest

# In bf16 the rows of two processes would be rounded otherwise than those of one.
TWO = TrainConfig(
    epochs=2, learning_rate=1e-3, batch_size=7, distributed=Distributed(nodes=2), precision="fp32"
)  # fmt: skip
JOB: dict[str, Any] = {
    "image": "registry.example.com/tuneline-train@sha256:0123", "claim": "shared", "namespace": "team",
    "poll_seconds": 0.01, "patience_seconds": 3,
}  # fmt: skip


def test_a_manifest_holds_to_the_crd_and_secrets_are_named_only(tmp_path):
    job = JobSettings.model_validate(JOB | {
        "mount_path": "/shared", "accelerator": "nvidia.com/gpu", "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "32Gi"}, "labels": {"cost-center": "nlp"}, "timeout_seconds": 86400,
        "job_labels": {"kueue.x-k8s.io/queue-name": "gpu"},
        "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
        "pod": {"nodeSelector": {"gpu": "h200"}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
        "mounts": [],
    })  # fmt: skip
    spread = TrainConfig(batch_size=64, distributed=Distributed(nodes=3, gpus_per_node=8))
    made = manifest("tuneline-0123456789abcdef", job, spread, ["DATA", "OUT", "CONFIG.json"])
    validator().validate(made)
    trainer = made["spec"]["trainer"]
    assert [*trainer["command"], *trainer["args"]][1:] == [
        "-m", "torch.distributed.run", "-m", "tuneline.train", "DATA", "OUT", "CONFIG.json",
    ]  # fmt: skip
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 8)
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "8"},
    }
    assert not any(entry["name"].startswith("PET_") for entry in trainer["env"])  # Trainer's own
    (patch,) = made["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]
    assert pod["metadata"]["labels"] == {"cost-center": "nlp"}
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared"}
    assert pod["spec"]["containers"][0]["volumeMounts"] == [{"name": "tuneline-shared", "mountPath": "/shared"}]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert made["spec"]["activeDeadlineSeconds"] == 86400


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "podTemplateOverrides"), []),
        (("spec", "trainer", "numNodes"), "2"),
        (("spec", "trainer", "resourcesPerNode"), {"limits": {"cpu": "4 cores"}}),
        (("metadata", "name"), "2-starts-with-a-number"),
        (("apiVersion",), "trainer.kubeflow.org/v2alpha1"),
    ],
    ids=lambda value: str(value),
)
def test_the_schema_refuses_what_the_crd_refuses(place, value):
    made = manifest("tuneline-0", JobSettings.model_validate(JOB | {"mount_path": "/shared"}), TWO, ["a"])
    assert not list(validator().iter_errors(made))
    node = made
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    assert len(list(validator().iter_errors(made))) == 1


def test_a_name_tells_what_the_job_does(prepared, tiny_checkpoint, monkeypatch):
    data, model = PreparedData.load(prepared), model_config(tiny_checkpoint)
    monkeypatch.setenv("TUNELINE_COMMIT", "c0ffee")
    first = job_name(data, model, TWO, "image")
    assert first == job_name(data, model, TWO, "image")
    others = {
        job_name(data, model, TWO.model_copy(update={"seed": 1}), "image"),
        job_name(data, model, TWO, "another"),
        job_name(data, model_config(tiny_checkpoint, 32), TWO, "image"),
    }
    monkeypatch.setenv("TUNELINE_COMMIT", "0ddba11")
    others.add(job_name(data, model, TWO, "image"))
    monkeypatch.setenv(KFP_RUN, "a-run")
    others.add(job_name(data, model, TWO, "image"))
    assert len(others | {first}) == 6
