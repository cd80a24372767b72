"""What a search draws from: the default space, what is tried first, values as their fields take them."""

from __future__ import annotations

import optuna
import pytest
import yaml

from tuneline.artifacts import PreparedData
from tuneline.config import Recipe
from tuneline.dimensions import BALANCE
from tuneline.recipe import validate
from tuneline.search import study as studies
from tuneline.search.engine import configured
from tuneline.search.space import Choices, Range, own, space_of, suggest, winner

pytestmark = pytest.mark.medium


@pytest.mark.parametrize(("spec", "expected"), [
    ("train.focal_gamma: {low: 0, high: 5}", Range(0, 5)),
    ("train.epochs: {low: 2.0, high: 8}", Range(2, 8, whole=True)),
    ("train.learning_rate: [1e-5, 5e-3]", Choices((1e-5, 5e-3))),
    ("train.batch_size: ['8', 16.0]", Choices((8, 16))),
    ("model.max_length: [12.0, 16]", Choices((12, 16))),
    ("train.tune: [all, head]", Choices(("all", "head"))),
    ("train.encoder_dropout: [true, false]", Choices((True, False))),
    ("balance: [none, focal]", Choices(("none", "focal"))),
])  # fmt: skip
def test_values_are_taken_as_their_field_takes_them_however_they_are_written(recipe, data, spec, expected):
    block = {"space": yaml.safe_load(f"{{{spec}}}")}
    chosen = validate(Recipe, recipe.model_dump(by_alias=True, mode="json") | {"sweep": block})
    space = space_of(chosen, data)
    (key,) = space
    assert repr(space[key]) == repr(expected)  # in which 2 and 2.0 differ
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), space) for _ in range(9)]
    for overrides in drawn:
        configured(chosen, overrides)
    if key == "train.focal_gamma":
        assert any(overrides[key] % 1 for overrides in drawn)
    if key == "train.learning_rate":
        assert own(space, chosen) == {key: 5e-3}


def test_the_default_space_surrounds_the_recipe_and_asks_for_balance_only_where_classes_are_unequal(recipe, data):
    space = space_of(recipe, data)
    assert space["train.learning_rate"] == Range(1e-3, 0.05, log=True, wider=True)
    assert space["train.epochs"] == Range(2, 8, whole=True)
    assert space["train.batch_size"] == Choices((8, 16, 32))
    assert space["train.tune"] == Choices(("all", "top_layers", "lora"))
    assert "balance" not in space
    manifest = PreparedData.load(data)
    manifest.class_counts["train"][0] //= 4
    manifest.save(data)
    assert space_of(recipe, data)["balance"] == Choices(
        ("none", "class_weights", "focal", "balanced_sampling", "logit_adjustment")
    )
    assert own(space, recipe) == {"train.learning_rate": 5e-3, "train.epochs": 4, "train.batch_size": 16,
                                  "train.tune": "all"}  # fmt: skip


def test_a_treatment_of_the_recipe_s_own_is_a_choice_and_is_tried_first(recipe, data):
    manifest = PreparedData.load(data)
    manifest.class_counts["train"][0] //= 4
    manifest.save(data)
    own_gamma = configured(recipe, {"train.focal_gamma": 1.5})
    space = space_of(own_gamma, data)
    study = optuna.create_study()
    studies.propose_first(study, space, own_gamma)
    first = suggest(study.ask(), space)
    assert configured(own_gamma, first).train == own_gamma.train
    assert winner(own_gamma, first)["train"]["focal_gamma"] == 1.5
    assert set(space["balance"].values) == {*BALANCE, first["balance"]}


@pytest.mark.parametrize("tune", ["all", "lora"])
@pytest.mark.parametrize("rate", [1e-5, 0.05, 0.06, 0.3, 0.9])
def test_the_recipe_s_learning_rate_stands_in_the_default_space_and_all_of_it_can_be_trained(recipe, data, tune, rate):
    high = configured(recipe, {"train.learning_rate": rate, "train.tune": tune})
    space = space_of(high, data)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    studies.propose_first(study, space, high)
    drawn = [suggest(study.ask(), space) for _ in range(40)]
    assert drawn[0]["train.learning_rate"] == rate
    for overrides in drawn:
        configured(high, overrides)


@pytest.mark.parametrize("tune", ["all", "lora"])
def test_each_way_of_tuning_is_tried_for_long_before_anything_is_drawn(recipe, data, tune):
    chosen = configured(recipe, {"train.tune": tune, "train.learning_rate": 5e-4 if tune == "all" else 5e-3})
    space, study = space_of(chosen, data), optuna.create_study()
    studies.propose_first(study, space, chosen)
    first = [suggest(study.ask(), space) for _ in range(4)]
    assert first[0] == {key: getattr(chosen.train, key.removeprefix("train.")) for key in space}
    tried = [(one["train.tune"], one["train.learning_rate"], one["train.epochs"]) for one in first[1:]]
    assert tried == [("top_layers", 1e-3, 8), ("lora", 1e-2, 8), ("all", 1e-3, 8)]
    assert {one["train.batch_size"] for one in first} == {chosen.train.batch_size}


@pytest.mark.parametrize(("block", "waiting"), [
    ({"sampler": "random"}, 1),
    ({"space": {"train.epochs": [1, 2], "train.learning_rate": {"low": 1e-3, "high": 1e-2}}}, 1),
    ({"space": {"train.epochs": {"low": 1, "high": 9}, "train.batch_size": [8, 16]}}, 2),
])  # fmt: skip
def test_nothing_but_the_recipe_is_tried_first_where_chance_or_a_list_decides(recipe, data, block, waiting):
    chosen = validate(Recipe, recipe.model_dump(by_alias=True, mode="json") | {"sweep": block})
    space, study = space_of(chosen, data), optuna.create_study()
    studies.propose_first(study, space, chosen)
    assert len(study.trials) == waiting
    studies.propose_first(study, space, chosen)
    assert len(study.trials) == waiting
    for _ in range(6):
        configured(chosen, suggest(study.ask(), space))


def test_what_tunes_few_parameters_gets_a_larger_learning_rate(recipe, data):
    space = space_of(recipe, data) | {
        "train.tune": Choices(("lora",)),
        "train.learning_rate": Range(0.01, 0.02, wider=True),
    }
    drawn = suggest(optuna.create_study().ask(), space)
    assert 0.1 <= drawn["train.learning_rate"] <= 0.2
    given = validate(Recipe, recipe.model_dump(by_alias=True) | {
        "sweep": {"space": {"train.learning_rate": {"low": 0.1, "high": 0.2}, "train.tune": ["lora"]}}})  # fmt: skip
    assert 0.1 <= suggest(optuna.create_study().ask(), space_of(given, data))["train.learning_rate"] <= 0.2


def test_the_winner_s_recipe_holds_what_won_and_no_defaults(recipe):
    tree = winner(recipe, {"train.epochs": 7, "balance": "focal", "model.max_length": 24})
    assert (tree["train"]["epochs"], tree["train"]["focal_gamma"], tree["model"]["max_length"]) == (7, 2.0, 24)
    assert "sweep" not in tree
    assert validate(Recipe, tree).data == recipe.data
