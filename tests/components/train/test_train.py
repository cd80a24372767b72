"""train as a whole: prepared data and a checkpoint in, a folder that holds data only out."""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from kfp import dsl
from safetensors.torch import load_file, save_file
from transformers import BertModel, GPT2Config, GPT2Model

from tests.components.conftest import QUICK, model_config, prepare_rows
from tests.components.test_calibration import temper
from tests.conftest import reviews
from tuneline.artifacts import Decision, PreparedData, read_json, read_split, sha256_file, write_json
from tuneline.calibration import fit_temperature
from tuneline.config import Distributed, ModelConfig, Recipe, TrainConfig
from tuneline.errors import InputError
from tuneline.evaluate.metrics import score
from tuneline.serve.model import Classifier
from tuneline.storage import CHECKPOINTS
from tuneline.tracking import KFP_RUN, step_run
from tuneline.train import processes
from tuneline.train.train import load_network, train, train_step

pytestmark = pytest.mark.medium

SHORT = TrainConfig(epochs=1, learning_rate=1e-3, batch_size=32)
OUTPUT = {"config.json", "model.safetensors", "tokenizer.json", "tuneline.json"}


class Heard:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, float], int]] = []

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self.told.append((values, step))


def losses(heard: Heard, kind: str) -> list[float]:
    """A curve that was recorded."""
    return [values[kind] for values, _ in heard.told if kind in values]


