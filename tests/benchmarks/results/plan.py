"""What is measured: sizes, ways of tuning and their settings. Each training is a `tuneline run` command.

The sizes are what two cores without AMX train and answer in an hour and a half or so when nothing else runs. Settings
are those of the recipes that ship; what a recipe does not say is chosen on validation rows first (`choosing`), never on
test rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tests.benchmarks.rounds import CHECKPOINT

SEEDS = 3
ROWS, FEW, RATE, IMBALANCE = "rows", "few", "rates", "imbalance"
LINEAR, HEAD, TOP, LORA, BITFIT, ALL, ARTICLE = "linear", "head", "top_layers", "lora", "bitfit", "all", "article"
ARTICLE_EPOCHS, HEAD_EPOCHS = 10, 10
BATCH = 16


@dataclass(frozen=True)
class Scenario:
    """One of the article's tasks.

    Attributes:
        name: of the recipe and of the folder of data.
        title: for people.
        classes: how many there are.
        splits: files that there are.
        keys: what the recipe is changed in.
        texts: training texts.
        epochs: as the recipe has them.
        rate: learning rate, as the recipe has it.
        few: training texts of the cases with few labels.
        chooses: the scenario on whose validation rows the learning rates were chosen.
        speed: texts a second and core in training, and in answering: the first guess of how long it takes.
        tests: test texts.
        outside: a label for what belongs to no class, which published figures leave out.
        few_keys: what the cases with few labels change beside.
    """

    name: str
    title: str
    classes: int
    splits: tuple[str, ...]
    keys: tuple[str, ...]
    texts: int
    epochs: int
    rate: float
    few: tuple[int, ...]
    chooses: str
    speed: tuple[float, float]
    tests: int
    outside: str = ""
    few_keys: tuple[str, ...] = ()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("sms_spam", "Spam: SMS Spam, 2 classes, one in seven is spam", 2, ("train",),
                 (), 2000, 3, 5e-5, (50, 200), "ag_news", (40, 125), 1122),
        Scenario("ag_news", "Topic: AG News, 4 classes", 4, ("train", "test"),
                 ("data.max_test=2000", "data.max_validation=500"), 1500, 3, 5e-5, (50, 200, 1000), "ag_news",
                 (32, 60), 2000, few_keys=("data.max_test=1000",)),
        Scenario("clinc150", "Intent: CLINC150, 150 classes and out of scope", 151, ("train", "validation", "test"),
                 ("data.max_validation=1000",), 2265, 5, 1e-4, (755, 1510), "clinc150", (55, 220), 5500, outside="oos"),
        Scenario("imdb", "Sentiment: IMDB, 2 classes", 2, ("train", "test"),
                 ("model.max_length=256", "data.max_test=1000", "data.max_validation=300"), 600, 3, 5e-5,
                 (50, 200), "ag_news", (9, 12), 1000, few_keys=("data.max_test=500",)),
    )
}  # fmt: skip
DRAWS = {("clinc150", 755): (1, 4, 8)}
"""Seeds of the cases with few labels that are not 0, 1 and 2: the first three that draw a text of every class, without
which there is nothing to train."""
PEFT_ON = ("ag_news", "clinc150")
"""Where LoRA and biases alone are measured: one task of few classes, one of many. They take as long as tuning all."""

MODES = {
    LINEAR: "linear baseline",
    HEAD: "frozen encoder, head tuned",
    TOP: "upper 2 of 6 layers",
    LORA: "LoRA",
    BITFIT: "biases (BitFit)",
    ALL: "full fine-tuning",
    ARTICLE: "the article's recipe",
}

TIMED = (LINEAR, ALL)
"""The modes whose answers to one text are timed: the others' are those of a tuned model."""

CANDIDATES = {HEAD: (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), TOP: (1e-4, 3e-4, 1e-3, 3e-3), LORA: (1e-3, 3e-3, 1e-2),
              BITFIT: (1e-3, 3e-3, 1e-2), ALL: (2e-5, 1e-4, 3e-4, 1e-3)}  # fmt: skip
"""Learning rates that are tried on validation rows, beside the recipe's own where all or the upper layers are tuned:
one more at either end than was chosen before, so that what is chosen is a best of its neighbours. Full fine-tuning,
beside which all others stand, has those that come near the best one with three seeds."""
CHOOSING = {"ag_news": 1000, "clinc150": 1510}
"""Training texts of the trainings that choose among them: one task of few classes, one of many."""
VALIDATION = {"ag_news": 500, "clinc150": 1000}
"""And validation texts."""

Rates = dict[tuple[str, str], float]
"""By scenario and mode."""


