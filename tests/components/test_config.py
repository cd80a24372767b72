"""The recipe: its defaults, what it refuses and how, and the road through flat pipeline parameters."""

from __future__ import annotations

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneline.config import (
    EMBEDDED_MODEL,
    SECTIONS,
    DataConfig,
    DecisionConfig,
    Distributed,
    ModelConfig,
    Recipe,
    RegisterConfig,
    Rules,
    Section,
    TrainConfig,
)
from tuneline.errors import InputError
from tuneline.recipe import from_flat, load_recipe, validate

DATA = DataConfig(train="a.csv")
FULL = Recipe(
    data=DataConfig(
        train="a.csv", validation="b.jsonl", test="hf://o/n:c?split=test", text_column="review", label_column="stars",
        validation_share=0.25, test_share=0.3, max_train=9, max_validation=8, max_test=7, seed=6,
    ),
    model=ModelConfig(name="./here", max_length=64, long_texts="tail"),
    train=TrainConfig(epochs=2, learning_rate=1e-3, batch_size=4, warmup_share=0.5, weight_decay=0.0, seed=2**32 - 1),
    register=RegisterConfig(name="desk 2.0", rules=Rules(min_accuracy=0.9, min_macro_f1=0.0, beats_baseline=False)),
)  # fmt: skip


def load(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, list(overrides))


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_recipe_of_one_key_gets_every_default(tmp_path):
    recipe = load(tmp_path, "data: {train: a.csv}")
    assert recipe == Recipe(data=DATA)
    assert recipe.model.name == EMBEDDED_MODEL
    assert (recipe.train.epochs, recipe.train.learning_rate, recipe.train.batch_size) == (3, 5e-5, 16)
    assert (recipe.data.validation_share, recipe.data.test_share, recipe.data.max_train) == (0.1, 0.2, 0)
    assert recipe.register_.rules == Rules(min_accuracy=None, min_macro_f1=None, beats_baseline=True)


def test_a_recipe_keeps_what_it_says(tmp_path):
    written = json.dumps(FULL.model_dump(by_alias=True))
    assert load(tmp_path, written) == FULL


def test_a_section_left_blank_takes_its_overrides(tmp_path):
    assert load(tmp_path, "data: {train: a.csv}\ntrain:\n", "train.epochs=1").train.epochs == 1


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("data.max_train=100", "data.max_train", 100),
        ("train.epochs=7", "train.epochs", 7),
        ("train.epochs=7.0", "train.epochs", 7),
        ("train.learning_rate=3e-4", "train.learning_rate", 3e-4),
        ("train.learning_rate=0.25", "train.learning_rate", 0.25),
        ("register.rules.min_accuracy=0.9", "register_.rules.min_accuracy", 0.9),
        ("register.rules.min_macro_f1=null", "register_.rules.min_macro_f1", None),
        ("register.rules.beats_baseline=false", "register_.rules.beats_baseline", False),
        ("data.train=folder/x=y.csv", "data.train", "folder/x=y.csv"),
    ],
)
def test_an_override_replaces_the_recipes_value(tmp_path, override, key, value):
    recipe = load(tmp_path, "data: {train: a.csv}\nregister: {rules: {min_macro_f1: 0.5}}", override)
    assert attrgetter(key)(recipe) == value


def test_the_last_override_of_a_key_wins(tmp_path):
    assert load(tmp_path, "data: {train: a.csv}", "train.epochs=1", "train.epochs=2").train.epochs == 2


@pytest.mark.parametrize(
    ("override", "key", "text"),
    [
        ("register.name=123", "register_.name", "123"),
        ("register.name=1e3", "register_.name", "1e3"),
        ("model.name=null", "model.name", "null"),
        ("data.train=007", "data.train", "007"),
        ("data.text_column=yes", "data.text_column", "yes"),
        ("data.label_column=[a]", "data.label_column", "[a]"),
        ("data.validation=", "data.validation", ""),
    ],
)
def test_an_override_of_a_text_key_stays_the_text_that_was_typed(tmp_path, override, key, text):
    recipe = load(tmp_path, "data: {train: a.csv, validation: b.csv}", override)
    assert attrgetter(key)(recipe) == text


