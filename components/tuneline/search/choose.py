"""tuneline choose: which checkpoint is worth it. A transferability score, then halving: the better half gets more rows.

All checkpoints are embedded once, frozen. LogME ranks them, and of more than four the better half and one more go on.
These are fine-tuned on a small share of the training rows, the better half of them on four times as many, and so on to
the last share. Beside them stand each checkpoint's frozen embeddings under a logistic head, and the linear baseline.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import PreparedData, address, read_split, write_json
from tuneline.comparison import compare
from tuneline.config import Recipe
from tuneline.evaluate.baseline import baseline_proba, texts_of
from tuneline.evaluate.metrics import measure
from tuneline.search.data import share
from tuneline.search.embed_job import Asked, Facts, known_facts
from tuneline.search.engine import Engine, configured
from tuneline.search.transfer import head_proba, logme

if TYPE_CHECKING:
    import numpy as np

LAST, STEP = 0.5, 4
"""The share of the training rows of the last round, and how many times fewer each round before it has."""
LEAST_ROWS, LEAST_STEPS = 200, 60
"""Fewer training rows, or optimizer steps, tell nothing: all checkpoints would still answer the largest class."""
EMBEDDED = 1000
"""Most training rows that are embedded."""
MOST_UNRANKED = 4
LINEAR = "linear baseline"
TUNED, FROZEN, BAG = "fine-tuned", "frozen, logistic head", "TF-IDF, logistic regression"


@dataclass
class Candidate:
    """A way to answer, and what is known of it.

    Attributes:
        model: the checkpoint, or the baseline's name.
        how: fine-tuned, frozen or linear.
        rows: training rows that its figures come from.
        metrics: of the validation split, with intervals.
        answers: [rows of validation].
        seconds: of training it, the last round's.
        latency_ms: of the network for one text; None for the baseline.
        size_mb: of its weights in fp32.
        score: LogME of its frozen embeddings.
        round: the last round that it came to, from 1.
    """

    model: str
    how: str
    rows: int
    metrics: dict[str, tuple[float, ...]]
    answers: np.ndarray
    seconds: float
    latency_ms: float | None = None
    size_mb: float | None = None
    score: float | None = None
    round: int = 0

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in self.__dict__.items() if name != "answers"}


@dataclass
class Choosing:
    """One comparison.

    Attributes:
        recipe: what trainings share.
        models: the checkpoints' names.
        data: prepared data of each.
        engine: trains.
        root: where shares of the data are kept.
        metric: what decides: accuracy or macro_f1.
        last: the last round's share of the training rows.
        told: hears of each thing done.
        seconds: spent on each kind of work.
    """

    recipe: Recipe
    models: list[str]
    data: dict[str, Path]
    engine: Engine
    root: Path
    metric: str
    told: Callable[[str], None]
    last: float = LAST
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> list[Candidate]:
        """All candidates: the fine-tuned ones in their order, the frozen ones, the baseline."""
        frozen = {name: self._frozen(name) for name in self.models}
        by_score = sorted(self.models, key=lambda name: -(frozen[name].score or 0.0))
        kept = by_score if len(by_score) <= MOST_UNRANKED else by_score[: math.ceil(len(by_score) / 2) + 1]
        tuned = self._halve(kept)
        for candidate in tuned:
            known = frozen[candidate.model]
            candidate.latency_ms, candidate.size_mb = known.latency_ms, known.size_mb
            candidate.score = known.score
        return [*tuned, *sorted(frozen.values(), key=self._order), self._linear()]

    def value(self, candidate: Candidate) -> tuple[float, ...]:
        """The metric that decides, with its interval."""
        return candidate.metrics[self.metric]

    def _order(self, candidate: Candidate) -> tuple[float, float, float]:
        """The best first; early on many have the same accuracy, and the log loss tells more."""
        return -candidate.round, -self.value(candidate)[0], candidate.metrics["log_loss"][0]

    def shares(self, count: int) -> list[float]:
        """The share of the training rows in each round, for so many candidates."""
        rounds = max(1, math.ceil(math.log2(max(count, 2))))
        rows = PreparedData.load(next(iter(self.data.values()))).rows["train"]
        train = self.recipe.train
        least = min(self.last, max(LEAST_ROWS, LEAST_STEPS * train.batch_size / train.epochs) / rows)
        return [max(self.last / STEP ** (rounds - 1 - number), least) for number in range(rounds)]

    def _halve(self, kept: Sequence[str]) -> list[Candidate]:
        found: dict[str, Candidate] = {}
        left = list(kept)
        for number, part in enumerate(self.shares(len(kept)), start=1):
            jobs = [(name, number, part) for name in left]
            results: dict[str, Candidate] = {}
            self.engine.each(lambda job, into=results: into.update({job[0]: self._tune(*job)}), jobs)
            found |= results
            ranked = sorted(left, key=lambda name: self._order(found[name]))
            left = ranked[: max(2, math.ceil(len(ranked) / 2))]
        return sorted(found.values(), key=self._order)

    def _tune(self, name: str, number: int, part: float) -> Candidate:
        import numpy as np

        data = share(self.data[name], part, self.root)
        result = self.engine.trial(
            self.recipe, {"model.name": name}, data, f"{name} on {part:.3g}",
            tags={"tuneline.round": number, "tuneline.share": f"{part:.4f}"},
        )  # fmt: skip
        self._spend("fine-tuning", result.seconds)
        stored = np.load(result.answers)
        self.told(f"{name}: {self.metric} {result.value(self.metric)[0]:.4f}, fine-tuned on {result.rows} rows")
        return Candidate(name, TUNED, result.rows, result.metrics, stored["probabilities"].argmax(1), result.seconds,
                         round=number)  # fmt: skip

    def _frozen(self, name: str) -> Candidate:
        import numpy as np

        with self.engine.run.child(f"{name} frozen", {"model.name": name}, {"tuneline.frozen": "true"}) as child:
            facts, place = self._embed(name)
            stored, classes = np.load(place), len(PreparedData.load(self.data[name]).labels)
            started = time.monotonic()
            score = logme(stored["train"], stored["train_labels"], classes)
            chances = head_proba(stored["train"], stored["train_labels"], stored["validation"], classes)
            seconds = facts.seconds + time.monotonic() - started
            metrics = {key: tuple(ends) for key, ends in measure(stored["validation_labels"], chances).items()}
            child.note({"train_logme": score}, metrics, seconds, 0.0)
        self._spend("embedding", seconds)
        self.told(f"{name}: LogME {score:.4f}, {self.metric} {metrics[self.metric][0]:.4f} frozen")
        return Candidate(name, FROZEN, len(stored["train_labels"]), metrics, chances.argmax(1), seconds,
                         facts.latency_ms, 4 * facts.parameters / 1e6, score)  # fmt: skip

    def _embed(self, name: str) -> tuple[Facts, Path]:
        origin = self.engine.origins.of(self.data[name], configured(self.recipe, {"model.name": name}).model)
        known = address(data=self.data[name].name, model=name, rows=EMBEDDED, origin=origin)
        place, facts = self.engine.folder / "answers" / f"{known}.npz", self.engine.folder / "results" / f"{known}.json"
        if not (place.is_file() and facts.is_file()):
            log = str(self.engine.folder / "logs" / f"{known}.log")
            asked = Asked(str(self.data[name]), name, EMBEDDED, str(place), log, self.engine.threads)
            _, found = self.engine.call("tuneline.search.embed", asked, log=log)
            write_json(facts, asdict(found))
        return known_facts(facts), place

    def _linear(self) -> Candidate:
        """Trained on the rows of the last round."""
        import numpy as np

        data = share(self.data[self.models[0]], self.last, self.root)
        train, held, classes = read_split(data, "train"), read_split(data, "validation"), PreparedData.load(data).labels
        labels, started = held.column("label").to_numpy(), time.monotonic()
        with self.engine.run.child(LINEAR, {"model.name": LINEAR}, {"tuneline.baseline": "true"}) as child:
            chances = baseline_proba(
                texts_of(train), train.column("label").to_pylist(), texts_of(held), len(classes)
            )  # fmt: skip
            metrics = {key: tuple(ends) for key, ends in measure(labels, chances).items()}
            seconds = time.monotonic() - started
            child.note({}, metrics, seconds, 0.0)
        self._spend("baseline", seconds)
        return Candidate(LINEAR, BAG, len(train), metrics, np.asarray(chances.argmax(1)), seconds)

    def _spend(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def labels(self) -> np.ndarray:
        """Of the validation rows."""
        return read_split(self.data[self.models[0]], "validation").column("label").to_numpy()


def recommend(candidates: list[Candidate], labels: np.ndarray, classes: int, metric: str) -> tuple[Candidate, str]:
    """The cheapest candidate that the best fine-tuned one does not beat beyond chance, and a sentence that says so.

    Args:
        candidates: of Choosing.run; the first is the best fine-tuned one.
        labels: of the validation rows.
        classes: how many there are.
        metric: accuracy or macro_f1.
    """
    best = candidates[0]
    last = [one for one in candidates[1:] if one.how != TUNED or one.round == best.round]
    alike = [one for one in last if not compare(labels, best.answers, one.answers, classes).better(metric)]
    figure = f"validation {metric.replace('_', ' ')} {best.metrics[metric][0]:.4f}"
    rows = f"on {len(labels)} validation rows"
    linear = next((one for one in alike if one.how == BAG), None)
    if linear:
        return linear, (
            f"Take the linear baseline, or more labels: {best.model}, fine-tuned on {best.rows} rows ({figure}), does "
            f"not beat it ({linear.metrics[metric][0]:.4f}) beyond chance {rows}."
        )
    frozen = min((one for one in alike if one.how == FROZEN), key=lambda one: one.latency_ms or 0.0, default=None)
    if frozen:
        return frozen, (
            f"Take {frozen.model} frozen under a logistic head ({frozen.metrics[metric][0]:.4f}, {frozen.rows} rows): "
            f"{best.model} fine-tuned ({figure}) does not beat it beyond chance {rows}."
        )
    quicker = [one for one in alike if one.how == TUNED and (one.latency_ms or 0) < 0.9 * (best.latency_ms or 0)]
    if quicker:
        one = min(quicker, key=lambda one: one.latency_ms or 0.0)
        times = (best.latency_ms or 0) / max(one.latency_ms or 0, 1e-9)
        return one, (
            f"Take {one.model}: {best.model} ({figure}) does not beat it ({one.metrics[metric][0]:.4f}) beyond chance "
            f"{rows}, and it answers {times:.1f} times as quickly."
        )
    rival = next((one for one in last if one.how == TUNED), None)
    if rival is None:
        return best, f"Take {best.model}: {figure}, beyond chance better than the linear baseline {rows}."
    over = "not beyond chance" if rival in alike else "beyond chance"
    return best, (
        f"Take {best.model}: {figure}; {rival.model} comes to {rival.metrics[metric][0]:.4f} ({over} worse {rows}), "
        f"the linear baseline to {candidates[-1].metrics[metric][0]:.4f}."
    )
