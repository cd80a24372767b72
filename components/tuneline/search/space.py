"""What a sweep searches: the recipe's `sweep.space`, or defaults around the recipe's own values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import checkpoint
from tuneline.artifacts import PreparedData, address, read_split
from tuneline.config import SECTIONS, ModelConfig, Recipe
from tuneline.dimensions import BALANCE, number, taken
from tuneline.errors import InputError
from tuneline.search.engine import configured, spelled_out

if TYPE_CHECKING:
    from optuna import Trial

LARGER_RATES = ("head", "lora", "bitfit")
"""What tunes few parameters wants a larger learning rate: ten times that of all."""
QUICKEST = ("head", "top_layers", "bitfit", "lora", "all")
"""Ways of tuning, by how long a step of each takes."""
UNEQUAL = 3.0
"""Rows of the largest class for one of the smallest from which on the treatment of unequal classes is searched."""
RATE, TUNE = "train.learning_rate", "train.tune"
USUAL_RATE, MOST_RATE = 0.05, 0.999
"""How high a learning rate is looked for where the recipe's is lower; and at all: train.learning_rate is below 1."""
AS_IN_RECIPE = "as_in_recipe"
"""A choice of `balance`: a treatment of the recipe's own, such as train.focal_gamma 1.5, that has no name."""


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two ends.

    Attributes:
        low, high: the ends.
        log: whether its logarithm is drawn evenly.
        whole: whether it is a whole number.
        wider: whether it is ten times as high for what tunes few parameters.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    wider: bool = False


Space = dict[str, Choices | Range]


