"""The stand-in itself refuses what Kubeflow Pipelines refuses, and KFP's own client takes it for a server."""

from __future__ import annotations

from typing import Any

import kfp
import kfp_server_api
import pytest
from tests.pipelines.kfp_checks import RefusedError, arguments, pipeline_spec, strict
from tests.pipelines.kfp_server import KfpServer
from tests.pipelines.submitting import Session, refusal

from tuneline.config import Recipe


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"display_name": "a", "run_name": "b"}, "unknown field 'run_name' in V2beta1Run"),
        ({"display_name": 7}, "body.display_name: 7 is not a str"),
        ({"runtime_config": {"params": {}}}, "body.runtime_config: unknown field 'params'"),
        ({"state": "DONE"}, "body.state: 'DONE' is not a V2beta1RuntimeState"),
    ],
)
def test_the_stand_in_refuses_what_is_not_in_the_typed_models(body: Any, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        strict(body, "V2beta1Run")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_speed": 1}, "Unrecognized input parameter: train_speed"),
        ({"train_epochs": "3"}, "train_epochs requires NUMBER_INTEGER"),
        ({"train_epochs": True}, "train_epochs requires NUMBER_INTEGER"),
        ({"register_rules": "{}"}, "register_rules requires STRUCT"),
        ({"data_train": None}, "data_train requires STRING"),
    ],
)
def test_the_stand_in_refuses_arguments_that_the_pipeline_does_not_take(
    server: KfpServer, session: Session, recipe: Recipe, change: Any, told: str
) -> None:
    session.submit(recipe)
    (spec,) = server.specs.values()
    arguments(spec, recipe.flat())
    with pytest.raises(RefusedError, match=told):
        arguments(spec, {**recipe.flat(), **change})
    with pytest.raises(RefusedError, match="Missing required input parameter: data_train"):
        arguments(spec, {})


def test_kfp_s_own_client_takes_the_stand_in_for_a_server(server: KfpServer, session: Session, recipe: Recipe) -> None:
    started = session.submit(recipe)
    with pytest.warns(FutureWarning, match="This client only works with Kubeflow Pipeline v2"):
        client = kfp.Client(host=server.url)
    (version,) = server.versions.values()
    run = client.run_pipeline(
        server.runs[started.id].experiment_id, "by KFP's client", pipeline_id=version.pipeline_id,
        version_id=version.pipeline_version_id, params=recipe.flat(),
    )  # fmt: skip
    assert client.wait_for_run_completion(run.run_id, timeout=30, sleep_duration=0).state == "SUCCEEDED"
    assert [found.run_id for found in client.list_runs(sort_by="created_at desc").runs] == [run.run_id, started.id]
    with pytest.raises(kfp_server_api.ApiException, match="Unrecognized input parameter: speed"):
        client.run_pipeline(run.experiment_id, "x", pipeline_id=version.pipeline_id,
                            version_id=version.pipeline_version_id, params={"speed": 1})  # fmt: skip


@pytest.mark.parametrize("content", [b"{", b"hello: 1", b"root: {dagger: 1}", b"{}"])
def test_the_stand_in_refuses_what_is_no_pipeline(content: bytes) -> None:
    with pytest.raises(RefusedError, match="invalid pipeline spec"):
        pipeline_spec(content)


def test_an_experiment_that_is_gone_when_the_run_is_made_is_told(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    session.submit(recipe)
    (experiment,) = server.experiments.values()
    experiment.experiment_id = "00000000-0000-0000-0000-00000000dead"
    assert "Experiment 00000000-0000-0000-0000-00000000dead not found (404)" in refusal(session, recipe)
