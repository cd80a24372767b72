"""A recipe of reviews that the tiny checkpoint learns in a second, its prepared data, and an engine on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.components.conftest import QUICK, write_csv
from tests.conftest import reviews
from tuneline.config import Recipe
from tuneline.recipe import validate


@pytest.fixture
def recipe(tiny_checkpoint: Path, tmp_path: Path) -> Recipe:
    """The recipe."""
    rows = write_csv(tmp_path / "rows.csv", reviews(300))
    tree: dict[str, Any] = {
        "data": {"train": str(rows), "validation_share": 0.3},
        "model": {"name": str(tiny_checkpoint), "max_length": 16},
        "train": QUICK.model_dump(),
        "register": {"name": "reviews"},
    }
    return validate(Recipe, tree)


@pytest.fixture
def overwritten(recipe: Recipe, tmp_path: Path) -> tuple[Recipe, Callable[[], None]]:
    """The recipe with a checkpoint of its own, and what puts other weights under that checkpoint's name."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "checkpoint"
    shutil.copytree(recipe.model.name, folder)

    def overwrite() -> None:
        weights = load_file(folder / "model.safetensors")
        save_file(
            {name: torch.rand_like(weight) for name, weight in weights.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )

    model = recipe.model.model_copy(update={"name": str(folder)})
    return recipe.model_copy(update={"model": model}), overwrite


@pytest.fixture
def data(recipe: Recipe, tmp_path: Path) -> Path:
    """Its data, as trials get them."""
    from tuneline.search.data import prepared

    return prepared(recipe.data, recipe.model, tmp_path / "search" / "data", "")


@pytest.fixture
def engine(recipe: Recipe, store: Any, tmp_path: Path) -> Any:
    """Trains on them, in a run of its own."""
    from tuneline.search.engine import Engine
    from tuneline.search.record import SearchRun

    del store
    run = SearchRun.open("sweep", recipe, {}, (tmp_path / "artifacts").as_uri(), "owner")
    return Engine(tmp_path / "search" / "one", run)


@pytest.fixture
def sweep(recipe: Recipe, data: Path, engine: Any, tmp_path: Path) -> Any:
    """Makes a command's part in a study, over the recipe with this `sweep:` block."""
    from tuneline.search import study as studies
    from tuneline.search.budget import Budget
    from tuneline.search.data import prepared
    from tuneline.search.space import readings, space_of
    from tuneline.search.sweep import Sweep, reading

    def make(block: dict[str, Any], budget: str, owner: str = "here/1@1", lives=lambda _: True) -> Any:
        tree = recipe.model_dump(by_alias=True, mode="json") | {"sweep": block}
        chosen = validate(Recipe, tree)
        space = space_of(chosen, data)
        where = {reading(one): prepared(one.data, one.model, tmp_path / "search" / "data", "")
                 for one in readings(space, chosen)}  # fmt: skip
        found, _ = studies.open_study(f"sqlite:///{tmp_path / 'studies.db'}", "study", chosen, space)
        heard: list[str] = []
        made: Any = Sweep(chosen, space, where, Budget.parse(budget), engine, found,
                          lambda *line: heard.append(line[3]), owner, lives)  # fmt: skip
        made.heard = heard
        return made

    return make
