"""What the runs behind a registered version recorded: its steps, and its answers on the test rows."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import STEPS
from tuneline.predictions import FILE, TRAINING_FILE, Predictions, load_training_keys

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVALUATION = "tuneline.evaluation"
"""The tag of a version that tells where, among its run's artifacts, the files of its evaluation lie."""
WEIGHTS = "tuneline.weights_sha256"
"""The tag of a version that holds the SHA-256 of its weights."""
MANIFEST = "tuneline.manifest_sha256"
"""The tag of a version that holds the SHA-256 of the model's files.json, and by which a retried step finds it."""
SERVING = "tuneline.serving"
"""The tag of a version that names what a stock server would leave out of its decision, or says STOCK."""
STOCK = "stock"
STOCK_ARGUMENTS = "tuneline.serving_arguments"
"""The tag with what a stock server has to be told (register.serving)."""


def store_evaluation(api: MlflowClient, owner: str, evaluation: Path, place: str) -> None:
    """Keep an evaluation's answers, and the keys of the training rows, with the run that a version belongs to.

    The evaluate step's own run has them too, but not that of a pipeline which took the step's outputs from a cache.

    Args:
        api: the tracking server.
        owner: the run.
        evaluation: folder of Evaluation.
        place: the folder among the run's artifacts.
    """
    for name in (FILE, TRAINING_FILE):
        if (evaluation / name).is_file():
            api.log_artifact(owner, str(evaluation / name), place)


def predictions_of(api: MlflowClient, version: Any) -> Predictions | None:
    """A version's answers on its test rows; None where they were not stored.

    Raises:
        InputError: they are damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = version.tags.get(EVALUATION)
        got = _fetch(api, version.run_id, f"{place}/{FILE}", folder) if place else None
        return Predictions.load(got) if got else None


def answers_on(api: MlflowClient, version: Any, facts: Mapping[str, str]) -> Predictions | None:
    """A version's answers on a test set, of its own evaluation or of a later one; None where they were not stored.

    Args:
        api: the tracking server.
        version: of a registered model.
        facts: test_sha256 and environment that they must be of (Predictions.facts).

    Raises:
        InputError: they are damaged.
    """
    own = predictions_of(api, version)
    if own and all(own.facts.get(name) == facts.get(name) for name in ("test_sha256", "environment")):
        return own
    with tempfile.TemporaryDirectory() as folder:
        got = _fetch(api, version.run_id, f"{_place(version, facts)}/{FILE}", folder)
        return Predictions.load(got) if got else None


def keep_answers(api: MlflowClient, version: Any, answers: Path, facts: Mapping[str, str]) -> None:
    """Keep a version's answers on a later test set, with the run that it belongs to, for answers_on.

    Args:
        api: the tracking server.
        version: of a registered model.
        answers: folder of Predictions.
        facts: as answers_on has them.
    """
    api.log_artifact(version.run_id, str(answers / FILE), _place(version, facts))


def _place(version: Any, facts: Mapping[str, str]) -> str:
    """The folder of the answers of these weights and decision, on this test set, made in this environment."""
    identity = [
        version.tags.get(MANIFEST),
        version.tags.get(WEIGHTS),
        facts.get("test_sha256"),
        facts.get("environment"),
    ]
    return f"answers-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"


def training_keys_of(api: MlflowClient, version: Any) -> np.ndarray | None:
    """The keys of the rows that a version was trained on; None where they were not stored.

    Raises:
        InputError: they are damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = version.tags.get(EVALUATION)
        got = _fetch(api, version.run_id, f"{place}/{TRAINING_FILE}", folder) if place else None
        return load_training_keys(got) if got else None


def predictions_of_run(api: MlflowClient, run: Run) -> Predictions | None:
    """The answers that a pipeline's run, or a step's, has stored; None where it has none.

    Raises:
        InputError: they are damaged.
    """
    evaluate = steps_of(api, run).get("evaluate", run)
    with tempfile.TemporaryDirectory() as folder:
        got = _fetch(api, evaluate.info.run_id, FILE, folder)
        return Predictions.load(got) if got else None


def _fetch(api: MlflowClient, run_id: str, path: str, folder: str) -> Path | None:
    """The folder into which an artifact was fetched; None where the run has none of that path."""
    parent = path.rpartition("/")[0]
    if path not in {file.path for file in api.list_artifacts(run_id, parent or None)}:
        return None
    return Path(api.download_artifacts(run_id, path, folder)).parent


def run_of(api: MlflowClient, run_id: str | None) -> Run | None:
    """A run; None where it was deleted for good, or none is named."""
    from mlflow.exceptions import MlflowException

    try:
        return api.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def steps_of(api: MlflowClient, run: Run | None) -> dict[str, Run]:
    """The newest finished run of each step below a pipeline's run."""
    if run is None:
        return {}
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and attributes.status = 'FINISHED'"
    newest_first = api.search_runs([run.info.experiment_id], query)
    found = {one.data.tags.get("tuneline.step", ""): one for one in reversed(newest_first)}
    return {step: found[step] for step in STEPS if step in found}
