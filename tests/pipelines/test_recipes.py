"""Every recipe that ships loads, and names a public data set or none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tuneline.config import EMBEDDED_MODEL
from tuneline.errors import InputError
from tuneline_pipelines.recipes import load, shipped


def test_the_recipes_that_the_readme_names_ship() -> None:
    assert set(shipped()) == {"quickstart", "text", "imdb", "ag_news", "sms_spam", "clinc150"}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_recipe_loads(name: str) -> None:
    recipe = load(name, ["data.train=mine.csv"] if name == "text" else [])
    assert recipe.register_.name == ("text-classifier" if name == "text" else name)


@pytest.mark.parametrize("name", ["imdb", "ag_news", "sms_spam", "clinc150"])
def test_the_article_s_recipes_name_hub_data_and_bert(name: str) -> None:
    recipe = load(name, [])
    assert recipe.data.train.startswith("hf://")
    assert recipe.model.name == "google-bert/bert-base-uncased"


def test_text_needs_no_more_than_a_file() -> None:
    recipe = load("text", ["data.train=mine.csv"])
    assert (recipe.data.text_column, recipe.data.label_column) == ("text", "label")
    assert recipe.model.name == EMBEDDED_MODEL
    with pytest.raises(InputError, match=r"data\.train: not given"):
        load("text", [])


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"no such recipe; .*quickstart"):
        load("imbd", [])


def test_a_recipe_of_one_s_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"data": {"train": "a.csv"}, "train": {"epochs": 2}}))
    assert load(str(path), ["train.epochs=5"]).train.epochs == 5
    with pytest.raises(InputError, match="cannot be read"):
        load(str(tmp_path / "other.yaml"), [])
