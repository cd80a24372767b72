"""Finds a recipe: a file, or the name of one that ships."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe


def shipped() -> dict[str, Path]:
    """The recipes that ship, by name."""
    folder = Path(str(resources.files("tuneline_pipelines"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def places(recipe: Recipe) -> dict[str, str]:
    """What a recipe reads, on this machine or elsewhere: configuration key -> path, pattern, URI or name."""
    data = {f"data.{key}": getattr(recipe.data, key) for key in ("train", "validation", "test", "corrections")}
    return {key: place for key, place in {**data, "model.name": recipe.model.name}.items() if place}


def load(recipe: str, overrides: list[str]) -> Recipe:
    """Read a recipe by file or by name, and apply overrides; an override in the recipe's place means the quickstart.

    Raises:
        InputError: no such recipe, or a key or value is refused.
    """
    if "=" in recipe and not recipe.endswith((".yaml", ".yml")):
        recipe, overrides = "quickstart", [recipe, *overrides]
    if recipe.endswith((".yaml", ".yml")):
        return load_recipe(Path(recipe), overrides)
    known = shipped()
    if recipe not in known:
        data = f"; data stands behind it: text data.train={recipe}" if Path(recipe).suffix else ""
        raise InputError(f"{recipe}: no such recipe; give a .yaml file or one of: {', '.join(known)}{data}")
    return load_recipe(known[recipe], overrides)