@pytest.mark.parametrize(
    ("text", "overrides", "named"),
    [
        ("train: {epoch: 1}", [], ["train.epoch:", "unknown key", "did you mean epochs?", "allowed here: epochs, lea"]),
        ("", ["train.batchsize=8"], ["train.batchsize:", "did you mean batch_size?", "warmup_share"]),
        ("", ["trian.epochs=8"], ["trian:", "did you mean train?", "allowed here: data, model, train, register"]),
        ("register_: {}", [], ["register_:", "did you mean register?"]),
        ("", ["register.rules.min_acc=1"], ["register.rules.min_acc:", "did you mean min_accuracy?", "beats_baseline"]),
        ("", ["train.epochs.x=1"], ["train.epochs", "epochs"]),
        ("", ["zzz=1"], ["zzz:", "unknown key", "allowed here: data, model, train, register"]),
        ("", ["register.xyzzy=1"], ["register.xyzzy:", "unknown key; allowed here: name, rules"]),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_allowed_ones(tmp_path, text, overrides, named):
    message = refusal(tmp_path, f"data: {{train: a.csv}}\n{text}", *overrides)
    assert [part for part in named if part not in message] == []


def test_a_key_below_a_single_value_of_the_recipe_is_refused(tmp_path):
    message = refusal(tmp_path, "data: {train: a.csv}", "data.train.path=b.csv")
    assert "data.train.path: unknown key; train holds a single value" in message


@pytest.mark.parametrize(
    ("override", "given", "allowed"),
    [
        ("train.epochs=many", "'many'", "integer"),
        ("train.epochs=", "None", "integer"),
        ("train.epochs=1.5", "1.5", "integer"),
        ("train.epochs=[1]", "[1]", "integer"),
        ("train.epochs=true", "True", "must be a number, not true or false"),
        ("train.learning_rate=true", "True", "must be a number, not true or false"),
        ("train.warmup_share=false", "False", "must be a number, not true or false"),
        ("train.seed=false", "False", "must be a number, not true or false"),
        ("data.max_train=true", "True", "must be a number, not true or false"),
        ("model.max_length=true", "True", "must be a number, not true or false"),
        ("register.rules.min_accuracy=true", "True", "number"),
        ("register.rules.min_macro_f1=false", "False", "number"),
        ("train.learning_rate=fast", "'fast'", "number"),
        ("register.rules.beats_baseline=perhaps", "'perhaps'", "boolean"),
        ("train=3", "3", "dictionary"),
        ("register.rules=[]", "[]", "dictionary"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_key_and_what_is_allowed(tmp_path, override, given, allowed):
    message = refusal(tmp_path, "data: {train: a.csv}", override)
    assert message.startswith(f"{override.partition('=')[0]}: {given} given; ")
    assert allowed in message


@pytest.mark.parametrize(
    ("override", "given", "allowed"),
    [
        ("train.learning_rate=-1", "-1", "greater than 0"),
        ("train.learning_rate=0", "0", "greater than 0"),
        ("train.learning_rate=1", "1", "less than 1"),
        ("train.learning_rate=.nan", "nan", "finite number"),
        ("train.learning_rate=.inf", "inf", "finite number"),
        ("train.epochs=0", "0", "greater than or equal to 1"),
        ("train.epochs=1001", "1001", "less than or equal to 1000"),
        ("train.batch_size=0", "0", "greater than or equal to 1"),
        ("train.warmup_share=1", "1", "less than 1"),
        ("train.weight_decay=-0.1", "-0.1", "greater than or equal to 0"),
        ("train.seed=-1", "-1", "greater than or equal to 0"),
        ("train.seed=4294967296", "4294967296", "less than or equal to 4294967295"),
        ("train.tune=some", "'some'", "'all', 'top_layers', 'head', 'lora' or 'bitfit'"),
        ("train.lora_rank=0", "0", "greater than or equal to 1"),
        ("train.layer_decay=0", "0", "greater than 0"),
        ("train.layer_decay=1.1", "1.1", "less than or equal to 1"),
        ("train.early_stopping=-1", "-1", "greater than or equal to 0"),
        ("train.best_metric=f1", "'f1'", "'loss', 'accuracy' or 'macro_f1'"),
        ("train.price_per_hour=-1", "-1", "greater than or equal to 0"),
        ("train.sampling=even", "'even'", "'natural' or 'balanced'"),
        ("train.logit_adjustment=-1", "-1", "greater than or equal to 0"),
        ("train.top_layers=0", "0", "greater than or equal to 1"),
        ("train.label_smoothing=1", "1", "less than 1"),
        ("train.focal_gamma=-1", "-1", "greater than or equal to 0"),
        ("train.cache_gib=0", "0", "greater than 0"),
        ("train.decision.thresholds=f1", "'f1'", "'none', 'accuracy' or 'macro_f1'"),
        ("train.decision.abstain_below=1.5", "1.5", "less than or equal to 1"),
        ("train.distributed.nodes=0", "0", "greater than or equal to 1"),
        ("train.distributed.nodes=true", "True", "must be a number"),
        ("train.distributed.gpus_per_node=1.5", "1.5", "integer"),
        ("model.max_length=0", "0", "greater than or equal to 8"),
        ("model.long_texts=both", "'both'", "'head', 'tail'"),
        ("model.name=", "''", "at least 1 character"),
        ("data.train=", "''", "at least 1 character"),
        ("data.test_share=1.0", "1.0", "less than 1"),
        ("data.max_test=-1", "-1", "greater than or equal to 0"),
        ("register.name=a/b", "'a/b'", "match pattern"),
        ("register.name=", "''", "at least 1 character"),
        ("register.rules.min_accuracy=1.5", "1.5", "less than or equal to 1"),
    ],
)
def test_an_impossible_value_is_told_with_its_key_and_what_is_allowed(tmp_path, override, given, allowed):
    message = refusal(tmp_path, "data: {train: a.csv}", override)
    assert message.startswith(f"{override.partition('=')[0]}: {given} given; ")
    assert allowed in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.decision.costs={a: {b: -1}}", "train.decision.costs.a.b: -1 given; input should be greater than or eq"),
        ("train.decision.costs={a: 1}", "train.decision.costs.a: 1 given; input should be a valid dictionary"),
        ("train.decision={thresholds: accuracy, costs: {a: {b: 2}}}", "train.decision.thresholds: given beside train."),
        ("train.decision={abstain_below: 0.5, abstain_coverage: 1}", "train.decision.abstain_coverage: given beside t"),
        ("data.slice_columns=[a, a]", "data.slice_columns: ['a', 'a'] given; must name each column once"),
    ],
)
def test_a_decision_or_slices_that_contradict_themselves_are_told(tmp_path, override, told):
    assert refusal(tmp_path, "data: {train: a.csv}", override).startswith(told)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["pair_column=text"], "data.pair_column: 'text' given; must be a third column"),
        (["label_order=[a, b, a]"], "data.label_order: ['a', 'b', 'a'] given; names a label twice"),
        (
            ["test=b.csv", "test_from=2026-01-01"],
            "data.test_from: '2026-01-01' given beside data.test; leave one empty",
        ),
        (["test_from=2026-01-01"], "data.test_from: '2026-01-01' given; needs data.time_column"),
        (["time_column=at", "validation_from=soon"], "data.validation_from: 'soon' given; must be an ISO 8601 date"),
        (
            ["time_column=at", "validation_from=2026-02-01", "test_from=2026-01-01"],
            "data.test_from: '2026-01-01' given; must be after data.validation_from",
        ),
    ],
)
def test_columns_and_dates_that_contradict_each_other_are_told(tmp_path, more, told):
    message = refusal(tmp_path, "data: {train: a.csv}", *(f"data.{override}" for override in more))
    assert message.startswith(told)