@dataclass(frozen=True)
class Job:
    """One training, or the linear baseline, and its answers on the test rows.

    Attributes:
        part: ROWS, FEW or RATE (which has no answers: it reads validation rows alone).
        scenario, mode: names.
        seed: of the training; of the draw of its texts too where there are few.
        words: a recipe and what it is changed in: what stands behind `tuneline run`.
        passes: texts that go through training, for the guess of its seconds.
    """

    part: str
    scenario: str
    mode: str
    seed: int
    words: tuple[str, ...]
    passes: float

    @property
    def command(self) -> str:
        """What a person types; of the linear baseline, the run beside which it is shown."""
        return f"tuneline run {' '.join(self.words)}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What is run once."""
        return self.part, self.mode, self.command

    def seconds(self) -> float:
        """A guess, of a quiet machine."""
        training, answering = SCENARIOS[self.scenario].speed
        tests = SCENARIOS[self.scenario].tests
        return 4 + self.passes / training + (tests / answering if self.part != RATE and self.mode != LINEAR else 0)


@dataclass(frozen=True)
class Treatments:
    """What can be done about unequal classes, compared by `tuneline imbalance` where one text in fifty is spam."""

    texts: int
    folds: int
    seeds: int
    scenario: str = "sms_spam"

    @property
    def command(self) -> str:
        """What cuts the data and compares."""
        asked = f"--rows {self.texts} --folds {self.folds} --seeds {self.seeds}"
        return f"python -m tests.benchmarks.choosing imbalance {asked}"

    @property
    def key(self) -> tuple[str, str, str]:
        """As of Job."""
        return IMBALANCE, IMBALANCE, self.command


TREATMENTS = Treatments(texts=2000, folds=2, seeds=5)
"""Some fifteen minutes of two cores."""


def words(scenario: Scenario, texts: int, seed: int, *more: str) -> tuple[str, ...]:
    """The recipe with its data and the embedded checkpoint."""
    files = (f"data.{split}=$TUNELINE_DATA/{scenario.name}/{split}.parquet" for split in scenario.splits)
    keys = (*scenario.keys, f"data.max_train={texts}", *more, f"train.seed={seed}")
    once = {key.partition("=")[0]: key for key in keys}  # the last value of a key is what counts
    return (scenario.name, f"model.name={CHECKPOINT}", *files, *once.values())


def settings(scenario: Scenario, mode: str, rate: float, epochs: int | None = None) -> tuple[str, ...]:
    """What a way of tuning changes in the recipe.

    Args:
        scenario: whose recipe.
        mode: one of MODES.
        rate: its learning rate.
        epochs: instead of the recipe's.
    """
    if mode == ARTICLE:
        return (f"train.epochs={ARTICLE_EPOCHS}", "train.learning_rate=1e-5", "train.weight_decay=0",
                "train.warmup_share=0", "train.encoder_dropout=true")  # fmt: skip
    epochs = max(HEAD_EPOCHS, epochs or 0) if mode == HEAD else epochs
    found = (f"train.tune={mode}",) if mode not in (LINEAR, ALL) else ()
    found += (f"train.learning_rate={rate:g}",) if rate != scenario.rate else ()
    return (*found, f"train.epochs={epochs}") if epochs else found


def chosen(lines: Iterable[dict[str, Any]]) -> Rates:
    """The learning rates of highest validation accuracy, equals told apart by log loss, for every scenario and mode.

    Of full fine-tuning those that three seeds leave within a standard error of the best one are not to be told apart,
    and the lowest of them is taken, since a large rate is what diverges (the one-standard-error rule, Breiman et al.
    1984). The recipe's own is left to it where another task's validation rows would have to choose.
    """
    found: dict[tuple[str, str], list[Tried]] = {}
    for one in tried(lines):
        found.setdefault((one.scenario, one.mode), []).append(one)
    best = {at: _lowest_near_the_best(of) if at[1] == ALL else _best(of) for at, of in found.items()}
    return {
        (scenario.name, mode): best[scenario.chooses, mode].rate
        for scenario in SCENARIOS.values() for mode in CANDIDATES
        if (scenario.chooses, mode) in best and (mode != ALL or scenario.chooses == scenario.name)
    }  # fmt: skip


def _best(of: Sequence[Tried]) -> Tried:
    return max(of, key=lambda one: (one.accuracy, -one.loss))


def _lowest_near_the_best(of: Sequence[Tried]) -> Tried:
    most = max(one.seeds for one in of)
    return min(_near([one for one in of if one.seeds == most]), key=lambda one: one.rate)


def _near(of: Sequence[Tried]) -> list[Tried]:
    """Those that come within a standard error of the best one, of so many validation texts."""
    best = _best(of)
    error = math.sqrt(best.accuracy * (1 - best.accuracy) / VALIDATION[best.scenario])
    return [one for one in of if one.accuracy >= best.accuracy - error]


@dataclass(frozen=True)
class Tried:
    """A learning rate on validation rows: means over so many seeds."""

    scenario: str
    mode: str
    texts: int
    rate: float
    seeds: int
    accuracy: float
    loss: float


def tried(lines: Iterable[dict[str, Any]]) -> list[Tried]:
    """The learning rates that were, each over its seeds."""
    found: dict[tuple[str, str, int, float], list[dict[str, Any]]] = {}
    for line in lines:
        if line["part"] == RATE:
            found.setdefault((line["scenario"], line["mode"], line["rows"]["train"], line["rate"]), []).append(line)
    return [
        Tried(
            *at, len(of), fmean(one["validation_accuracy"] for one in of), fmean(one["validation_loss"] for one in of)
        )
        for at, of in found.items()
    ]


