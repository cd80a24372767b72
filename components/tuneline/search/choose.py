"""tuneline choose: which checkpoint is worth it. A transferability score, then halving: the better half gets more rows.

All checkpoints are embedded once, frozen. LogME ranks them, and of more than four the better half and one more go on.
These are fine-tuned on a small share of the training rows, the better half of them on four times as many, and so on to
the last share, or the budget's end. Beside them stand each checkpoint's frozen embeddings under a logistic head, and
the linear baseline. A checkpoint whose process is killed, or whose training diverges, is left out; the others go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import PreparedData, address, read_split, write_json
from tuneline.config import Recipe
from tuneline.errors import DivergedError, InputError
from tuneline.evaluate.baseline import fitted, proba, texts_of
from tuneline.evaluate.metrics import measure
from tuneline.evaluate.speed import latency
from tuneline.search.budget import Budget
from tuneline.search.data import share
from tuneline.search.embed_job import Asked, Facts, known_facts
from tuneline.search.engine import Engine, configured
from tuneline.search.job import OutOfTime, TrialLost
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
        latency_ms: for one text: of the network alone, or of all that the baseline does.
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
        told: hears of each thing done.
        last: the last round's share of the training rows.
        budget: what may be spent on embedding and fine-tuning; None for all that it takes.
        seconds: spent on each kind of work by this command.
        lost: why a checkpoint was left out, by its name.
        ended: how far the budget came, where it ended the rounds; else "".
    """

    recipe: Recipe
    models: list[str]
    data: dict[str, Path]
    engine: Engine
    root: Path
    metric: str
    told: Callable[[str], None]
    last: float = LAST
    budget: Budget | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    ended: str = ""

    def __post_init__(self) -> None:
        seconds = self.budget.seconds if self.budget else None
        self._deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
        self._trainings, self._out_of_time = 0, False

    def run(self) -> list[Candidate]:
        """All candidates: the fine-tuned ones in their order, the frozen ones, the baseline.

        Raises:
            InputError: bad input, or a budget that did not last for a first round.
            TrialLost: no checkpoint could be trained.
        """
        frozen = {name: found for name in self.models if (found := self._unless_lost(name, self._frozen, name))}
        if self._out_of_time:
            raise self._too_little()
        by_score = sorted(frozen, key=lambda name: -(frozen[name].score or 0.0))
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
        """The share of the training rows in each round, for so many candidates; of few rows there is one round."""
        rounds = max(1, math.ceil(math.log2(max(count, 2))))
        rows = PreparedData.load(next(iter(self.data.values()))).rows["train"]
        train = self.recipe.train
        least = min(self.last, max(LEAST_ROWS, LEAST_STEPS * train.batch_size / train.epochs) / rows)
        return list(dict.fromkeys(max(self.last / STEP ** (rounds - 1 - number), least) for number in range(rounds)))

    def _halve(self, kept: Sequence[str]) -> list[Candidate]:
        found: dict[str, Candidate] = {}
        left, shares = list(kept), self.shares(len(kept))
        for number, part in enumerate(shares, start=1):
            results = self._round(left, number, part)
            if results is None:  # those that came further would stand above the others by chance
                self.ended = f"The budget of {self._budget} lasted for {number - 1} of {len(shares)} rounds"
                break
            found |= results
            ranked = sorted(results, key=lambda name: self._order(found[name]))
            left = ranked[: max(2, math.ceil(len(ranked) / 2))]
        if not found:
            if self.ended:
                raise self._too_little()
            raise TrialLost("; ".join(f"{name}: {why}" for name, why in self.lost.items()))
        return sorted(found.values(), key=self._order)

    def _round(self, left: Sequence[str], number: int, part: float) -> dict[str, Candidate] | None:
        """Each of them on this share of the rows, without those that were lost; None where the budget ended first."""
        self._trainings += len(left)
        if self.budget and self.budget.trials is not None and self._trainings > self.budget.trials:
            return None
        results: dict[str, Candidate] = {}

        def one(name: str) -> None:
            if found := self._unless_lost(name, self._tune, name, number, part):
                results[name] = found

        self.engine.each(one, left)
        return None if self._out_of_time else results

    def _unless_lost(self, name: str, work: Callable[..., Candidate], *given: Any) -> Candidate | None:
        """What the work gives; None where its process was lost, its training diverged or the budget's time came."""
        try:
            return work(*given)
        except OutOfTime:
            self._out_of_time = True
        except (TrialLost, DivergedError) as error:
            self.lost[name] = str(error)
            self.told(f"{name}: left out: {error}")
        return None

    def _too_little(self) -> InputError:
        return InputError(
            f"--budget: {self._budget} does not last until each checkpoint is fine-tuned once; a larger one goes on "
            f"from there"
        )

    @property
    def _budget(self) -> str:
        return self.budget.text if self.budget else ""

    def _tune(self, name: str, number: int, part: float) -> Candidate:
        import numpy as np

        data = share(self.data[name], part, self.root)
        result = self.engine.trial(
            self.recipe, {"model.name": name}, data, f"{name} on {part:.3g}",
            tags={"tuneline.round": number, "tuneline.share": f"{part:.4f}"}, deadline=self._deadline,
        )  # fmt: skip
        self._spend("fine-tuning", 0.0 if result.reused else result.seconds)
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
            on_top = time.monotonic() - started
            self._spend("embedding", on_top)
            seconds = facts.seconds + on_top
            metrics = {key: tuple(ends) for key, ends in measure(stored["validation_labels"], chances).items()}
            child.note({"train_logme": score}, metrics, seconds, 0.0)
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
            _, found = self.engine.call("tuneline.search.embed", asked, deadline=self._deadline, log=log)
            self._spend("embedding", found.seconds)
            write_json(facts, asdict(found))
        return known_facts(facts), place

    def _linear(self) -> Candidate:
        """Trained on the rows of the last round."""
        data = share(self.data[self.models[0]], self.last, self.root)
        train, held, classes = read_split(data, "train"), read_split(data, "validation"), PreparedData.load(data).labels
        texts, started = texts_of(held), time.monotonic()
        with self.engine.run.child(LINEAR, {"model.name": LINEAR}, {"tuneline.baseline": "true"}) as child:
            model = fitted(texts_of(train), train.column("label").to_pylist())
            chances = proba(model, texts, len(classes))
            metrics = {key: tuple(ends) for key, ends in measure(held.column("label").to_numpy(), chances).items()}
            seconds = time.monotonic() - started
            child.note({}, metrics, seconds, 0.0)
        self._spend("baseline", seconds)
        one = latency(lambda asked: proba(model, asked, len(classes)), texts, None)["latency_p50_ms"]
        regression: Any = model[-1]
        size = 4 * regression.coef_.size / 1e6
        return Candidate(LINEAR, BAG, len(train), metrics, chances.argmax(1), seconds, one, size)

    def _spend(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def labels(self) -> np.ndarray:
        """Of the validation rows."""
        return read_split(self.data[self.models[0]], "validation").column("label").to_numpy()