def test_labels_that_yaml_reads_as_numbers_are_texts_in_costs(tmp_path):
    recipe = load(tmp_path, "data: {train: a.csv}", "train.decision.costs={0: {1: 5}}")
    assert recipe.train.decision.costs == {"0": {"1": 5.0}}
    kfp = json.loads(json.dumps(recipe.flat()["train_decision"]), parse_int=float)
    assert from_flat(TrainConfig, {"train_decision": kfp}).decision == recipe.train.decision


def test_the_recipes_own_values_are_refused_like_overrides(tmp_path):
    message = refusal(tmp_path, "data: {train: a.csv}\ntrain: {learning_rate: -1}")
    assert message == "train.learning_rate: -1 given; input should be greater than 0"


@pytest.mark.parametrize("key", ["data.train", "data.test", "data.corrections", "model.name"])
def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path, key):
    message = refusal(tmp_path, "data: {train: a.csv}", f"{key}=https://bob:hunter2@host/x.csv")
    assert message.startswith(f"{key}: 'https://host/x.csv' given; no user or password may stand in it")


def test_a_misspelt_key_is_told_before_the_one_that_it_leaves_lacking(tmp_path):
    message = refusal(tmp_path, "data: {trian: a.csv}")
    assert message.startswith("data.trian: unknown key; did you mean train? ")


