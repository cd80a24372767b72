"""A cluster's profile: what it puts on each task, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.components.train.stand_in import validator

from tuneline.config import Distributed, TrainConfig
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline.train.job_manifest import ENVIRONMENT, JobSettings, manifest
from tuneline_pipelines.compile import compile_pipeline
from tuneline_pipelines.local import run
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import load_profile
from tuneline_pipelines.state import State

pytestmark = pytest.mark.medium

DIGEST = "sha256:" + "0123456789abcdef" * 4
PROFILE: dict[str, Any] = {
    "images": {"prefix": "registry.example.com/ml/", "pull_secrets": ["registry"]},
    "env": {"MLFLOW_TRACKING_URI": "http://mlflow.mlflow.svc:5000"},
    "secrets": [{"name": "mlflow", "keys": {"password": "MLFLOW_TRACKING_PASSWORD"}}],
    "labels": {"cost-center": "nlp"},
    "queue": "gpu",
    "air_gapped": True,
    "steps": {
        "train": {
            "image": f"registry.example.com/ml/tuneline-train@{DIGEST}",
            "accelerator": {"type": "nvidia.com/mig-1g.10gb", "count": 2},
            "cpu_request": "500m",
            "cpu_limit": "4",
            "memory_request": "16Gi",
            "memory_limit": "32Gi",
            "shared_memory": "8Gi",
            "node_selector": {"gpu": "h200"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "volumes": [{"claim": "models", "mount_path": "/models"}],
            "timeout_seconds": 86400,
            "retries": 3,
        }
    },
}


def written(folder: Path, tree: Any) -> Path:
    path = folder / "profile.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


@pytest.fixture
def documents(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    notes = compile_pipeline(tmp_path / "pipeline.yaml", None, load_profile(written(tmp_path, PROFILE)))
    pipeline, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    executors = pipeline["deploymentSpec"]["executors"]
    tasks = pipeline["root"]["dag"]["tasks"]
    return {"executors": executors, "tasks": tasks}, platform["platforms"]["kubernetes"]["deploymentSpec"], notes


def test_images_resources_and_retries_stand_in_the_pipeline(documents: Any) -> None:
    train = documents[0]["executors"]["exec-train"]["container"]
    assert train["image"] == f"registry.example.com/ml/tuneline-train@{DIGEST}"
    resources = train["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == ("500m", "4")
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == ("16Gi", "32Gi")
    assert resources["accelerator"]["resourceType"] == "nvidia.com/mig-1g.10gb"
    assert resources["accelerator"]["resourceCount"] == "2"
    assert documents[0]["tasks"]["train"]["retryPolicy"]["maxRetryCount"] == 3
    assert documents[0]["tasks"]["prepare"]["retryPolicy"]["maxRetryCount"] == 2
    prepare = documents[0]["executors"]["exec-prepare"]["container"]
    assert prepare["image"].startswith("registry.example.com/ml/tuneline-prepare:")
    assert "resources" not in prepare


def test_placement_volumes_and_identity_stand_in_the_platform_document(documents: Any) -> None:
    train = documents[1]["executors"]["exec-train"]
    assert train["emptyDirMounts"] == [
        {"volumeName": "shared-memory", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "8Gi"}
    ]
    assert train["nodeSelector"] == {"labels": {"gpu": "h200"}}
    (toleration,) = train["tolerations"]
    assert (toleration["key"], toleration["operator"], toleration["effect"]) == (
        "nvidia.com/gpu",
        "Exists",
        "NoSchedule",
    )
    assert train["pvcMount"][0]["mountPath"] == "/models"
    assert train["activeDeadlineSeconds"] == "86400"
    for executor in documents[1]["executors"].values():
        assert executor["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert executor["podMetadata"]["labels"] == {"cost-center": "nlp", "kueue.x-k8s.io/queue-name": "gpu"}
        assert executor["imagePullSecret"][0]["secretName"] == "registry"


def test_every_step_gets_the_environment_and_credentials_by_name_only(documents: Any) -> None:
    for executor in documents[0]["executors"].values():
        assert {entry["name"]: entry["value"] for entry in executor["container"]["env"]} == {
            "MLFLOW_TRACKING_URI": "http://mlflow.mlflow.svc:5000", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
            "PIP_NO_INDEX": "1", "TUNELINE_IMAGE": executor["container"]["image"],
        }  # fmt: skip
    for executor in documents[1]["executors"].values():
        (secret,) = executor["secretAsEnv"]
        assert secret["secretName"] == "mlflow"
        assert secret["keyToEnv"] == [{"secretKey": "password", "envVar": "MLFLOW_TRACKING_PASSWORD"}]


def test_every_step_learns_kfps_id_of_the_run_from_its_pod_and_not_by_an_argument(documents: Any) -> None:
    for executor in documents[1]["executors"].values():
        (field,) = executor["fieldPathAsEnv"]
        assert field == {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


def test_a_model_cache_serves_the_steps_that_fetch_and_secret_files_serve_all(tmp_path: Path) -> None:
    profile = {
        "model_cache": {"claim": "models", "mount_path": "/cache", "sub_path": "hub"},
        "secret_files": [{"name": "corporate-ca", "mount_path": "/etc/ca"}],
    }
    compile_pipeline(tmp_path / "pipeline.yaml", None, load_profile(written(tmp_path, profile)))
    pipeline, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for step in ("prepare", "train", "evaluate", "register"):
        container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        executor = executors[f"exec-{step}"]
        (secret,) = executor["secretAsVolume"]
        assert (secret["secretName"], secret["mountPath"]) == ("corporate-ca", "/etc/ca")
        own = [{"name": "TUNELINE_IMAGE", "value": container["image"]}]
        if step in ("prepare", "train"):
            assert container["env"] == [*own, {"name": "HF_HOME", "value": "/cache"}]
            (mount,) = executor["pvcMount"]
            assert (mount["mountPath"], mount["subPath"]) == ("/cache", "hub")
        else:
            assert container["env"] == own
            assert "pvcMount" not in executor


def test_images_by_tag_are_told_and_images_by_digest_are_not(documents: Any, tmp_path: Path) -> None:
    assert documents[2][0].startswith("3 images are named by a tag")
    steps = {step: {"image": f"registry/{step}@{DIGEST}"} for step in ("prepare", "train", "evaluate", "register")}
    profile = load_profile(written(tmp_path, {"steps": steps}))
    assert compile_pipeline(tmp_path / "pipeline.yaml", None, profile) == []


def test_a_profile_changes_no_parameter_of_the_pipeline(tmp_path: Path) -> None:
    compile_pipeline(tmp_path / "plain.yaml", None)
    compile_pipeline(tmp_path / "profiled.yaml", None, load_profile(written(tmp_path, PROFILE)))
    plain, profiled = (
        next(yaml.safe_load_all((tmp_path / name).read_text())) for name in ("plain.yaml", "profiled.yaml")
    )
    assert plain["root"]["inputDefinitions"] == profiled["root"]["inputDefinitions"]


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}, "profile.env.AWS_SECRET_ACCESS_KEY looks like a secret"),
        ({"env": {"DB": "postgresql://me:hunter2@db/mlflow"}}, "profile.env.DB looks like a secret"),
        ({"steps": {"train": {"memory_limit": "32 GB"}}}, "profile.steps.train.memory_limit: '32 GB' given"),
        (
            {"steps": {"train": {"memory_request": "2Gi", "memory_limit": "2000Mi"}}},
            "profile.steps.train.memory_request: '2Gi' given; at most the limit 2000Mi",
        ),
        ({"steps": {"register": {"cpu_request": "2", "cpu_limit": "500m"}}}, "profile.steps.register.cpu_request: '2'"),
        ({"steps": {"trian": {}}}, "profile.steps.trian: unknown key; did you mean train?"),
        ({"steps": {"train": {"gpu": 1}}}, "profile.steps.train.gpu: unknown key; "),
        (
            {"steps": {"train": {"accelerator": {"kind": "x"}}}},
            "accelerator.kind: unknown key; allowed here: count, type",
        ),
        (
            {"secrets": [{"name": "x", "keys": {"a": "B"}, "kyes": 1}]},
            "secrets.0.kyes: unknown key; did you mean keys?",
        ),
        ({"server": {"namespace": "x"}}, "profile.server.endpoint: not given, and required"),
        ({"security": {"user": 0}}, "profile.security.user: 0 given"),
        ({"labels": {"team": "a b"}}, "profile.labels.team: 'a b' given"),
        ({"secrets": [{"name": "Bad_Name", "keys": {"a": "B"}}]}, "profile.secrets.0.name: 'Bad_Name' given"),
        (
            {"trainjob": {"claim": "x"}, "steps": {"train": {"volumes": [{"claim": "x", "mount_path": "/x"}]}}},
            "profile.trainjob.claim: 'x' given; it stands under steps.train.volumes too",
        ),
        ({"trainjob": {}}, "profile.trainjob.claim: not given, and required"),
        ("- a list", "holds list, not a mapping"),
        ("{", "not a YAML file"),
    ],
)
def test_what_no_cluster_takes_is_refused_and_a_secret_is_not_repeated(tmp_path: Path, tree: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_profile(written(tmp_path, tree))
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_documentation_s_example_is_a_profile(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    example = page.split("```yaml\n# cluster.yaml\n")[1].split("```")[0]
    profile = load_profile(written(tmp_path, example))
    assert profile.server and profile.server.auth.token_env == "KFP_TOKEN"
    compile_pipeline(tmp_path / "pipeline.yaml", None, profile)


def test_a_missing_profile_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--profile: .*cannot be read"):
        load_profile(tmp_path / "none.yaml")


def train_executor(folder: Path, profile: dict[str, Any], *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the train step's container and pod become."""
    recipe = load_recipe(shipped()["text"], ["data.train=/of/the/cluster.csv", *overrides])
    compile_pipeline(folder / "pipeline.yaml", recipe, load_profile(written(folder, profile)))
    pipeline, platform = yaml.safe_load_all((folder / "pipeline.yaml").read_text())
    return (
        pipeline["deploymentSpec"]["executors"]["exec-train"]["container"],
        platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"],
    )


