"""What the containers of `run --docker` are told of this machine, and what is refused before. No engine needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline.storage import CHECKPOINTS
from tuneline_pipelines.containers import CERTIFICATES, Containers, absolute, certificates, environment, mounted
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.state import State


def recipe_of(reviews_csv: Path, *overrides: str) -> Recipe:
    return load_recipe(shipped()["text"], [f"data.train={reviews_csv}", *overrides])


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("sqlite:///mlflow.db", "containers cannot share this machine's SQLite store"),
        ("http://127.0.0.1:5000", "127.0.0.1 is each container itself"),
    ],
)
def test_a_store_that_containers_cannot_reach_is_refused(
    tmp_path: Path, reviews_csv: Path, uri: str, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        Containers("bridge").prepared(recipe_of(reviews_csv), State(tmp_path, uri, None))


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that tells nothing of AWS, nor of certificates; gives a folder for its files."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name in CERTIFICATES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(CHECKPOINTS, str(tmp_path))
    return tmp_path


def test_containers_are_told_who_a_profile_is_and_get_no_file_of_it(
    nobody: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobody / "credentials").write_text("[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = hidden\n")
    (nobody / "config").write_text("[profile team]\nregion = eu-central-1\n")
    assert "AWS_ACCESS_KEY_ID" not in environment(recipe_of(reviews_csv))
    monkeypatch.setenv("AWS_PROFILE", "team")
    told = environment(recipe_of(reviews_csv))
    assert (told["AWS_ACCESS_KEY_ID"], told["AWS_SECRET_ACCESS_KEY"]) == ("AKIATEAM", "hidden")
    assert told["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} & set(told)


def test_the_default_profile_is_asked_only_where_something_lies_in_a_bucket(nobody: Path, reviews_csv: Path) -> None:
    (nobody / "credentials").write_text("[default]\naws_access_key_id = AKIAME\naws_secret_access_key = hidden\n")
    assert "AWS_ACCESS_KEY_ID" not in environment(recipe_of(reviews_csv))
    assert environment(recipe_of(reviews_csv, "model.name=s3://b/m"))["AWS_ACCESS_KEY_ID"] == "AKIAME"


def test_keys_of_the_environment_are_passed_as_they_are(
    nobody: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_PROFILE", "missing")  # boto3 would not ask for it either
    assert environment(recipe_of(reviews_csv))["AWS_ACCESS_KEY_ID"] == "AKIAENV"


def test_a_profile_that_does_not_exist_is_one_line(
    nobody: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(
        InputError, match=r"--docker: no keys for S3: The config profile \(missing\) could not be found"
    ):
        environment(recipe_of(reviews_csv))


def test_a_certificate_is_found_by_containers_where_it_is_here(
    nobody: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobody / "corporate.pem").write_text("")
    monkeypatch.chdir(nobody)
    monkeypatch.setenv("AWS_CA_BUNDLE", "corporate.pem")
    assert certificates() == {"AWS_CA_BUNDLE": str(nobody / "corporate.pem")}
    assert environment(recipe_of(reviews_csv))["AWS_CA_BUNDLE"] == str(nobody / "corporate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", "other.pem")
    with pytest.raises(InputError, match=r"--docker: SSL_CERT_FILE: .*/other\.pem: no such file"):
        environment(recipe_of(reviews_csv))


def test_a_pattern_and_corrections_are_where_a_container_looks_for_them(
    nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rows/2025/a.csv", "fixes.csv", "odd[1].csv"):
        (nobody / name).parent.mkdir(parents=True, exist_ok=True)
        (nobody / name).write_text("text,label\n")
    monkeypatch.chdir(nobody)
    more = ["data.corrections=fixes.csv", "data.test=odd[1].csv", "data.validation=s3://b/*.csv", "model.name=a/hub-id"]
    recipe = load_recipe(shipped()["text"], ["data.train=rows/*/?.csv", *more])
    assert mounted(recipe) == [f"{nobody}/{name}" for name in ("fixes.csv", "odd[1].csv", "rows")]
    told = absolute(recipe)
    assert told.data.train == f"{nobody}/rows/*/?.csv"
    assert (told.data.corrections, told.data.test) == (f"{nobody}/fixes.csv", f"{nobody}/odd[1].csv")
    assert (told.data.validation, told.model.name) == ("s3://b/*.csv", "a/hub-id")
