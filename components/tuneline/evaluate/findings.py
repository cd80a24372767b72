"""All that is found out about a model's answers on the test split: the numbers of metrics.json and of the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import calibration, predictions
from tuneline.artifacts import SLICE, Decision, PreparedData, read_json
from tuneline.comparison import compare
from tuneline.confident import suspects
from tuneline.evaluate.metrics import confusion, measure, per_class, reliability, score
from tuneline.evaluate.robustness import probe, sample
from tuneline.evaluate.slices import examine, parts
from tuneline.predictions import Predictions
from tuneline.statistics import Estimate, mean, share

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PROBED_SHARE, LEAST_PROBED, MOST_PROBED = 0.04, 25, 200
"""Texts that the probes change: what a model minds shows in few of them, and each is predicted five times over."""
OF_BASELINE = ("accuracy", "macro_f1", "log_loss")


@dataclass(frozen=True)
class Evaluation:
    """What the step found; metrics.json.

    Attributes:
        metrics: of the model (evaluate.metrics.measure), and accuracy, macro_f1 and log_loss of the baseline as
            baseline_accuracy and so on.
        labels: label names.
        confusion: counts [true][predicted].
        estimates: value, low and high of each metric of the `model` and of the `baseline`.
        against_baseline: the two compared on the same rows (comparison.Comparison).
        classes: see metrics.per_class.
        reliability: see metrics.reliability.
        slices: see slices.examine.
        probes: see robustness.probe.
        speed: latency_p50_ms, latency_p99_ms, latency_texts, texts_per_second, size_mb.
        machine: what measured the speed.
        champion: the champion on the same rows, see champion.beside; empty where there is none.
        decision: see told_decision.
        label_errors: test rows whose label looks wrong to the model (confident.suspects).
    """

    metrics: dict[str, float]
    labels: list[str]
    confusion: list[list[int]]
    estimates: dict[str, dict[str, list[float]]]
    against_baseline: dict[str, Any]
    classes: list[dict[str, Any]]
    reliability: list[dict[str, float]]
    slices: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    speed: dict[str, float]
    machine: str
    champion: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    label_errors: int = 0

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read an Evaluation folder."""
        return cls(**read_json(folder / "metrics.json"))