def test_several_problems_are_counted(tmp_path):
    message = refusal(tmp_path, "data: {train: a.csv}\ntrain: {epochs: 0, batch_size: 0, seed: x}")
    assert message.startswith("train.epochs: 0 given;")
    assert message.endswith("(and 2 more)")


@pytest.mark.parametrize("text", ["data: {test: b.csv}", "data: {}", "train: {epochs: 1}", "{}"])
def test_a_recipe_without_training_data_names_the_key_to_set(tmp_path, text):
    message = refusal(tmp_path, text)
    assert message.startswith("data.train: not given, and required")
    assert "data.train=VALUE" in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2]", "holds list, not a mapping of sections"),
        ("just words", "holds str, not a mapping of sections"),
        ("", "is empty; sections are needed"),
        ("3", "holds int, not a mapping of sections"),
    ],
)
def test_a_recipe_that_is_no_mapping_is_refused_with_its_path_and_the_sections(tmp_path, text, told):
    message = refusal(tmp_path, text)
    assert message == f"{tmp_path / 'recipe.yaml'}: {told} (data, model, train, register, sweep)"


@pytest.mark.parametrize("content", [b"data: [", b"data: {train: caf\xe9.csv}", b"\tdata: 1", b"data: 2026-13-41"])
def test_a_recipe_that_is_no_yaml_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.yaml: not a YAML file: ") as caught:
        load_recipe(path, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: {train: a.csv}\ntrain:\n  epochs: 1\ntrain:\n  seed: 2\n", "line 4: 'train' stands in line 2 already"),
        ("data:\n  train: a.csv\n  train: b.csv\n", "line 3: 'train' stands in line 2 already"),
        ("data: {train: a.csv, train: b.csv}\n", "line 1: 'train' stands in line 1 already"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_and_not_the_last_taken(tmp_path, text, told):
    assert refusal(tmp_path, text).endswith(f"recipe.yaml: {told}; put both into one")


def test_a_section_whose_keys_are_all_commented_out_has_the_defaults(tmp_path):
    recipe = load(tmp_path, "data: {train: a.csv}\ntrain:\n  # epochs: 3\nregister:\n")
    assert (recipe.train, recipe.register_) == (TrainConfig(), RegisterConfig())


def test_what_is_nested_without_end_or_endlessly_long_is_one_short_line(tmp_path):
    aliases = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 7))
    for text in ("data: " + "[" * 3000, f"a0: &a0 x\n{aliases}data: {{train: *a6}}\n"):
        assert len(refusal(tmp_path, text)) < 1000


def test_labels_that_yaml_takes_for_truth_are_told_to_be_quoted(tmp_path):
    told = "data.label_order.0: True given; input should be a valid string; quote it"
    assert refusal(tmp_path, "data: {train: a.csv, label_order: [yes, no]}").startswith(told)


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_recipe_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read") as caught:
        load_recipe(tmp_path / name, [])
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("override", ["train.epochs", "=1", "", "train.epochs:1"])
def test_an_override_without_a_key_and_a_value_is_refused_with_an_example(tmp_path, override):
    message = refusal(tmp_path, "data: {train: a.csv}", override)
    assert message == f"{override!r}: not an override; write key.path=value, such as train.epochs=1"


@pytest.mark.parametrize("value", ["[1", "2026-13-41", "{a: b"])
def test_an_override_whose_value_is_no_yaml_is_told_with_its_key(tmp_path, value):
    message = refusal(tmp_path, "data: {train: a.csv}", f"train.epochs={value}")
    assert message == f"train.epochs: {value!r} given; not a YAML value"


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_survives_the_flat_parameters(name):
    flat = FULL.flat()
    section = from_flat(SECTIONS[name], flat)
    assert section == getattr(FULL, "register_" if name == "register" else name)
    assert [key for key in flat if key.startswith(f"{name}_")] == [
        f"{name}_{key}" for key in type(section).model_fields
    ]


def test_flat_parameters_come_in_the_order_of_the_schema():
    assert list(FULL.flat()) == [f"{name}_{key}" for name, section in SECTIONS.items() for key in section.model_fields]


