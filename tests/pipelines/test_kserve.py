"""The manifest of a version: the stock runtime only where it answers as the model does, else our own image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tuneline.artifacts import Decision, write_json
from tuneline.lineage import SERVING, STOCK, STOCK_ARGUMENTS
from tuneline.register.serving import stock_arguments
from tuneline_pipelines import images
from tuneline_pipelines.kserve import IMAGE, name_of, service

TEMPLATE = Path(__file__).parents[2] / "infra" / "serving" / "inference-service.yaml"


def asked(serving: str | None, source: str = "s3://models/1/model-ab") -> dict[str, Any]:
    """The service of topics/7 with this tag, whose artifacts lie there."""
    tags = {} if serving is None else {SERVING: serving, STOCK_ARGUMENTS: "--return_probabilities --max_model_len=48"}
    version = SimpleNamespace(name="Topics 2.0", version=7, tags=tags)
    return service(SimpleNamespace(get_model_version_download_uri=lambda *_: source), version)


def test_the_stock_runtime_is_as_the_template_that_ships_has_it():
    found = asked(STOCK)
    assert (found["runtime"], found["why"]) == ("huggingface", [])
    wanted = yaml.safe_load(TEMPLATE.read_text())
    wanted["metadata"]["name"] = "topics-2-0"
    wanted["metadata"]["annotations"]["tuneline/version"] = "Topics 2.0/7"
    model = wanted["spec"]["predictor"]["model"]
    model["storageUri"] = "s3://models/1/model-ab/data/model"
    model["args"][0] = "--model_name=topics-2-0"
    model["args"][-1] = "--max_model_len=48"
    assert found["manifest"] == wanted


def policy(folder: str) -> dict[str, Any]:
    """The network policy for MLflow of this folder of infra/."""
    documents = yaml.safe_load_all((TEMPLATE.parents[1] / folder / "network.yaml").read_text())
    return next(one["spec"] for one in documents if one["metadata"]["name"] == "mlflow")


def test_our_image_reaches_mlflow_through_the_network_policies_that_ship():
    labels = asked("abstention")["manifest"]["spec"]["predictor"]["labels"]
    assert policy("serving")["podSelector"]["matchLabels"] == labels
    (ingress,) = policy("base")["ingress"]
    let_in = {
        key: one["podSelector"]["matchLabels"]
        for one in ingress["from"]
        for key in one["namespaceSelector"]["matchLabels"]
    }
    namespace = yaml.safe_load((TEMPLATE.parent / "namespace.yaml").read_text())["metadata"]["labels"]
    assert namespace["tuneline/serving"] == "true"
    assert let_in["tuneline/serving"] == labels
    assert "labels" not in asked(STOCK)["manifest"]["spec"]["predictor"]


@pytest.mark.parametrize(
    ("serving", "source", "why"),
    [
        ("thresholds; abstention", "s3://b/m", ["thresholds; abstention"]),
        (None, "s3://b/m", ["it was registered before its decision was told"]),
        (STOCK, "mlflow-artifacts:/1/m", ["KServe does not fetch from where the artifacts lie"]),
    ],
)
def test_what_the_stock_runtime_cannot_do_is_served_by_our_image_and_the_stock_one_is_not_offered(
    monkeypatch, serving, source, why
):
    monkeypatch.setenv(IMAGE, "registry/tuneline-serving@sha256:ab")
    found = asked(serving, source)
    assert (found["runtime"], found["why"]) == ("tuneline", why)
    predictor = found["manifest"]["spec"]["predictor"]
    assert "model" not in predictor
    (container,) = predictor["containers"]
    assert container["image"] == "registry/tuneline-serving@sha256:ab"
    assert container["args"][0] == "Topics 2.0/7"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert predictor["securityContext"]["runAsNonRoot"]


def test_our_image_is_the_one_that_was_pushed_and_its_pod_ends_within_its_grace(monkeypatch, tmp_path):
    monkeypatch.delenv(IMAGE, raising=False)
    monkeypatch.setenv("TUNELINE_HOME", str(tmp_path))
    images.record("serving", digest := f"registry/ml/tuneline-serving@sha256:{'0' * 64}")
    (container,) = asked("abstention", "s3://b/m")["manifest"]["spec"]["predictor"]["containers"]
    assert container["image"] == digest
    told = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    assert float(told["--linger-seconds"]) >= 5  # a pod gets requests for some seconds after its end was decided
    assert float(told["--linger-seconds"]) + float(told["--drain-seconds"]) < 30  # then it is killed
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"


@pytest.mark.parametrize(("model", "name"), [("imdb", "imdb"), ("2 desks!", "model-2-desks"), ("X" * 99, "x" * 50)])
def test_a_name_is_one_that_kubernetes_takes(model, name):
    assert name_of(model) == name


def test_a_plain_decision_is_the_only_one_that_a_stock_server_can_take():
    plain = Decision(["a"], 8, "head", "pkg:x", "0")
    assert plain.beyond_stock() == []
    assert Decision(["a"], 8, "windows", "pkg:x", "0", abstain_below=0.5).beyond_stock() == [
        "abstention", "long texts by windows",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("normalizer", "lowers"),
    [
        ({"type": "BertNormalizer", "lowercase": True}, True),
        ({"type": "BertNormalizer", "lowercase": False}, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}, True),
        (None, False),
    ],
)
def test_a_stock_server_is_told_where_to_cut_and_to_leave_capitals_where_the_tokenizer_does(
    tmp_path, normalizer, lowers
):
    Decision(["a"], 48, "head", "pkg:x", "0").save(tmp_path)
    write_json(tmp_path / "tokenizer.json", {"normalizer": normalizer})
    wanted = "--return_probabilities --max_model_len=48"
    assert stock_arguments(tmp_path) == (wanted if lowers else f"{wanted} --disable_lower_case")
