"""Training that is interrupted, however, ends with the weights of a training that was not."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.components.conftest import model_config, prepare_rows
from tests.components.train.killing import HARMS, SAVING, Course, harm, kill_often
from tests.components.train.test_loop import ignore, network, toy
from tests.components.train.test_train import Heard, altered, losses
from tests.conftest import reviews
from tuneline.artifacts import PreparedData, address
from tuneline.config import TrainConfig
from tuneline.packing import classifier_for
from tuneline.storage import CHECKPOINTS, LocalStore
from tuneline.train.checkpoints import KEEP, Checkpoints
from tuneline.train.group import Group
from tuneline.train.loop import train_loop
from tuneline.train.network import load_network
from tuneline.train.train import origin, train, training_key

pytestmark = pytest.mark.medium

SETTINGS = TrainConfig(epochs=3, batch_size=8, learning_rate=1e-3, checkpoint_minutes=0)
STEPS = 15  # 3 epochs of 5


class Stopped(Exception):  # noqa: N818 - it stands for a process that died
    """Raised in mid-training by a test."""


def fit(store: LocalStore | None, stop_after: int = 0, settings: TrainConfig = SETTINGS) -> dict[str, torch.Tensor]:
    """Weights after training on 40 texts; with dropout, so that the random generator matters."""
    torch.manual_seed(0)
    model = network(dropout=0.1)

    def on_step(step: int, _total: int, _facts: dict[str, float]) -> None:
        if step == stop_after:
            raise Stopped

    checkpoints = Checkpoints(store, Group(), settings.checkpoint_minutes * 60)
    train_loop(classifier_for(model), toy(40), toy(8), settings, on_step, ignore, checkpoints=checkpoints)
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """The weights of a training that nothing interrupts."""
    return fit(None)


@pytest.mark.parametrize("stop_after", [1, 2, 5, 6, 14, 15])
def test_training_goes_on_as_if_nothing_had_happened(stop_after, whole, tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(Stopped):
        fit(store, stop_after)
    assert same(fit(store), whole)


def test_a_training_that_ended_is_not_trained_further(whole, tmp_path):
    store = LocalStore(tmp_path)
    fit(store)
    assert same(fit(store, stop_after=STEPS), whole)  # no step is told, so that nothing stops it


def test_the_newest_two_states_are_kept(tmp_path):
    fit(LocalStore(tmp_path))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{step:09d}" for step in (STEPS - 1, STEPS)]
    assert KEEP == 2


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "position.json", "manifest.json"]
)
def test_a_harmed_file_is_noticed_and_the_older_state_used(file, how, whole, tmp_path, capsys):
    store = LocalStore(tmp_path)
    with pytest.raises(Stopped):
        fit(store, stop_after=8)
    harm(tmp_path / "step-000000007" / file, how)
    assert same(fit(store), whole)
    told = capsys.readouterr().out
    assert "passed over: step-000000007" in told
    assert "goes on from the checkpoint of step 6" in told


def test_training_starts_anew_where_every_state_is_harmed(whole, tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(Stopped):
        fit(store, stop_after=8)
    for folder in tmp_path.iterdir():
        (folder / "model.safetensors").write_bytes(b"")
    assert same(fit(store), whole)


def test_an_empty_newer_folder_is_passed_over(whole, tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(Stopped):
        fit(store, stop_after=8)
    (tmp_path / "step-000000009").mkdir()
    assert same(fit(store), whole)


def test_a_store_that_refuses_does_not_stop_training(whole, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder can be made here")
    assert same(fit(LocalStore(tmp_path / "file")), whole)
    assert "checkpoint of step 1 not saved: " in capsys.readouterr().out


class Agreed(Group):
    """One of several processes that all find the same."""

    def highest(self, value: int, device: torch.device) -> int:
        return value


@pytest.mark.parametrize("rank", [0, 1])
def test_a_state_of_fewer_processes_is_passed_over_by_each(tmp_path, rank):
    store = LocalStore(tmp_path)
    fit(store)
    model = network()
    found = Checkpoints(store, Agreed(rank, size=2), 0).resume(model, torch.optim.AdamW(model.parameters()))
    assert found.step == 0


def test_checkpoints_wait_for_their_time(tmp_path):
    fit(LocalStore(tmp_path), settings=SETTINGS.model_copy(update={"checkpoint_minutes": 60.0}))
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{STEPS:09d}"]  # the end, and nothing before it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_at_the_end_of_the_step_and_ends(number, whole, tmp_path):
    settings = SETTINGS.model_copy(update={"checkpoint_minutes": 60.0})
    store = LocalStore(tmp_path)
    model = network(dropout=0.1)
    before = signal.getsignal(number)

    def on_step(step: int, _total: int, _facts: dict[str, float]) -> None:
        if step == 4:
            signal.raise_signal(number)

    checkpoints = Checkpoints(store, Group(), 3600)
    with pytest.raises(SystemExit) as ended:
        train_loop(classifier_for(model), toy(40), toy(8), settings, on_step, ignore, checkpoints=checkpoints)
    assert ended.value.code == 128 + number
    assert store.names() == ["step-000000004"]
    assert signal.getsignal(number) == before


def test_without_a_store_a_signal_acts_at_once():
    with Checkpoints(None, Group(), 0).listening():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_address_depends_on_every_part_and_on_no_order():
    assert address(a=1, b=[2]) == address(b=[2], a=1)
    assert len({address(a=1), address(a=2), address(b=1), address(a=[1])}) == 4


def test_the_address_of_a_training_knows_its_course_and_not_how_often_it_is_saved(prepared, tiny_checkpoint):
    manifest = PreparedData.load(prepared)

    def key(**changes: Any) -> str:
        return training_key(manifest, model_config(tiny_checkpoint), TrainConfig(**changes))

    assert key() == key(checkpoint_minutes=1.0) == key(resume=False)
    assert {key(pass_tokens=64), key(cache=False), key(cache_gib=1.0), key(price_per_hour=2.0)} == {key()}
    assert len({key(), key(seed=1), key(learning_rate=1e-3), key(precision="fp32"), key(batch_size=8)}) == 5


def test_the_same_weights_with_another_configuration_are_another_origin(prepared, tiny_checkpoint, tmp_path):
    manifest = PreparedData.load(prepared)
    other = altered(tiny_checkpoint, tmp_path / "other", hidden_act="relu")
    again = altered(tiny_checkpoint, tmp_path / "again")
    first, second, third = (origin(manifest, model_config(at)) for at in (tiny_checkpoint, other, again))
    assert first["weights"] == second["weights"]
    assert first != second
    assert first == third


@pytest.mark.parametrize(
    "changes", [{"pass_tokens": 16}, {"cache": False}, {"cache_gib": 8.0}, {"price_per_hour": 2.0}], ids=str
)
def test_what_changes_no_result_may_change_while_a_training_is_stopped(changes, tiny_checkpoint, tmp_path, monkeypatch):
    still = altered(tiny_checkpoint, tmp_path / "still", hidden_dropout_prob=0.0)  # each pass draws its own dropout
    data = prepare_rows(tmp_path, still, train=reviews(80))
    settings = TrainConfig(
        epochs=3, batch_size=8, learning_rate=1e-3, checkpoint_minutes=0, precision="fp32", tune="top_layers",
        top_layers=1,
    )  # fmt: skip

    class Stopping(Heard):
        def metrics(self, values: dict[str, float], step: int = 0) -> None:
            super().metrics(values, step)
            if "loss" in values and step == 10:
                raise Stopped

    whole, first, rest = Heard(), Stopping(), Heard()
    train(data, model_config(still), settings, tmp_path / "whole", whole)
    monkeypatch.setenv(CHECKPOINTS, str(tmp_path / "checkpoints"))
    with pytest.raises(Stopped):
        train(data, model_config(still), settings, tmp_path / "parts", first)
    train(data, model_config(still), settings.model_copy(update=changes), tmp_path / "parts", rest)
    assert losses(whole, "loss") == pytest.approx([*losses(first, "loss")[:-1], *losses(rest, "loss")], abs=1e-4)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, weight in one.items():
        if "key.bias" not in name:  # its true gradient is zero, so that AdamW follows rounding alone
            torch.testing.assert_close(other[name], weight, atol=1e-4, rtol=1e-4, msg=name)


def test_killed_at_ten_random_moments_training_ends_with_the_same_file(tiny_checkpoint, tmp_path):
    data = prepare_rows(tmp_path, tiny_checkpoint, train=reviews(120))
    settings = TrainConfig(epochs=40, batch_size=8, learning_rate=1e-3, checkpoint_minutes=0)
    course = Course(data, model_config(tiny_checkpoint), settings, tmp_path / "checkpoints", tmp_path / "killed")
    found = kill_often(course, 10, random.Random(0))
    assert found[SAVING] > 0
    assert course.finish() == course.apart().finish()


def test_a_process_that_reads_another_checkpoint_than_the_others_ends_instead_of_waiting_for_them(tiny_checkpoint):
    class Apart(Group):
        def highest(self, value: int, device: torch.device) -> int:
            return max(value, 5)  # somebody goes on from step 5

    classifier = load_network(str(tiny_checkpoint), ["neg", "pos"])
    with pytest.raises(RuntimeError, match="this process goes on from step 0 and another does not"):
        Checkpoints(None, Apart(0, 2), 0).resume(classifier, torch.optim.AdamW(classifier.parameters()))
