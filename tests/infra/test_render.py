"""infra/ renders, fits the schemas of two Kubernetes versions, and its parts find each other."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.infra.render import FILES, INFRA, LOCAL, REMOTE, Object, containers, everything, find, named, pod_templates
from tests.infra.render import render as rendered

OLDEST, NEWEST = "1.35", "1.37"
CUSTOM = ("trainer.kubeflow.org/", "kueue.x-k8s.io/", "serving.kserve.io/")
# Stable in 1.36 only, as its kustomization says.
SINCE = {"MutatingAdmissionPolicy": "1.36", "MutatingAdmissionPolicyBinding": "1.36"}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", LOCAL)
def test_every_manifest_fits_the_schema_of_kubernetes(folder: str, version: str) -> None:
    for manifest in rendered(folder):
        if not manifest["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(manifest, max(version, SINCE.get(manifest["kind"], version)), strict=True)


def test_the_validation_refuses_an_unknown_field() -> None:
    deployment = find("base", "Deployment", "mlflow")
    broken = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


def test_all_that_lies_in_infra_is_rendered_by_some_kustomization() -> None:
    named_files: set[Path] = set()
    for path in FILES:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        generated = [
            file for one in tree.get("configMapGenerator", []) for key in ("envs", "files") for file in one.get(key, [])
        ]
        named_files |= {
            (path.parent / file).resolve() for file in [*tree["resources"], *generated] if "://" not in file
        }
    there = {path for path in INFRA.rglob("*") if path.is_file() and "local" not in path.relative_to(INFRA).parts}
    assert there - named_files - set(FILES) - {INFRA / "platform/README.md"} == set()


@pytest.mark.parametrize("path", REMOTE, ids=lambda path: path.parent.name)
def test_another_projects_manifests_are_pinned_and_the_file_says_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for resource in yaml.safe_load(text)["resources"]:
        assert re.search(r"\?ref=v?\d+\.\d+\.\d+$", resource), resource
    assert text.startswith("# ")


def test_the_platform_is_the_version_that_compiles_and_submits() -> None:
    import kfp

    for name in ("kfp", "kfp-cluster-scoped"):
        assert f"?ref={kfp.__version__}\n" in (INFRA / f"platform/{name}/kustomization.yaml").read_text(
            encoding="utf-8"
        )


def test_no_secret_is_rendered_and_none_is_an_argument() -> None:
    for folder, manifest in everything():
        assert manifest["kind"] != "Secret", f"{folder}: {named(manifest)}"
        for template in pod_templates(manifest):
            for container in containers(template["spec"]):
                words = [*container.get("command", []), *container.get("args", [])]
                assert not [word for word in words if re.search(r"password|secret|PGPASSWORD|://[^/\s]*@", word, re.I)]


@pytest.mark.parametrize("folder", ["base", "overlays/kind", "overlays/cloud", "overlays/airgapped"])
def test_what_a_pod_refers_to_is_there(folder: str) -> None:
    there = {named(manifest) for manifest in rendered(folder)}
    secrets = {"Secret/postgres", "Secret/mlflow-auth", "Secret/s3"}
    for manifest in rendered(folder):
        for template in pod_templates(manifest):
            assert _references(template["spec"]) <= there | secrets, named(manifest)


def _references(pod: Object) -> set[str]:
    found = {f"ServiceAccount/{pod['serviceAccountName']}"}
    for volume in pod.get("volumes", []):
        found |= {f"ConfigMap/{volume['configMap']['name']}"} if "configMap" in volume else set()
        found |= {f"Secret/{volume['secret']['secretName']}"} if "secret" in volume else set()
        if "persistentVolumeClaim" in volume:
            found.add(f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}")
    for container in containers(pod):
        for source in container.get("envFrom", []):
            found |= {f"ConfigMap/{source['configMapRef']['name']}"} if "configMapRef" in source else set()
            found |= {f"Secret/{source['secretRef']['name']}"} if "secretRef" in source else set()
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                found.add(f"Secret/{variable['valueFrom']['secretKeyRef']['name']}")
    return found


@pytest.mark.parametrize("folder", ["base", "overlays/kind", "overlays/cloud", "overlays/airgapped"])
def test_every_policy_service_and_budget_selects_a_pod_that_is_there(folder: str) -> None:
    pods = [pod["metadata"]["labels"] for manifest in rendered(folder) for pod in pod_templates(manifest)]
    for manifest in rendered(folder):
        spec = manifest.get("spec", {})
        selector = {
            "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels", {}),
            "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels", {}),
            "Service": spec.get("selector"),
        }.get(manifest["kind"], {})
        assert any(selector.items() <= labels.items() for labels in pods), named(manifest)


@pytest.mark.parametrize("folder", ["base", "overlays/kind", "overlays/cloud", "overlays/airgapped", "serving"])
def test_a_namespace_is_restricted_and_closed(folder: str) -> None:
    namespace = next(manifest for manifest in rendered(folder) if manifest["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    policy = find(folder, "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for manifest in rendered(folder):
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == namespace["metadata"]["name"], named(manifest)


def _egress_blocks(folder: str) -> set[str]:
    return {
        peer["ipBlock"]["cidr"]
        for manifest in rendered(folder)
        if manifest["kind"] == "NetworkPolicy"
        for rule in manifest["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    }


@pytest.mark.parametrize("folder", ["overlays/airgapped", "platform/runs-airgapped"])
def test_an_air_gapped_cluster_opens_no_way_out(folder: str) -> None:
    assert _egress_blocks(folder) == {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}


def test_an_air_gapped_cluster_pulls_from_its_own_registry_only() -> None:
    for manifest in rendered("overlays/airgapped"):
        for template in pod_templates(manifest):
            for container in containers(template["spec"]):
                assert container["image"].startswith("registry.example.internal/"), named(manifest)


def test_a_kind_cluster_needs_nothing_outside() -> None:
    assert _egress_blocks("overlays/kind") == set()
    assert find("overlays/kind", "Deployment", "mlflow")["spec"]["replicas"] == 1


def test_a_cloud_brings_its_own_database_backups_and_identity() -> None:
    kinds = {manifest["kind"] for manifest in rendered("overlays/cloud")}
    assert not kinds & {"StatefulSet", "CronJob", "PersistentVolumeClaim"}
    text = yaml.safe_dump_all(rendered("overlays/cloud"))
    assert "secretRef" not in text, "S3 keys beside a workload identity"
    assert find("overlays/cloud", "ServiceAccount", "mlflow")["metadata"]["annotations"]


@pytest.mark.parametrize("folder", LOCAL)
def test_no_pod_holds_a_token_for_the_api(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest["kind"] == "ServiceAccount":
            assert manifest["automountServiceAccountToken"] is False
        for template in pod_templates(manifest):
            assert template["spec"]["automountServiceAccountToken"] is False, named(manifest)


def test_the_train_step_may_do_what_it_does_with_trainjobs_and_no_more() -> None:
    role = find("platform/runs", "Role", "tuneline-trainjobs")
    rules = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rules == {
        ("trainer.kubeflow.org", "trainjobs"): {"create", "get", "list", "watch", "delete"},
        ("", "pods"): {"get", "list", "watch"},
        ("", "pods/log"): {"get"},
    }
    binding = find("platform/runs", "RoleBinding", "tuneline-trainjobs")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["namespace"] == role["metadata"]["namespace"]


def test_the_pods_of_a_trainjob_are_let_into_mlflow() -> None:
    runtime = find("platform/runtime", "ClusterTrainingRuntime", "tuneline-torch")
    labels = next(pod_templates(runtime))["metadata"]["labels"]
    rule = find("base", "NetworkPolicy", "mlflow")["spec"]["ingress"][0]
    selectors = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    assert any(selector.items() <= labels.items() for selector in selectors)
    policy = find("platform/runs", "NetworkPolicy", "tuneline-trainjobs")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_jobs_inside_a_training_runtime_fit_the_schema_of_kubernetes(version: str) -> None:
    runtime = find("platform/runtime", "ClusterTrainingRuntime", "tuneline-torch")
    for replicated in runtime["spec"]["template"]["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", **replicated["template"]}
        kubernetes_validate.validate(job, version, strict=True)
        # What the schema does not know: a policy for failed pods wants pods that are not restarted in place.
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_failed_node_starts_the_whole_set_again_a_few_times() -> None:
    spec = find("platform/runtime", "ClusterTrainingRuntime", "tuneline-torch")["spec"]["template"]["spec"]
    assert 0 < spec["failurePolicy"]["maxRestarts"] <= 10
    assert spec["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0