def space_of(recipe: Recipe, data: Path) -> Space:
    """The search space.

    Args:
        recipe: whose sweep.space, or whose values the defaults surround.
        data: its prepared data, whose lengths and classes decide what defaults make sense.
    """
    if recipe.sweep.space:
        return space_given(recipe)
    train = recipe.train
    modes = dict.fromkeys([train.tune, "all", "top_layers", "lora"])
    space: Space = {
        TUNE: Choices(tuple(modes)),
        RATE: Range(
            min(train.learning_rate / 5, USUAL_RATE),
            max(min(train.learning_rate * 10, USUAL_RATE), train.learning_rate), log=True, wider=True,
        ),
        "train.epochs": Range(max(1, train.epochs // 2), 2 * train.epochs, whole=True),
        "train.batch_size": Choices((max(1, train.batch_size // 2), train.batch_size, 2 * train.batch_size)),
    }  # fmt: skip
    if train.tune in LARGER_RATES:  # the recipe's rate is one for few parameters already
        most = max(min(train.learning_rate, USUAL_RATE), train.learning_rate / 5)
        space[RATE] = Range(train.learning_rate / 50, most, log=True, wider=True)
    counts = [count for count in PreparedData.load(data).class_counts["train"] if count]
    if max(counts) >= UNEQUAL * min(counts):
        named = _balance(recipe.model_dump(by_alias=True, mode="json"))
        space["balance"] = Choices(tuple(BALANCE) if named else (AS_IN_RECIPE, *BALANCE))
    if len(lengths := _lengths(recipe.model, data)) > 1:
        space["model.max_length"] = Choices(tuple(lengths))
    return space


def space_given(recipe: Recipe) -> Space:
    """What the recipe's sweep.space says; nothing where it leaves that to the defaults."""
    return {key: _given(key, spec) for key, spec in recipe.sweep.space.items()}


def _given(key: str, spec: Any) -> Choices | Range:
    kind = _kind(key)
    if isinstance(spec, list):
        return Choices(tuple(taken(value, kind) for value in spec))
    low, high = taken(number(spec["low"]), kind), taken(number(spec["high"]), kind)
    return Range(low, high, bool(spec.get("log")), whole=kind is not float)


def _kind(key: str) -> Any:
    """The annotation of a key's field; None of `balance`, which is none."""
    section, _, name = key.partition(".")
    return SECTIONS[section].model_fields[name].annotation if name else None


def _lengths(model: ModelConfig, data: Path) -> list[int]:
    """Maximal lengths worth a try: half of the recipe's where that cuts few texts, twice where many are cut now."""
    import numpy as np

    manifest, table = PreparedData.load(data), read_split(data, "train")
    longer = float(np.mean([len(row) > model.max_length // 2 for row in table.column("input_ids").to_pylist()]))
    found = [model.max_length]
    if model.long_texts != "windows" and model.max_length >= 32 and 0.02 < longer <= 0.25:
        found.insert(0, model.max_length // 2)
    if manifest.truncated["train"] > 0.1 * manifest.rows["train"] and _takes(model, 2 * model.max_length):
        found.append(2 * model.max_length)
    return found


def _takes(model: ModelConfig, length: int) -> bool:
    folder = checkpoint.resolve(model.name, weights=False)
    try:
        checkpoint.check_max_length(model.name, checkpoint.read_config(folder), length)
    except InputError:
        return False
    return True


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """The overrides that a trial of Optuna draws."""
    found: dict[str, Any] = {}
    for key in sorted(space, key=lambda key: key != TUNE):  # the learning rate depends on it
        found[key] = _draw(trial, key, space[key], found.get(TUNE))
    return {key: found[key] for key in space}


def _draw(trial: Trial, key: str, dimension: Choices | Range, tune: str | None) -> Any:
    if isinstance(dimension, Choices):
        return trial.suggest_categorical(key, list(dimension.values))
    if dimension.whole:
        return trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.log)
    name, low, high = _ends(key, dimension, tune)
    return float(f"{trial.suggest_float(name, low, high, log=dimension.log):.3g}")


def _ends(key: str, dimension: Range, tune: str | None) -> tuple[str, float, float]:
    """The parameter's name and its ends.

    A range that is wider for some is another parameter to the search: what it learns of one says nothing of it.
    """
    if dimension.wider and tune in LARGER_RATES:
        return f"{key} of few", 10 * dimension.low, min(10 * dimension.high, MOST_RATE)
    return key, dimension.low, dimension.high


def own(space: Space, recipe: Recipe) -> dict[str, Any]:
    """The recipe's own values as a trial's parameters, where the space holds them."""
    return _parameters(space, _values(space, recipe), recipe.train.tune)


def starts(space: Space, recipe: Recipe) -> list[dict[str, Any]]:
    """What is tried after the recipe's own values and before anything is drawn, as trials' parameters.

    Each way of tuning, the quickest first, for the most epochs and at twice the rate: where a recipe falls short it
    mostly trained too little, and a few trials drawn by chance seldom come on a way of tuning at its best. The rate is
    the nearest one that the space holds; none of it where the space has no range of epochs.
    """
    train, epochs, modes = recipe.train, space.get("train.epochs"), space.get(TUNE)
    if not isinstance(epochs, Range):
        return []
    base = train.learning_rate / (10 if train.tune in LARGER_RATES else 1)
    allowed = modes.values if isinstance(modes, Choices) else (train.tune,)
    values, found = _values(space, recipe), []
    for tune in sorted(allowed, key=QUICKEST.index):
        changed = {TUNE: tune, RATE: 2 * base * (10 if tune in LARGER_RATES else 1), "train.epochs": int(epochs.high)}
        if isinstance(rates := space.get(RATE), Range):
            _, low, high = _ends(RATE, rates, tune)
            changed[RATE] = min(max(changed[RATE], low), high)
        found.append(_parameters(space, values | changed, tune))
    return found


def _values(space: Space, recipe: Recipe) -> dict[str, Any]:
    """The recipe's own value of each key of the space."""
    tree, found = recipe.model_dump(by_alias=True, mode="json"), dict[str, Any]()
    for key in space:
        section, _, name = key.partition(".")
        found[key] = (_balance(tree) or AS_IN_RECIPE) if key == "balance" else tree[section][name]
    return found


def _parameters(space: Space, values: dict[str, Any], tune: str) -> dict[str, Any]:
    """Values of keys as a trial's parameters, without those that the space does not hold."""
    found = {}
    for key, dimension in space.items():
        value = values[key]
        if isinstance(dimension, Choices):
            if value in dimension.values:
                found[key] = value
            continue
        parameter, low, high = _ends(key, dimension, tune)
        if low <= value <= high:
            found[parameter] = value
    return found


def _balance(tree: dict[str, Any]) -> str | None:
    values = {f"{section}.{key}": value for section in ("train",) for key, value in tree[section].items()}
    return next((name for name, keys in BALANCE.items() if keys.items() <= values.items()), None)


def readings(space: Space, recipe: Recipe) -> list[Recipe]:
    """The recipe with every combination of model.* that the space holds: each has data prepared for it.

    Raises:
        InputError: a combination that is not to be had.
    """
    found = [recipe]
    for key, dimension in space.items():
        if key.startswith("model.") and isinstance(dimension, Choices):
            found = [configured(one, {key: value}) for one in found for value in dimension.values]
    return found


def told(space: Space) -> dict[str, Any]:
    """For JSON, and for the search's name."""
    return {key: asdict(dimension) for key, dimension in space.items()}


def space_from(tree: dict[str, Any]) -> Space:
    """From JSON."""
    return {key: Choices(tuple(spec["values"])) if "values" in spec else Range(**spec) for key, spec in tree.items()}


def study_name(recipe: Recipe, space: Space, pinned: str, origin: str = "") -> str:
    """What decides the trials, as a name: another recipe, space or data is another study; a larger budget is not.

    Args:
        recipe: what trials start from.
        space: what is searched.
        pinned: a hash of the data.
        origin: of weights and code (Origins.of_all), where they are there to be hashed.
    """
    tree = recipe.model_dump(by_alias=True, mode="json", exclude={"register_": True, "data": {"workers"}})
    search = {key: tree["sweep"][key] for key in ("metric", "sampler", "pruner")}
    decides = address(recipe=tree | {"sweep": search}, space=told(space), pin=pinned, origin=origin)
    return f"{recipe.register_.name}-{decides[:8]}"


def winner(recipe: Recipe, overrides: dict[str, Any]) -> dict[str, Any]:
    """A recipe's tree with the winning values, without what it left to the defaults."""
    tree = recipe.model_dump(by_alias=True, mode="json", exclude_unset=True, exclude={"sweep"})
    for key, value in spelled_out(overrides).items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree
