"""What a server, a profile or a recipe makes impossible: one line that tells what to do, without a credential."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.kfp_server import Fault, KfpServer
from tests.pipelines.submitting import TOKEN, Session, profile_of, refusal

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import Profile, load_profile
from tuneline_pipelines.submit import submit
from tuneline_pipelines.wire import RemoteError


def test_a_wrong_bearer_token_is_one_line_that_names_where_it_comes_from(
    server: KfpServer, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "another"
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    session = Session(server, tmp_path, auth={"token_env": "KFP_TOKEN"})
    told = refusal(session, recipe)
    assert told == (
        f"Kubeflow Pipelines at {server.url}: asks for a login (401); profile.server.auth: "
        f"$KFP_TOKEN is expired or wrong; renew it"
    )
    assert session.waited == []


def test_a_server_that_repeats_the_token_does_not_make_us_do_so(
    server: KfpServer, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    body = json.dumps({"message": f"token {TOKEN} may not create"})
    server.faults = [Fault("POST", ".*/runs", 403, body=body)]
    told = refusal(Session(server, tmp_path, auth={"token_env": "KFP_TOKEN"}), recipe)
    assert told.endswith("not allowed: token *** may not create")


def test_a_mounted_token_is_read_anew_for_every_request(server: KfpServer, tmp_path: Path, recipe: Recipe) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    server.token = "first"
    session = Session(server, tmp_path, auth={"token_file": str(file)})
    started = session.submit(recipe)
    server.token = "second"
    file.write_text("second\n")
    assert session.remote.run(started.id).run_id == started.id
    file.unlink()
    with pytest.raises(InputError, match=r"auth\.token_file: .*token: cannot be read"):
        session.remote.run(started.id)


def test_a_session_cookie_logs_in_and_a_redirect_to_the_login_means_that_it_expired(
    server: KfpServer, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cookie = "oauth2_proxy_kubeflow=abc"
    monkeypatch.setenv("KFP_COOKIE", "oauth2_proxy_kubeflow=abc")
    Session(server, tmp_path, auth={"cookie_env": "KFP_COOKIE"}).submit(recipe)
    monkeypatch.setenv("KFP_COOKIE", f"oauth2_proxy_kubeflow={TOKEN}")
    told = refusal(Session(server, tmp_path, auth={"cookie_env": "KFP_COOKIE"}), recipe)
    assert "asks for a login (302); profile.server.auth: $KFP_COOKIE is expired or wrong; renew it" in told
    assert "name a token or a cookie there" in refusal(Session(server, tmp_path), recipe)


@pytest.mark.parametrize(
    ("auth", "value", "told"),
    [
        ({"token_env": "KFP_TOKEN"}, None, "auth.token_env: $KFP_TOKEN is empty"),
        ({"token_env": "KFP_TOKEN"}, f"a\n{TOKEN}", "auth.token_env: $KFP_TOKEN does not hold a bearer token in one"),
        ({"cookie_env": "KFP_TOKEN"}, TOKEN, "auth.cookie_env: $KFP_TOKEN does not hold a cookie written NAME=VALUE"),
        ({"token_file": "/nowhere/token"}, None, "auth.token_file: /nowhere/token: cannot be read"),
    ],
)
def test_a_credential_that_is_none_is_refused_before_anything_is_sent(
    server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: Any, value: str | None, told: str
) -> None:
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    if value:
        monkeypatch.setenv("KFP_TOKEN", value)
    with pytest.raises(InputError) as caught:
        Session(server, tmp_path, auth=auth)
    assert told in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert server.calls == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"endpoint": "https://me:hunter2@kfp"}, "profile.server.endpoint: carries a user, a password, a query"),
        ({"endpoint": "kfp:8888"}, "profile.server.endpoint: not a URL; write http(s)://HOST"),
        ({"ui": "https://kfp?token=hunter2"}, "profile.server.ui: carries a user, a password, a query"),
        ({"pipeline_root": "s3://key:hunter2@bucket"}, "profile.server.pipeline_root: 's3://bucket' given"),
        ({"auth": {"token_env": "A", "cookie_env": "B"}}, "profile.server.auth.token_env: given beside another"),
        ({"auth": {"token": "hunter2"}}, "profile.server.auth.token: unknown key; did you mean token_"),
        ({"pipeline_root": "/mnt/x"}, "profile.server.pipeline_root: '/mnt/x' given"),
        ({"namespace": "Team A"}, "profile.server.namespace: 'Team A' given"),
    ],
)
def test_a_server_section_that_cannot_work_is_refused_and_no_secret_repeated(
    server: KfpServer, tmp_path: Path, keys: Any, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_profile(profile_of(server, tmp_path, **keys))
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_page_in_the_api_s_place_is_told(server: KfpServer, session: Session, recipe: Recipe) -> None:
    server.faults = [Fault("GET", ".*/healthz", 200, body="<!doctype html><title>Kubeflow</title>")]
    assert "something else than its API answers there; is profile.server.endpoint right?" in refusal(session, recipe)


def test_json_of_another_form_is_told(server: KfpServer, session: Session, recipe: Recipe) -> None:
    server.faults = [Fault("GET", ".*/experiments", 200, body='{"experiments": 7}')]
    with pytest.raises(Exception) as caught:
        session.submit(recipe)
    assert isinstance(caught.value, RemoteError | TypeError)


def test_what_the_server_refuses_is_told_in_its_words_and_not_tried_again(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    body = json.dumps({"message": "quota of\nteam exceeded"})
    server.faults = [Fault("POST", ".*/runs", 400, body=body)]
    assert refusal(session, recipe).endswith("quota of team exceeded (400)")
    assert session.waited == []


def test_an_archived_experiment_is_told(server: KfpServer, session: Session, recipe: Recipe) -> None:
    session.submit(recipe)
    next(iter(server.experiments.values())).storage_state = "ARCHIVED"
    assert "the experiment 'topics' is archived; restore it there" in refusal(session, recipe)


def test_nothing_listening_is_told_with_the_endpoint(tmp_path: Path, recipe: Recipe) -> None:
    gone = KfpServer()
    gone.close()
    session = Session(gone, tmp_path)
    told = refusal(session, recipe)
    assert told == f"Kubeflow Pipelines at {gone.url}: no answer (NewConnectionError), 7 times; try again later"


def test_the_environment_s_proxy_is_heeded(server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:hunter2@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    session = Session(server, tmp_path, endpoint="http://kfp.invalid/pipeline")
    with pytest.raises(RemoteError, match="Not Found"):
        session.remote.health()
    assert (server.calls[0].path, server.calls[0].headers["host"]) == ("/pipeline/apis/v2beta1/healthz", "kfp.invalid")
    assert server.calls[0].headers["proxy-authorization"] == "Basic bWU6aHVudGVyMg=="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Session(server, tmp_path).remote.health()["multi_user"] is False
    assert "proxy-authorization" not in server.calls[1].headers


def test_tls_that_is_not_trusted_is_told_at_once(server: KfpServer, tmp_path: Path, recipe: Recipe) -> None:
    session = Session(server, tmp_path, endpoint=server.url.replace("http:", "https:"))
    told = refusal(session, recipe)
    assert "no safe connection (SSLError" in told
    assert session.waited == []


@pytest.mark.parametrize(
    "override", ["data.train=my.csv", "model.name=./here", "data.test=data/*.parquet", "data.corrections=x.csv"]
)
def test_a_path_that_only_this_machine_sees_is_refused_before_anything_is_sent(
    server: KfpServer, session: Session, override: str
) -> None:
    recipe = load_recipe(shipped()["quickstart"], [override])
    with pytest.raises(InputError, match=f"{override.partition('=')[0]}: .* is a path on this machine"):
        session.submit(recipe)
    assert server.calls == []


def test_an_absolute_path_is_taken_and_told_where_no_volume_brings_it(
    server: KfpServer, session: Session, tmp_path: Path
) -> None:
    recipe = load_recipe(shipped()["quickstart"], ["data.train=/data/train.csv"])
    mounted = {"steps": {"prepare": {"volumes": [{"claim": "data", "mount_path": "/data"}]}}}
    server_key = {"server": {"endpoint": server.url}}
    notes = submit(recipe, Profile.model_validate(server_key), session.remote)[1]
    assert "data.train: /data/train.csv is on no volume that the profile mounts for prepare" in notes
    notes = submit(recipe, Profile.model_validate({**server_key, **mounted}), session.remote)[1]
    assert not any("no volume" in note for note in notes)