def altered(checkpoint: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with other values in its config.json."""
    shutil.copytree(checkpoint, folder)
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    return folder


@pytest.fixture
def gpt2(tmp_path, tiny_checkpoint):
    """A tiny decoder without a pad token, as a Hugging Face folder."""

    def make(end: int | list[int]) -> Path:
        folder = tmp_path / "gpt2"
        torch.manual_seed(0)
        vocabulary = read_json(tiny_checkpoint / "config.json")["vocab_size"]
        config = GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=1, n_head=2, n_positions=64, eos_token_id=3)
        GPT2Model(config).save_pretrained(folder)
        values = read_json(folder / "config.json") | {"bos_token_id": 2, "eos_token_id": end}
        write_json(folder / "config.json", {key: value for key, value in values.items() if key != "pad_token_id"})
        shutil.copyfile(tiny_checkpoint / "tokenizer.json", folder / "tokenizer.json")
        return folder

    return make


def test_a_model_folder_holds_configuration_weights_tokenizer_and_decision_only(trained, prepared, tiny_checkpoint):
    assert {path.name for path in trained.iterdir()} == OUTPUT
    manifest = PreparedData.load(prepared)
    assert replace(Decision.load(trained), temperature=1.0) == Decision(
        labels=["neg", "pos"], max_length=16, long_texts="head", base_model=str(tiny_checkpoint),
        data_sha256=manifest.sha256["all"],
    )  # fmt: skip
    config = read_json(trained / "config.json")
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert sha256_file(trained / "tokenizer.json") == sha256_file(tiny_checkpoint / "tokenizer.json")


def test_a_temperature_of_the_validation_split_is_in_the_weights_and_changes_no_answer(trained, prepared, tmp_path):
    temperature = Decision.load(trained).temperature
    shutil.copytree(trained, tmp_path / "before")
    weights = load_file(trained / "model.safetensors")
    output = {name: weights[name] * temperature for name in ("classifier.weight", "classifier.bias")}
    save_file(weights | output, tmp_path / "before" / "model.safetensors", {"format": "pt"})
    table = read_split(prepared, "validation")
    texts, labels = table.column("text").to_pylist(), table.column("label").to_numpy()
    before, after = (Classifier(model).predict_proba(texts) for model in (tmp_path / "before", trained))
    assert abs(temperature - 1) > 0.01
    assert fit_temperature(before, labels) == pytest.approx(temperature, rel=0.05)
    assert after == pytest.approx(temper(before, temperature), abs=1e-5)
    assert after.argmax(1).tolist() == before.argmax(1).tolist()
    assert score(labels, after)["log_loss"] <= score(labels, before)["log_loss"]


def test_weights_are_fp32_and_loadable_without_pickle(trained):
    weights = load_file(trained / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert weights["classifier.weight"].shape == (2, 32)


def test_the_checkpoints_own_weights_are_where_training_starts(tiny_checkpoint):
    network = load_network(str(tiny_checkpoint), ["neg", "pos"])
    for name, weight in BertModel.from_pretrained(tiny_checkpoint).named_parameters():
        assert torch.equal(network.get_parameter(f"bert.{name}"), weight)


def dropout(checkpoint: Path, inside: bool) -> tuple[dict[str, float], float]:
    """The dropout of each module of the encoder, and that before the classifier."""
    network = load_network(str(checkpoint), ["neg", "pos"], inside)
    shares = {name: part.p for name, part in network.named_modules() if isinstance(part, torch.nn.Dropout)}
    return shares, shares.pop("dropout")


@pytest.mark.parametrize(("changes", "before_the_classifier"), [({}, 0.1), ({"classifier_dropout": 0.3}, 0.3)])
def test_dropout_stands_before_the_classifier_only_unless_asked_for(
    tiny_checkpoint, tmp_path, changes, before_the_classifier
):
    shares, last = dropout(altered(tiny_checkpoint, tmp_path / "it", **changes), inside=False)
    assert last == before_the_classifier
    assert len(shares) > 4
    assert set(shares.values()) == {0.0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="attention keeps its dropout where there is a GPU")
def test_without_a_gpu_all_dropout_stays_but_that_of_attention(tiny_checkpoint):
    shares, last = dropout(tiny_checkpoint, inside=True)
    attention = {name: share for name, share in shares.items() if ".attention.self." in name}
    assert set(attention.values()) == {0.0}
    assert {last, *(share for name, share in shares.items() if name not in attention)} == {0.1}


def test_training_tells_every_step_and_epoch_and_learns(prepared, tiny_checkpoint, tmp_path):
    heard = Heard()
    metrics = train(prepared, model_config(tiny_checkpoint), QUICK, tmp_path / "model", heard)
    rows = PreparedData.load(prepared).rows["train"]
    steps = QUICK.epochs * -(-rows // QUICK.batch_size)
    assert [step for values, step in heard.told if "loss" in values] == list(range(1, steps + 1))
    ends = [(values, step) for values, step in heard.told if "validation_loss" in values]
    assert [step for _, step in ends] == list(range(1, QUICK.epochs + 1))
    assert metrics["validation_accuracy"] == ends[-1][0]["validation_accuracy"] >= 0.9


def test_the_same_seed_gives_the_same_file_and_another_seed_another(prepared, tiny_checkpoint, tmp_path):
    def weights(name: str, seed: int) -> str:
        settings = SHORT.model_copy(update={"seed": seed})
        train(prepared, model_config(tiny_checkpoint), settings, tmp_path / name)
        return sha256_file(tmp_path / name / "model.safetensors")

    first = weights("first", 0)
    assert weights("again", 0) == first
    assert weights("other", 1) != first


def test_the_seed_draws_the_classifiers_initial_weights(prepared, tiny_checkpoint, tmp_path):
    still = TrainConfig(epochs=1, learning_rate=1e-12, weight_decay=0.0, batch_size=64)
    heads = []
    for seed in (0, 1):
        train(prepared, model_config(tiny_checkpoint), still.model_copy(update={"seed": seed}), tmp_path / str(seed))
        heads.append(load_file(tmp_path / str(seed) / "model.safetensors")["classifier.weight"])
    assert (heads[0] - heads[1]).abs().max() > 1e-3


@pytest.mark.parametrize("end", [3, [3, 2]], ids=["one end token", "several end tokens"])
def test_a_decoder_without_a_pad_token_trains_and_predicts(gpt2, tmp_path, end):
    checkpoint = gpt2(end)
    data = prepare_rows(tmp_path, checkpoint, train=reviews(160))
    metrics = train(data, model_config(checkpoint), QUICK, tmp_path / "model")
    assert metrics["validation_accuracy"] >= 0.8
    assert {path.name for path in (tmp_path / "model").iterdir()} == OUTPUT | {"tokenizer_config.json"}
    assert read_json(tmp_path / "model" / "tokenizer_config.json") == {"pad_token": "[SEP]"}
    classifier, texts = Classifier(tmp_path / "model"), [text for text, _ in reviews(12, start=900)] + ["good"]
    together = classifier.predict_proba(texts)
    assert together == pytest.approx(classifier.predict_proba(texts, batch_size=1), abs=1e-5)


def test_a_checkpoint_that_is_a_classifier_of_other_labels_gets_a_fresh_head(trained, tiny_checkpoint, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(trained, checkpoint)
    rows = [(f"{text} {label}", label) for number, (text, _) in enumerate(reviews(90)) for label in ["abc"[number % 3]]]
    data = prepare_rows(tmp_path, checkpoint, train=rows)
    train(data, model_config(checkpoint), SHORT, tmp_path / "model")
    assert read_json(tmp_path / "model" / "config.json")["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert load_file(tmp_path / "model" / "model.safetensors")["classifier.weight"].shape == (3, 32)


def test_pickled_weights_are_refused(prepared, tiny_checkpoint, tmp_path):
    folder = altered(tiny_checkpoint, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \*\.safetensors there; pickled weights are not loaded, convert them"):
        train(prepared, model_config(folder), SHORT, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no-such-family"},
        {"model_type": "vit"},
        {
            "model_type": "own",
            "auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.M"},
        },
    ],
    ids=["unknown", "no text", "own code"],
)
def test_a_checkpoint_that_is_no_text_classifier_is_refused_and_its_code_not_run(tiny_checkpoint, tmp_path, changes):
    folder = altered(tiny_checkpoint, tmp_path / "strange", **changes)
    (folder / "evil.py").write_text("raise SystemExit('planted code ran')\n")
    with pytest.raises(InputError) as caught:
        load_network(str(folder), ["neg", "pos"])
    assert str(caught.value).startswith(f"model.name: {folder}: cannot be loaded as a text classifier: ")


def test_truncated_weights_are_refused_as_bad_input(tiny_checkpoint, tmp_path):
    folder = altered(tiny_checkpoint, tmp_path / "short")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="cannot be loaded as a text classifier"):
        load_network(str(folder), ["neg", "pos"])


@pytest.mark.parametrize("tune", ["all", pytest.param("top_layers", marks=pytest.mark.slow)])
def test_two_processes_give_the_curve_and_the_weights_of_one(tune, tiny_checkpoint, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv(CHECKPOINTS, str(tmp_path / "checkpoints"))  # those of one process, which two pass over
    checkpoint = altered(tiny_checkpoint, tmp_path / "no-dropout", hidden_dropout_prob=0.0)
    rows = reviews(80)
    data = prepare_rows(tmp_path, checkpoint, train=rows[:36], validation=rows[40:50], test=rows[50:60])
    spread = Distributed(gpus_per_node=2)
    # Shares of 4 and 3, at the end 1 and 0; in bf16 the processes' rows would be rounded differently.
    settings = TrainConfig(
        epochs=2, learning_rate=1e-3, batch_size=7, distributed=spread, precision="fp32", tune=tune, top_layers=1
    )
    alone, together = Heard(), Heard()
    train(data, model_config(checkpoint), settings, tmp_path / "one", alone)
    numbers = processes.fit(data, model_config(checkpoint), settings, tmp_path / "two", together)
    for kind in ("loss", "validation_loss"):
        assert losses(together, kind) == pytest.approx(losses(alone, kind), abs=1e-4)
    assert len(losses(together, "loss")) == 12
    assert numbers["validation_accuracy"] == losses(alone, "validation_accuracy")[-1]
    told = capfd.readouterr().out
    assert "[train] 12/12 steps | loss" in told
    assert "saved by fewer processes than train now" in told
    assert {path.name for path in (tmp_path / "two").iterdir()} == OUTPUT
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = load_network(str(checkpoint), ["neg", "pos"]).state_dict()
    moved = max((one[name] - start[name]).abs().max().item() for name in one if name.startswith("bert."))
    apart = max((one[name] - two[name]).abs().max().item() for name in one)
    assert apart < 1e-4 < 1e-3 < moved


@pytest.mark.slow
@pytest.mark.usefixtures("nohup")
def test_several_processes_under_nohup_survive_their_terminal(prepared, tiny_checkpoint, tmp_path):
    class Closing(Heard):
        def metrics(self, values, step=0):
            super().metrics(values, step)
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # towards the end one goes before the other
                    process.send_signal(signal.SIGHUP)
                    reached.add(process.pid)

    reached: set[int] = set()
    settings = TrainConfig(epochs=10, distributed=Distributed(gpus_per_node=2))
    processes.fit(prepared, model_config(tiny_checkpoint), settings, tmp_path / "model", Closing())
    assert len(reached) >= 3  # torchrun, and what it started
    assert {path.name for path in (tmp_path / "model").iterdir()} == OUTPUT


@pytest.mark.slow
def test_bad_input_that_several_processes_find_is_told_once(prepared, tmp_path):
    settings = TrainConfig(epochs=1, distributed=Distributed(gpus_per_node=2))
    with pytest.raises(InputError, match=r"^model\.name: \./none: no checkpoint there"):
        processes.fit(prepared, ModelConfig(name="./none"), settings, tmp_path / "model")


def test_a_wrong_command_line_is_told_how_to_start(capsys, monkeypatch):
    from tuneline.train.__main__ import main

    monkeypatch.setattr(sys, "argv", ["tuneline.train", "data"])
    assert main() == 2
    assert "torchrun --nproc-per-node 2 -m tuneline.train DATA OUT CONFIG.json" in capsys.readouterr().err


def test_a_wrong_configuration_is_told_in_one_line(capsys, monkeypatch, tmp_path):
    from tuneline.train.__main__ import main

    write_json(tmp_path / "config.json", {"train": {"epochs": 0}})
    monkeypatch.setattr(sys, "argv", ["tuneline.train", "data", "out", str(tmp_path / "config.json")])
    assert main() == 2
    assert capsys.readouterr().err.startswith("tuneline: error: train.epochs: 0 given; ")


def test_the_step_shows_and_records_its_numbers(store, prepared, tiny_checkpoint, tmp_path):
    recipe = Recipe.model_validate({"data": {"train": "a"}, "model": model_config(tiny_checkpoint), "train": SHORT})
    parameters = {key: value for key, value in recipe.flat().items() if key.startswith(("model_", "train_"))}
    out, shown = dsl.Model(uri=str(tmp_path / "model")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    train_step(dsl.Dataset(uri=str(prepared)), out, shown, **parameters)
    assert {path.name for path in (tmp_path / "model").iterdir()} == OUTPUT
    training = out.metadata.pop("training")
    assert len(training) == 24
    assert out.metadata == {"framework": "transformers", "base_model": str(tiny_checkpoint)}
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["train_batch_size"] == "32"
    assert run.data.metrics["train_seconds"] == shown.metadata["train_seconds"]
    assert run.data.metrics["validation_accuracy"] == shown.metadata["validation_accuracy"]
    steps = -(-PreparedData.load(prepared).rows["train"] // 32)
    assert [point.step for point in store.get_metric_history(run.info.run_id, "loss")] == list(range(1, steps + 1))
    assert len(run.inputs.dataset_inputs) == 3


def test_with_early_stopping_the_run_and_its_parent_show_the_epoch_that_was_kept(
    store, tiny_checkpoint, tmp_path, monkeypatch
):
    rows = reviews(120)
    wrong = [(text, "neg" if label == "pos" else "pos") for text, label in rows[80:]]  # worse with each epoch
    data = prepare_rows(tmp_path, tiny_checkpoint, train=rows[:80], validation=wrong)
    settings = TrainConfig(epochs=8, learning_rate=5e-3, batch_size=16, early_stopping=2)
    recipe = Recipe.model_validate({"data": {"train": "a"}, "model": model_config(tiny_checkpoint), "train": settings})
    parameters = {key: value for key, value in recipe.flat().items() if key.startswith(("model_", "train_"))}
    out, shown = dsl.Model(uri=str(tmp_path / "model")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    monkeypatch.setenv(KFP_RUN, "a-run")
    train_step(dsl.Dataset(uri=str(data)), out, shown, **parameters)
    with step_run("register", {}):  # the last step, which ends the parent
        pass
    runs = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    (child,) = [run for run in runs if run.data.tags.get("tuneline.step") == "train"]
    (parent,) = [run for run in runs if run.info.run_id == child.data.tags["mlflow.parentRunId"]]
    assert shown.metadata["train_best_epoch"] < 6
    for name in ("validation_loss", "validation_accuracy", "validation_macro_f1"):
        assert child.data.metrics[name] == parent.data.metrics[name] == shown.metadata[name]
