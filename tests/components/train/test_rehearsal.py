"""A training in miniature: every way to tune comes to its end, by the real loop, and leaves nothing elsewhere."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.components.conftest import model_config
from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import PaddedClassifier
from tuneline.train.forecast import Forecast
from tuneline.train.loop import Examples, batches_of
from tuneline.train.passes import passes
from tuneline.train.pick import Chosen, held_out, measured_shapes, miniature, until
from tuneline.train.rehearsal import Job, Notes, rehearse
from tuneline.train.train import train


@pytest.fixture
def run(prepared: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def of(limit_mb: float = 1e6, disk_mb: float = 1e6, **settings: Any) -> Forecast:
        chosen = TrainConfig(**settings)
        job = Job(prepared, tmp_path / "out", model_config(tiny_checkpoint), chosen, limit_mb, disk_mb, 0.5, True)
        job.out.mkdir()
        with (tmp_path / "facts").open("w") as stream:
            rehearse(job, Notes(stream))
        return Forecast([json.loads(line) for line in (tmp_path / "facts").read_text().splitlines()], chosen, 0.0)

    return of


@pytest.mark.parametrize("tune", ["all", "top_layers", "head", "lora", "bitfit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_way_to_tune_is_rehearsed_to_its_end(run, tmp_path, tune, precision):
    found = run(tune=tune, precision=precision, top_layers=1, early_stopping=1, price_per_hour=1)
    assert found.whole
    assert precision in found.last("start")["how"]
    seconds = found.seconds()
    assert all(seconds[part].expected > 0 for part in ("steps", "validation", "checkpoints"))
    assert (seconds["states"].expected > 0) == (tune in ("top_layers", "head"))
    assert found.memory is not None and found.memory.peak(found.memory.heaviest) > 0
    assert found.disk_mb()["checkpoints"] > 0
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "facts", "home"}


@pytest.mark.parametrize("more", [{"class_weights": True}, {"sampling": "balanced"}, {"logit_adjustment": 1.0}])
def test_what_balances_classes_is_rehearsed_too(run, more):
    assert run(**more).whole


def test_padded_rows_are_rehearsed_and_told_and_have_no_cache(run, monkeypatch):
    monkeypatch.setattr("tuneline.train.train.classifier_for", PaddedClassifier)
    found = run(tune="head")
    assert found.whole
    assert "padded" in found.last("start")["how"]
    assert found.last("states")["why"] == "rows that are padded have no cache"
    assert found.last("heaviest")["places"] >= found.last("heaviest")["tokens"]


def test_states_that_would_not_fit_the_disk_are_told_and_computed_at_every_step(run):
    found = run(tune="top_layers", top_layers=1, disk_mb=0.001)
    assert "exceed" in found.last("states")["why"]
    assert found.seconds()["states"].expected == 0


def test_it_stops_below_the_limit_and_says_how_far_it_came(run):
    found = run(limit_mb=1.0)
    assert not found.whole
    assert not found.all("step")
    assert len(found.all("pass")) == 2


def test_what_would_end_the_training_ends_the_rehearsal_with_the_same_words(run, tmp_path, prepared, tiny_checkpoint):
    with pytest.raises(InputError) as ours:
        run(tune="top_layers", top_layers=9)
    with pytest.raises(InputError) as real:
        train(prepared, model_config(tiny_checkpoint), TrainConfig(tune="top_layers", top_layers=9), tmp_path / "model")
    assert str(ours.value) == str(real.value)


LENGTHS = [3 + 7 * number % 50 for number in range(200)]
TRAIN = Examples([[1] * length for length in LENGTHS], [number % 2 for number in range(200)])


def test_the_heaviest_pass_of_all_batches_is_found():
    settings = TrainConfig(epochs=2, batch_size=8, pass_tokens=150)
    chosen = Chosen.of(TRAIN, settings, pads=False)
    every = [
        sum(LENGTHS[row] for row in part)
        for epoch in range(2) for batch in batches_of(TRAIN, settings, epoch) for part in passes(batch, LENGTHS, 150)
    ]  # fmt: skip
    assert sum(LENGTHS[row] for row in chosen.heaviest) == max(every)
    assert LENGTHS[chosen.shortest] == min(LENGTHS)
    assert chosen.mean == pytest.approx(sum(LENGTHS) / 25)
    assert chosen.shapes == {-(-tokens // 32) for tokens in every}


def test_the_batches_that_stand_for_all_have_their_mean_of_tokens():
    chosen = Chosen.of(TRAIN, TrainConfig(epochs=1, batch_size=4), pads=False)
    tokens = [sum(LENGTHS[row] for row in batch) for batch in chosen.batches]
    assert len(tokens) == 10
    assert sum(tokens) / 10 == pytest.approx(chosen.mean, rel=0.05)


def test_the_miniature_holds_the_chosen_rows_at_their_new_places():
    chosen = Chosen.of(TRAIN, TrainConfig(epochs=1, batch_size=4), pads=False)
    part, there = miniature(TRAIN, chosen)
    assert [[part.lengths[row] for row in batch] for batch in there.batches] == [
        [LENGTHS[row] for row in batch] for batch in chosen.batches
    ]
    assert [part.lengths[row] for row in there.heaviest] == [LENGTHS[row] for row in chosen.heaviest]
    assert part.lengths[there.shortest] == min(LENGTHS)


def test_validation_is_looked_at_with_a_batch_of_the_longest():
    parts = held_out(TRAIN, 4)
    assert sorted(parts["longest"].lengths) == sorted(LENGTHS)[-8:]
    assert len(parts["some"].lengths) == 200


def test_the_shapes_of_measuring_are_those_of_its_passes():
    short = Examples([[1] * length for length in (10, 10, 30, 30, 60)], [0] * 5)
    assert measured_shapes(short, TrainConfig(batch_size=1, pass_tokens=64)) == {1, 2}
    assert measured_shapes(short, TrainConfig(batch_size=8)) == {5}


def test_a_rung_takes_as_few_rows_as_reach_it():
    assert until([0, 1, 2], [5, 5, 5], False, 6) == [0, 1]
    assert until([0, 1, 2], [9, 2, 2], True, 18) == [0, 1]
    assert until([0, 1], [5, 5], False, 99) == [0, 1]