def article_texts(scenario: Scenario) -> int:
    """So many that ten epochs pass as many texts through the model as full fine-tuning does."""
    return scenario.texts * scenario.epochs // ARTICLE_EPOCHS


def few_epochs(scenario: Scenario, texts: int) -> int:
    """A handful of texts gets more epochs: 200 steps, but no more than 20 epochs and no less than the recipe's."""
    return max(scenario.epochs, min(20, math.ceil(200 * BATCH / texts)))


def choosing(only: Sequence[str], modes: Sequence[str]) -> list[Job]:
    """The trainings that choose the learning rates of these scenarios and modes, on validation rows alone."""
    return [
        _choosing(scenario, mode, rate, 0)
        for scenario in (SCENARIOS[name] for name in CHOOSING if name in {SCENARIOS[of].chooses for of in only})
        for mode, rates in ((mode, CANDIDATES[mode]) for mode in modes if mode in CANDIDATES)
        for rate in dict.fromkeys((scenario.rate, *rates) if mode in (TOP, ALL) else rates)
    ]


def _choosing(scenario: Scenario, mode: str, rate: float, seed: int) -> Job:
    texts = CHOOSING[scenario.name]
    own = words(scenario, texts, seed, *settings(scenario, mode, rate))
    return Job(RATE, scenario.name, mode, seed, own, passes(scenario, mode, texts))


def near_the_best(lines: Iterable[dict[str, Any]], only: Sequence[str], modes: Sequence[str]) -> list[Job]:
    """Other seeds of full fine-tuning's rates that come within a standard error of the best one with the first seed."""
    of_first = [one for one in lines if one["part"] == RATE and one["mode"] == ALL and one["seed"] == 0]
    found = []
    for name in CHOOSING:
        rates = [one for one in tried(of_first) if one.scenario == name]
        if ALL not in modes or not rates or name not in {SCENARIOS[of].chooses for of in only}:
            continue
        found += [_choosing(SCENARIOS[name], ALL, one.rate, seed) for seed in range(1, SEEDS) for one in _near(rates)]
    return found


def jobs(parts: Sequence[str], only: Sequence[str], modes: Sequence[str], seeds: int, rates: Rates) -> list[Job]:
    """All that is asked for: every scenario's first seed first, so that an interrupted run has a page to show."""
    scenarios, found = [SCENARIOS[name] for name in only], []
    for seed in range(seeds):
        if ROWS in parts:
            for scenario in scenarios:
                found.extend(row(scenario, mode, seed, rates) for mode in modes if _in_table(scenario, mode, seed))
        if FEW in parts:
            for scenario in scenarios:
                found.extend(few(scenario, modes, seed, rates))
    return found


def _in_table(scenario: Scenario, mode: str, seed: int) -> bool:
    """The linear baseline knows no seed."""
    return (mode != LINEAR or seed == 0) and (mode not in (LORA, BITFIT) or scenario.name in PEFT_ON)


def rate_of(scenario: Scenario, mode: str, rates: Rates) -> float:
    """The chosen rate, or the recipe's; the linear baseline is shown beside full fine-tuning."""
    return rates.get((scenario.name, ALL if mode == LINEAR else mode), scenario.rate)


def row(scenario: Scenario, mode: str, seed: int, rates: Rates) -> Job:
    """A row of the scenario's table, with one of its seeds."""
    texts = article_texts(scenario) if mode == ARTICLE else scenario.texts
    own = words(scenario, texts, seed, *settings(scenario, mode, rate_of(scenario, mode, rates)))
    return Job(ROWS, scenario.name, mode, seed, own, passes(scenario, mode, texts))


def few(scenario: Scenario, modes: Sequence[str], seed: int, rates: Rates) -> Iterator[Job]:
    """The cases with few labels, each seed on texts of its own."""
    for texts in scenario.few:
        draws = DRAWS.get((scenario.name, texts), range(seed + 1))
        if seed >= len(draws):
            continue
        draw = draws[seed]
        for mode in (mode for mode in (LINEAR, HEAD, ALL) if mode in modes):
            epochs = few_epochs(scenario, texts)
            tuned = settings(scenario, mode, rate_of(scenario, mode, rates), epochs)
            own = words(scenario, texts, draw, *tuned, *scenario.few_keys, f"data.seed={draw}")
            yield Job(FEW, scenario.name, mode, draw, own, passes(scenario, mode, texts, epochs))


def passes(scenario: Scenario, mode: str, texts: int, epochs: int | None = None) -> float:
    """Texts that training computes; what is frozen is computed once, and forward alone."""
    epochs = epochs or scenario.epochs
    share = {LINEAR: 0.0, HEAD: 0.35 + 0.02 * max(HEAD_EPOCHS, epochs), TOP: 0.25 + 0.25 * epochs,
             ARTICLE: ARTICLE_EPOCHS, LORA: 0.9 * epochs, BITFIT: 0.9 * epochs}  # fmt: skip
    return texts * share.get(mode, epochs)