def test_a_rule_that_is_not_asked_is_left_out_of_the_flat_parameters():
    assert Recipe(data=DATA).flat()["register_rules"] == {
        "beats_baseline": True, "champion": "not_worse", "margin": 0.01, "metric": "accuracy", "slices": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "parameters", "key", "value"),
    [
        (TrainConfig, {"train_epochs": 3.0}, "epochs", 3),
        (TrainConfig, {"train_seed": 4294967295.0}, "seed", 2**32 - 1),
        (ModelConfig, {"model_max_length": 64.0}, "max_length", 64),
        (DataConfig, {"data_train": "a.csv", "data_max_train": 0.0}, "max_train", 0),
    ],
)
def test_whole_floats_as_kfp_sends_them_become_integers(schema, parameters, key, value):
    given = getattr(from_flat(schema, parameters), key)
    assert given == value
    assert isinstance(given, int)


def test_from_flat_names_the_recipes_key_and_not_the_parameter():
    with pytest.raises(InputError, match=r"^train\.epochs: 3\.5 given; input should be a valid integer"):
        from_flat(TrainConfig, {"train_epochs": 3.5})
    with pytest.raises(InputError, match=r"^train\.epoch: unknown key; did you mean epochs\?"):
        from_flat(TrainConfig, {"train_epoch": 3, "data_nonsense": 1})


def test_validate_names_a_key_without_its_section_where_none_is_given():
    with pytest.raises(InputError, match=r"^epochs: 0 given"):
        validate(TrainConfig, {"epochs": 0})


def test_a_section_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        DATA.train = "b.csv"


def test_every_key_is_explained_in_a_sentence():
    def unexplained(schema: type[Section]) -> list[str]:
        return [name for name, field in schema.model_fields.items() if not (field.description or "").endswith(".")]

    assert [unexplained(schema) for schema in [*SECTIONS.values(), Rules, DecisionConfig]] == [[], [], [], [], [], []]


unit = st.floats(0, 1, exclude_max=True)
accepted: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 1000),
        "learning_rate": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "batch_size": st.integers(1, 2**40),
        "warmup_share": unit,
        "weight_decay": unit,
        "tune": st.just("all"),
        "seed": st.integers(0, 2**32 - 1),
    },
)


def test_machines_and_gpus_survive_json_that_knows_floats_only():
    flat = {"train_distributed": {"nodes": 2.0, "gpus_per_node": 4.0}}
    assert from_flat(TrainConfig, flat).distributed == Distributed(nodes=2, gpus_per_node=4)


@given(accepted)
def test_any_accepted_train_section_survives_flat_parameters_and_json_that_knows_floats_only(values):
    section = validate(TrainConfig, values, "train")
    flat = Recipe(data=DATA, train=section).flat()
    assert from_flat(TrainConfig, flat) == section
    assert from_flat(TrainConfig, json.loads(json.dumps(flat), parse_int=float)) == section


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["train.batch_size=7", "train.distributed.nodes=2", "train.distributed.gpus_per_node=4"],
            "train.batch_size: 7 given; at least 1 for each of the 8 processes of train.distributed",
        ),
        (
            ["register.name=topics.moves"],
            "register.name: 'topics.moves' given; names that end in .moves hold histories of models",
        ),
        (["data.label_column=text"], "data.label_column: 'text' given; must differ from data.text_column"),
        (["data.validation_share=0"], "data.validation_share: 0 given; must be above 0, or data.validation given"),
        (
            ["data.validation_share=0.5", "data.test_share=0.5"],
            "data.test_share: with data.validation_share it must be below 1, so that rows remain to train",
        ),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(tmp_path, overrides, told):
    assert refusal(tmp_path, "data: {train: a.csv}", *overrides) == told


def test_a_share_that_is_not_used_may_be_anything(tmp_path):
    recipe = load(tmp_path, "data: {train: a.csv, test: b.csv}", "data.test_share=0", "data.validation_share=0.9")
    assert recipe.data.validation_share == 0.9


def test_what_a_sweep_searches_is_no_parameter_of_the_pipeline():
    recipe = Recipe.model_validate({"data": DATA, "sweep": {"space": {"train.epochs": [1, 2]}}})
    assert recipe.flat() == Recipe(data=DATA).flat()


def test_a_range_in_yaml_s_own_notation_is_a_range(tmp_path):
    recipe = load(tmp_path, "data: {train: a}\nsweep: {space: {train.learning_rate: {low: 1e-5, high: 1e-4}}}")
    assert recipe.sweep.space["train.learning_rate"]["low"] == "1e-5"  # YAML 1.1 wants a dot; it is read as a number


def test_a_key_that_an_override_gives_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^data\.columns: line 1: 'a' stands in line 1 already; put both into one$"):
        load(tmp_path, "data: {train: a.csv}", "data.columns={a: 1, a: 2}")