@dataclass(frozen=True, eq=False)
class TestSet:
    """The test rows.

    Attributes:
        texts: as they were read.
        pairs: second texts; None where rows hold one text.
        labels: int32 [rows].
        names: label names.
        keys: uint64 [rows] (predictions.keys).
        parts: bool [rows] of each slice.
        sha256: of the split.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray
    names: list[str]
    keys: np.ndarray
    parts: dict[str, np.ndarray]
    sha256: str

    def answered(
        self, probabilities: np.ndarray, answers: np.ndarray, baseline: np.ndarray, facts: dict[str, str]
    ) -> Predictions:
        """A model's answers row by row.

        Args:
            probabilities: [rows, classes] of the model.
            answers: [rows] what it answered.
            baseline: [rows] answers of the baseline.
            facts: weights_sha256 and environment.
        """
        import numpy as np

        return Predictions(
            names=self.names,
            keys=self.keys,
            labels=self.labels.astype(np.int32),
            answers=answers.astype(np.int32),
            confidence=probabilities.max(1).astype(np.float32),
            chance=probabilities[np.arange(len(self.labels)), self.labels].astype(np.float32),
            baseline=baseline.astype(np.int32),
            slices=self.parts,
            facts={"test_sha256": self.sha256} | facts,
        )

    @classmethod
    def of(cls, table: pa.Table, manifest: PreparedData) -> TestSet:
        """From a split (artifacts.read_split)."""
        import numpy as np
        import pyarrow.compute as pc

        texts, labels = table.column("text").to_pylist(), np.asarray(table.column("label"))
        pairs = table.column("pair").to_pylist() if "pair" in table.column_names else None
        lengths = np.asarray(pc.call_function("list_value_length", [table.column("input_ids")])).astype(np.int64)
        cut = _cut(table, lengths, manifest)
        named = [name for name in table.column_names if name.startswith(SLICE)]
        columns = {name.removeprefix(SLICE): table.column(name).to_pylist() for name in named}
        whole = texts if pairs is None else [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]
        found = parts(lengths, cut, labels, manifest.labels, whole, columns)
        rows = predictions.keys(texts, pairs)
        return cls(texts, pairs, labels, manifest.labels, rows, found, manifest.sha256["test"])


def _cut(table: pa.Table, lengths: np.ndarray, manifest: PreparedData) -> np.ndarray:
    """Whether each text was cut; of data prepared before that was written down, whether it fills its room."""
    import numpy as np

    if "cut" in table.column_names:
        return np.asarray(table.column("cut"), bool)
    return (lengths >= manifest.max_length) & (manifest.long_texts != "windows")


def find(
    test: TestSet,
    probabilities: np.ndarray,
    baseline: np.ndarray,
    predict: Callable[..., np.ndarray],
    speed: dict[str, float],
    machine: str,
    decision: Decision | None = None,
) -> Evaluation:
    """Measure the model and the baseline, look at slices, and probe the model with changed texts.

    Args:
        test: the rows.
        probabilities: [rows, classes] of the model.
        baseline: [rows, classes] of the baseline.
        predict: probabilities [texts, classes] of texts, and of second texts where there are such.
        speed: what was measured while predicting.
        machine: what measured it.
        decision: of the model; None answers the most probable class.
    """

    def decided(chances: np.ndarray) -> np.ndarray:
        return chances.argmax(1) if decision is None else calibration.answers(decision, chances)

    answers, rival = decided(probabilities), baseline.argmax(1)
    estimates = {"model": measure(test.labels, probabilities, answers), "baseline": measure(test.labels, baseline)}
    if decision is not None:
        estimates["model"] |= of_decision(decision, test.labels, probabilities, answers)
    metrics = {name: estimate.value for name, estimate in estimates["model"].items()}
    metrics |= {f"baseline_{name}": estimates["baseline"][name].value for name in OF_BASELINE}
    return Evaluation(
        metrics=metrics,
        labels=test.names,
        confusion=confusion(test.labels, answers, len(test.names)),
        estimates={who: {name: list(found) for name, found in of.items()} for who, of in estimates.items()},
        against_baseline=json.loads(json.dumps(asdict(compare(test.labels, answers, rival, len(test.names))))),
        classes=per_class(test.labels, answers, test.names),
        reliability=reliability(test.labels, probabilities),
        slices=examine(test.parts, answers == test.labels),
        probes=_probes(test, answers, lambda *texts: decided(predict(*texts))),
        speed=speed,
        machine=machine,
        decision=told_decision(decision, test.labels, probabilities),
        label_errors=int(suspects(probabilities, test.labels).candidate.sum()),
    )


def of_decision(
    decision: Decision, labels: np.ndarray, probabilities: np.ndarray, answers: np.ndarray
) -> dict[str, Estimate]:
    """What a decision is also judged by.

    coverage and answered_accuracy: the share of the texts of which the model was sure enough, and the share of right
    answers among those; cost: the mean of the costs, where every text has an answer.
    """
    found = {}
    if decision.abstain_below:
        sure = probabilities.max(1) >= decision.abstain_below
        found["coverage"] = share(int(sure.sum()), len(sure))
        found["answered_accuracy"] = share(int((sure & (answers == labels)).sum()), int(sure.sum()))
    if decision.costs and (answers >= 0).all():
        found["cost"] = mean(calibration.cost_matrix(decision.costs, decision.labels)[labels, answers])
    return found


def told_decision(decision: Decision | None, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """The decision, and accuracy and macro F1 of the most probable class (`plain`); empty where that is the answer."""
    if decision is None or decision.plain:
        return {}
    kept = ("thresholds", "costs", "abstain_below", "abstain_label")
    plain = score(labels, probabilities)
    return {name: getattr(decision, name) for name in kept} | {
        "plain": {name: plain[name] for name in ("accuracy", "macro_f1")}
    }


def _probes(test: TestSet, answers: np.ndarray, predict: Callable[..., np.ndarray]) -> list[dict[str, Any]]:
    rows = sample(test.keys, min(max(int(PROBED_SHARE * len(test.keys)), LEAST_PROBED), MOST_PROBED))

    def again(texts: list[str], places: list[int]) -> np.ndarray:
        second = [[test.pairs[rows[place]] for place in places]] if test.pairs is not None else []
        return predict(texts, *second)

    return probe([test.texts[row] for row in rows], answers[rows], again)


def write_training_keys(out: Path, *splits: pa.Table) -> None:
    """Write the keys of the rows that the model has seen, so that no later test set holds them unnoticed."""
    import numpy as np

    seen = [
        predictions.keys(
            split.column("text").to_pylist(), split.column("pair").to_pylist() if "pair" in split.column_names else None
        )
        for split in splits
    ]
    predictions.save_training_keys(out, np.concatenate(seen))
