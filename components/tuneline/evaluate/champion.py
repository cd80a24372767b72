"""The champion on the test rows of the model that may follow it, so that the gate can pair their answers up.

Its answers are taken from where they were stored, for these weights, these rows and this kind of machine, or made here
and stored there. A champion that cannot answer fails no run: why it cannot is told, on the page and by the gate.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import lineage, registry
from tuneline.errors import InputError, without_credentials
from tuneline.evaluate.findings import TestSet
from tuneline.evaluate.metrics import SMALLEST
from tuneline.predictions import CHAMPION, NONE, Predictions, contaminated, save_training_keys
from tuneline.progress import Progress, say
from tuneline.tracking import StepRun
from tuneline.trouble import trouble

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rival:
    """The champion that a model is compared with: a version of a registered model, and the client that found it."""

    version: Any
    api: Any

    @classmethod
    def of(cls, name: str, run: StepRun) -> Rival | None:
        """The champion of a registered model; None where there is none, or it is this very run's model."""
        found = registry.champion(name)
        if found is None or found.run_id == (run.parent or run.run_id):  # a pipeline that goes on after its end
            return None
        return cls(found, run.api)

    def __str__(self) -> str:
        return f"{self.version.name}/{self.version.version}"


def beside(rival: Rival, test: TestSet, model: Predictions, out: Path) -> dict[str, Any]:
    """Set the champion beside the model, and write its answers and its training keys into `out`/champion.

    Args:
        rival: the champion.
        test: the rows.
        model: the model's answers on them.
        out: folder of Evaluation.

    Returns:
        name, version, and note: why it was not compared. Else compared, model minus champion (comparison.Comparison),
        and log_loss of the champion.
    """
    from tuneline.comparison import compare

    folder, told = out / CHAMPION, {"name": rival.version.name, "version": str(rival.version.version), "note": ""}
    folder.mkdir(exist_ok=True)
    try:
        _require_unseen(rival, test, folder)
        answers = _answers(rival, test, model, folder)
        found = compare(model.labels, model.answers, model.answers_of(answers), len(test.names))
    except Exception as error:  # whatever it is, it is the champion's trouble and not this model's
        note = str(error) if isinstance(error, InputError) else trouble(error) or f"{type(error).__name__}: {error}"
        note = without_credentials(" ".join(note.split()))[:500]
        say(f"[evaluate] the champion {rival} is not compared with: {note}")
        return told | {"note": note}
    return told | {"compared": json.loads(json.dumps(asdict(found))), "log_loss": _log_loss(answers.chance)}


def _require_unseen(rival: Rival, test: TestSet, folder: Path) -> None:
    """Keep the champion's training keys, and refuse to compare where it was trained on test rows."""
    seen = lineage.training_keys_of(rival.api, rival.version)
    if seen is None:
        return
    save_training_keys(folder, seen)
    if count := contaminated(test.keys, seen):
        raise InputError(f"it has seen {count} of the {len(test.keys)} test rows in training")


def _answers(rival: Rival, test: TestSet, model: Predictions, folder: Path) -> Predictions:
    """The champion's answers, stored or made now, written into the folder."""
    try:
        stored = lineage.answers_on(rival.api, rival.version, model.facts)
    except InputError as damaged:
        say(f"[evaluate] the champion's stored answers are made again: {damaged}")
        stored = None
    if stored:
        stored.save(folder)
        return stored
    facts = {"weights_sha256": rival.version.tags.get(lineage.WEIGHTS, ""), "environment": model.facts["environment"]}
    made = test.answered(*_answered(rival, test), model.baseline, facts)
    made.save(folder)
    try:
        lineage.keep_answers(rival.api, rival.version, folder, model.facts)
    except Exception as error:  # they will be made again
        say(f"[evaluate] the champion's answers could not be stored: {trouble(error) or type(error).__name__}")
    return made


def _answered(rival: Rival, test: TestSet) -> tuple[np.ndarray, np.ndarray]:
    """The champion's probabilities [rows, classes] and its answers [rows], in the order of the test set's labels."""
    import numpy as np

    from tuneline.serve.files import load

    say(f"[evaluate] the champion {rival} answers the test texts")
    classifier = load(rival.version)
    if strange := sorted(set(classifier.labels) ^ set(test.names)):
        raise InputError(
            f"it knows {len(classifier.labels)} labels and the test set has {len(test.names)}, which are not the same: "
            f"{strange[0]!r} is in one of them only"
        )
    inputs = classifier.inputs_of(test.texts, test.pairs)
    progress = Progress("evaluate", len(inputs.rows), "rows of the champion")
    probabilities = classifier.predict_proba_inputs(inputs, on_batch=progress.update)
    there = [classifier.labels.index(name) for name in test.names]
    here = np.array([*(test.names.index(name) for name in classifier.labels), NONE], np.int32)
    return probabilities[:, there], here[classifier.answers(probabilities)]


def _log_loss(chance: np.ndarray) -> float:
    import numpy as np

    return float(-np.log(np.clip(chance.astype(float), SMALLEST, 1.0)).mean())