def test_a_trainjob_gets_what_the_train_step_asks_for_and_the_step_itself_little(tmp_path: Path) -> None:
    profile = PROFILE | {"trainjob": {"claim": "shared", "mount_path": "/shared"}}
    container, pod = train_executor(tmp_path, profile, "train.distributed.nodes=2", "train.distributed.gpus_per_node=4")
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    job = JobSettings.model_validate_json(environment[ENVIRONMENT])
    made = manifest("tuneline-0", job, TrainConfig(distributed=Distributed(nodes=2, gpus_per_node=4)), ["a", "b", "c"])
    validator().validate(made)
    trainer = made["spec"]["trainer"]
    assert trainer["image"] == f"registry.example.com/ml/tuneline-train@{DIGEST}"
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "500m", "memory": "16Gi", "nvidia.com/mig-1g.10gb": "4"},
        "limits": {"cpu": "4", "memory": "32Gi", "nvidia.com/mig-1g.10gb": "4"},
    }
    assert trainer["env"][-1] == {
        "name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "password"}},
    }  # fmt: skip
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    (node,) = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = node["template"]["spec"]["template"]
    assert template["metadata"]["labels"] == {"cost-center": "nlp"}
    assert [volume["name"] for volume in template["spec"]["volumes"]] == ["tuneline-shared", "models", "shared-memory"]
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert "accelerator" not in container["resources"]
    assert container["resources"]["resourceMemoryRequest"] == "2Gi"
    assert "nodeSelector" not in pod
    assert {mount["mountPath"] for mount in pod["pvcMount"]} == {"/shared", "/models"}
    (run,) = pod["fieldPathAsEnv"]
    assert run == {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


def test_a_trainjobs_pods_find_the_model_cache_and_the_secret_files_where_the_steps_do(tmp_path: Path) -> None:
    more = {
        "trainjob": {"claim": "shared", "mount_path": "/shared"},
        "model_cache": {"claim": "models", "mount_path": "/cache", "sub_path": "hub"},
        "secret_files": [{"name": "corporate-ca", "mount_path": "/etc/ca"}],
    }
    container, _ = train_executor(tmp_path, PROFILE | more, "train.distributed.nodes=2")
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    made = manifest("tuneline-0", JobSettings.model_validate_json(told[ENVIRONMENT]), TrainConfig(), ["a", "b", "c"])
    validator().validate(made)
    assert {"name": "HF_HOME", "value": "/cache"} in made["spec"]["trainer"]["env"]
    (node,) = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    named = {volume["name"]: volume for volume in pod["volumes"]}
    assert list(named) == ["tuneline-shared", "models", "corporate-ca", "shared-memory"]
    assert named["corporate-ca"]["secret"] == {"secretName": "corporate-ca"}
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "models", "mountPath": "/cache", "subPath": "hub"} in mounts
    assert {"name": "corporate-ca", "mountPath": "/etc/ca", "readOnly": True} in mounts


def test_on_one_machine_the_train_step_keeps_its_gpus(tmp_path: Path) -> None:
    container, pod = train_executor(tmp_path, PROFILE | {"trainjob": {"claim": "shared"}})
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    assert pod["nodeSelector"] == {"labels": {"gpu": "h200"}}


def test_several_machines_need_a_profile_that_has_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^train\.distributed\.nodes: 2 given; more than one needs a --profile with"):
        train_executor(tmp_path, PROFILE, "train.distributed.nodes=2")


def test_a_laptop_refuses_several_machines_before_anything_runs(tmp_path: Path) -> None:
    recipe = load_recipe(shipped()["quickstart"], ["train.distributed.nodes=2"])
    state = State(tmp_path, "sqlite:///none", None)
    with pytest.raises(InputError, match=r"^train\.distributed\.nodes: more than one given, and no cluster to take"):
        run(recipe, state, lambda *_: None)
    assert list(tmp_path.iterdir()) == []
