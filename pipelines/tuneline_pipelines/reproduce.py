"""tuneline reproduce: prepare and train anew what a version was made of, and tell what came out otherwise.

The recipe is the one that the version's run has stored. The data must be the same, by their hash, before anything is
trained. On one processor type, with the same packages and threads, the weights are the same bit for bit.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import lineage, registry, tracking
from tuneline.artifacts import PreparedData, read_split, sha256_file
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline.storage import CHECKPOINTS
from tuneline_pipelines.local import stopped_by_signals
from tuneline_pipelines.state import open_state
from tuneline_pipelines.watch import Tell, heard

if TYPE_CHECKING:
    from rich.console import Console

RECIPE = "configuration/recipe.yaml"
"""Where a pipeline's run keeps its recipe (tracking.open_pipeline_run)."""


def reproduce(reference: str, overrides: list[str], tell: Tell) -> dict[str, Any]:
    """Make a version again, without registering anything.

    Args:
        reference: MODEL@alias or MODEL/VERSION.
        overrides: key.path=value, such as where the data is now.
        tell: called with a step's progress.

    Returns:
        model, version, status (`identical` or `different`), data_sha256, weights (registered and found, SHA-256 each),
        answers (on the test rows: rows, flipped, largest_difference of the highest probability; null where the
        version's were not kept), environment (what differs from the one that made it: registered and found), seconds.

    Raises:
        InputError: no such version, its recipe was not kept, or its data have changed.
    """
    started = time.monotonic()
    open_state()
    version = registry.find(reference)
    with stopped_by_signals(), tempfile.TemporaryDirectory() as folder:
        recipe = _recipe(version, overrides, Path(folder))
        with heard(tell):
            manifest, model = _make(version, recipe, Path(folder))
        answers = _answers(version, Path(folder) / "data", model)
        found = {
            "registered": version.tags.get(lineage.WEIGHTS),
            "found": sha256_file(model / "model.safetensors"),
        }
    return {
        "model": version.name,
        "version": str(version.version),
        "status": "identical" if found["registered"] == found["found"] else "different",
        "data_sha256": manifest.sha256["all"],
        "weights": found,
        "answers": answers,
        "environment": _environment(version),
        "seconds": round(time.monotonic() - started, 2),
    }


def _recipe(version: Any, overrides: list[str], folder: Path) -> Recipe:
    from mlflow.exceptions import MlflowException

    named = f"{version.name}/{version.version}"
    try:
        path = Path(tracking.client().download_artifacts(version.run_id, RECIPE, str(folder)))
    except (MlflowException, OSError):
        raise InputError(
            f"{named}: its run {version.run_id} has no {RECIPE}, or was deleted; what it was made of is not known "
            f"(tuneline trace {named} tells what is)"
        ) from None
    recipe = load_recipe(path, overrides)
    if recipe.train.distributed.nodes > 1:
        raise InputError(
            f"{named}: trained on {recipe.train.distributed.nodes} machines; on this one its sums would be rounded "
            f"otherwise: add train.distributed.nodes=1 to see how far it comes"
        )
    return recipe


def _make(version: Any, recipe: Recipe, folder: Path) -> tuple[PreparedData, Path]:
    """Prepare and train: the manifest and the model's folder.

    Raises:
        InputError: the data are others than those of the version.
    """
    from tuneline.prepare.prepare import prepare
    from tuneline.train.train import fit_here

    data, model = folder / "data", folder / "model"
    manifest = prepare(recipe.data, recipe.model, data)
    expected = version.tags.get("tuneline.data_sha256")
    if manifest.sha256["all"] != expected:
        raise InputError(
            f"{version.name}/{version.version}: made from data of SHA-256 {expected}; {recipe.data.train} and what "
            f"goes with it now give {manifest.sha256['all']}; bring back the data of then (data.train=... names "
            f"another place)"
        )
    with _without_checkpoints():
        fit_here(data, recipe.model, recipe.train, model)
    return manifest, model


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    """A training that finds an earlier one's state, or its cached one, would prove nothing."""
    before = os.environ.pop(CHECKPOINTS, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[CHECKPOINTS] = before


def _answers(version: Any, data: Path, model: Path) -> dict[str, Any] | None:
    from tuneline.inputs import of_table
    from tuneline.serve.model import Classifier

    kept = lineage.predictions_of(tracking.client(), version)
    test = read_split(data, "test")
    if kept is None or len(kept.answers) != test.num_rows:
        return None
    classifier = Classifier(model)
    probabilities = classifier.predict_proba_inputs(of_table(test))
    return {
        "rows": test.num_rows,
        "flipped": int((classifier.answers(probabilities) != kept.answers).sum()),
        "largest_difference": float(abs(probabilities.max(1) - kept.confidence).max()),
    }


def _environment(version: Any) -> dict[str, dict[str, str | None]]:
    """What differs: tuneline, python, the packages that the training recorded."""
    run = lineage.run_of(tracking.client(), version.run_id)
    step = lineage.steps_of(tracking.client(), run).get("train", run)
    then, now = (step.data.tags if step else {}), tracking.environment()
    return {
        name.removeprefix("tuneline.").removeprefix("version."): {"registered": then.get(name), "found": value}
        for name, value in sorted(now.items())
        if name.startswith("tuneline.") and then.get(name) != value
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """For people."""
    same = found["status"] == "identical"
    words = "the same weights, bit for bit" if same else "other weights"
    lines = [f"{found['model']} version {found['version']}: {words} ({found['seconds']:.0f} s)"]
    if not same:
        lines += [f"  registered {found['weights']['registered']}", f"  found      {found['weights']['found']}"]
    if answers := found["answers"]:
        lines.append(
            f"  answers on {answers['rows']:,} test rows: {answers['flipped']:,} other labels, the highest "
            f"probability differs by {answers['largest_difference']:.2g} at most"
        )
    for name, one in found["environment"].items():
        lines.append(f"  {name}: {one['found']} here, {one['registered'] or 'unknown'} then")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
