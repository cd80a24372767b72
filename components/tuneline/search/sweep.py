"""tuneline sweep: trials that Optuna proposes, the best of them repeated with other seeds, within a budget.

Everything is measured on the validation split. The winner's figure is the best of many and so flatters it a little; the
test split, which nothing here has seen, tells the truth once, when the winner's recipe is run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import address
from tuneline.config import Recipe
from tuneline.errors import DivergedError, InputError
from tuneline.search import finals
from tuneline.search import study as studies
from tuneline.search.budget import Budget
from tuneline.search.clock import Clock, of_earlier
from tuneline.search.engine import Engine, configured
from tuneline.search.job import Interrupted, OutOfTime, Pruned, Result, TrialLost
from tuneline.search.space import Space, suggest
from tuneline.trouble import trouble

if TYPE_CHECKING:
    import optuna

    Final = tuple[optuna.trial.FrozenTrial, int]
    """A finalist, and another seed."""

MOST_FOR_FINALS = 0.4
"""Of a budget's seconds; of its trials it is a third."""
TICK_SECONDS = 5.0
Tell = Callable[[str, int, int, str], None]


def reading(recipe: Recipe) -> str:
    """Names the prepared data that a recipe needs."""
    return address(model=recipe.model.model_dump())


@dataclass
class Sweep:
    """One command's part in a search.

    Attributes:
        recipe: what trials start from.
        space: what they try.
        data: prepared data by `reading`.
        budget: what may be spent.
        engine: trains them.
        study: remembers them.
        tell: hears of progress.
        owner: this process, as state.owner names it.
        lives: whether a process still runs.
        started: by time.monotonic, when the command began.
        beside: how many such commands, this one included, will share the finalists' trainings.
        before: seconds that others have spent before this command began; None for those of commands that are over.
    """

    recipe: Recipe
    space: Space
    data: dict[str, Path]
    budget: Budget
    engine: Engine
    study: optuna.Study
    tell: Tell
    owner: str
    lives: Callable[[str], bool]
    started: float = field(default_factory=time.monotonic)
    beside: int = 1
    before: float | None = None

    def __post_init__(self) -> None:
        from tuneline.search.database import waits

        self.settings, self._lock = self.recipe.sweep, threading.Lock()
        self._running, self._away, self._ownerless = set[int](), False, dict[int, float]()
        waits(self.study, self._hear_of_database, self.engine.stop)
        before = of_earlier(self.study, self.owner, self.lives) if self.before is None else self.before
        self.clock = Clock(self.study, self.owner, self.budget.seconds, self.started, before)

    def run(self) -> None:
        """Search, then repeat the finalists; what comes of it stands in the study.

        Raises:
            InputError: no settings can be trained.
        """
        with self._alive():
            self._search_all()
            self._repeat(self.finals)

    def search(self) -> None:
        """Train what is proposed, until what is left of the budget is the finalists'.

        Raises:
            InputError: no settings can be trained.
        """
        with self._alive():
            self._search_all()

    def repeat(self, trainings: Sequence[Final]) -> None:
        """Train finalists with other seeds."""
        with self._alive():
            self._repeat(lambda: trainings)

    def _search_all(self) -> None:
        if lost := studies.recover(self.study, self.lives, self._ownerless):
            self.tell("sweep", 0, 0, f"{lost} trials that were under way when the last command ended are tried again")
        studies.propose_first(self.study, self.space, self.recipe)
        self.engine.each(self._search, range(self.engine.workers))
        if studies.exhausted(self.study, self.owner):
            told = f"the last {studies.MOST_REPEATS} proposals repeat what was tried"
            self.tell("sweep", 0, 0, f"the space holds nothing new: {told}")

    def _repeat(self, asked: Callable[[], Sequence[Final]]) -> None:
        """Train what finalists lack, and wait for what other commands have taken of it.

        Args:
            asked: gives what is to be trained, as it is known by now.
        """

        told, tried = False, set[str]()

        def lacking() -> dict[str, Final]:
            found = {finals.attribute(trial.number, seed): (trial, seed) for trial, seed in asked()}
            done = tried | set(self.study.user_attrs)
            return {name: final for name, final in found.items() if name not in done}

        def one(name: str) -> None:
            final = lacking().get(name)  # a trial that ended meanwhile may have taken its place
            if final and self._final(name, *final):
                tried.add(name)

        while (names := list(lacking())) and self._may_go_on():
            before = len(tried)
            self.engine.each(one, names)
            if len(tried) == before and lacking():
                if not told:
                    self.tell("sweep", 0, 0, "waiting for finalists that another command on this study trains")
                told = True
                self.engine.stop.wait(TICK_SECONDS)

    def _may_go_on(self) -> bool:
        return not self.engine.stop.is_set() and self.clock.left > 0

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Meanwhile the study is told that this command lives, and for how long it has; then that it has ended."""
        with self._whatever_the_database():
            self.clock.note()
        ended = threading.Event()
        ticks = threading.Thread(target=self._tick, args=(ended,), daemon=True)
        ticks.start()
        try:
            yield
        except BaseException:
            self.engine.stop.set()  # a database that is away is waited for no more
            raise
        finally:
            ended.set()
            ticks.join(TICK_SECONDS)  # what it is about to note is not the last word
            with self._whatever_the_database():
                self.clock.note(ended=True)

    @contextmanager
    def _whatever_the_database(self) -> Iterator[None]:
        """What can be told later: a database that is away for long does not end it."""
        try:
            yield
        except Exception as error:
            if not (why := trouble(error)):
                raise
            self._hear_of_database(why)
        else:
            self._away = False

    def _hear_of_database(self, why: str) -> None:
        """Says once that it is away."""
        if not self._away:
            self.tell("sweep", 0, 0, f"{why}; tried again")
        self._away = True

    def _tick(self, ended: threading.Event) -> None:
        """Keeps the study told that this command lives, and the person how far it is."""
        ticks = 0
        while not ended.wait(TICK_SECONDS):
            ticks += 1
            with self._whatever_the_database():
                if ticks % 3 == 0:
                    self._beat()
                    self.clock.note()
                self._show()

    def _beat(self) -> None:
        storage: Any = self.study._storage
        for trial in list(self._running):
            storage.record_heartbeat(trial)

    # The search.

    def _search(self, _worker: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        while trial := self._ask():
            self._running.add(trial._trial_id)
            try:
                self._one(trial)
            except UpdateFinishedTrialError:
                self._say(trial.number, "lost: another worker took it for dead, and its settings are tried again")
            finally:
                self._running.discard(trial._trial_id)
                self._show()

    def _ask(self) -> optuna.Trial | None:
        with self._lock:
            self._beat()  # a machine that slept would take its own for dead
            studies.recover(self.study, self.lives, self._ownerless)  # they are no part of the budget, counted next
            if self.engine.stop.is_set() or not self._in_time() or studies.exhausted(self.study, self.owner):
                return None
            most = None if self.budget.trials is None else self.budget.trials - self._kept_for_finals()
            return studies.ask(self.study, self.owner, most)

    def _in_time(self) -> bool:
        """Whether a trial would end before the seconds of the budget do."""
        if self.budget.seconds is None:
            return True
        seconds = [trial.user_attrs[studies.RESULT]["seconds"] for trial in studies.ranked(self.study)]
        needed = median(seconds) if seconds else 0.0
        return self.clock.left - self._seconds_of_finals() > needed

    def _kept_for_finals(self) -> int:
        """Trainings of a budget of trials that finalists will need."""
        return min(self.settings.finalists * (self.settings.seeds - 1), (self.budget.trials or 0) // 3)

    def _seconds_of_finals(self) -> float:
        if self.budget.seconds is None or self.settings.seeds == 1:  # asked after each epoch of each trial
            return 0.0
        best = finals.finalists(self.study, self.recipe)
        once = sum(trial.user_attrs[studies.RESULT]["seconds"] + finals.SETTLE_SECONDS for trial in best)
        needed = once * (self.settings.seeds - 1)
        return min(1.1 * needed / self.engine.workers / self.beside, MOST_FOR_FINALS * self.budget.seconds)

    def _one(self, trial: optuna.Trial) -> None:
        """Train one proposal, or take the result of an earlier trial of the same settings."""
        overrides = suggest(trial, self.space)
        trial.set_user_attr(studies.OVERRIDES, overrides)
        if not (known := studies.twin(self.study, overrides)):
            self._train(trial, overrides)
            return
        studies.repeat(self.study, trial, known)
        self._say(trial.number, f"has the settings of trial {known.number}, and so its result")
        if error := known.user_attrs.get(studies.ERROR):
            self._give_up(error)

    def _train(self, trial: optuna.Trial, overrides: dict[str, Any]) -> None:
        """Train a trial and tell the study how it went."""
        import optuna

        states = optuna.trial.TrialState
        minimal = self.settings.metric == "loss"

        def on_epoch(epoch: int, numbers: dict[str, float]) -> bool:
            if self.clock.left <= self._seconds_of_finals():  # of finalists that were not known when it began
                raise OutOfTime
            trial.report(numbers[f"validation_{self.settings.metric}"], epoch)
            return not trial.should_prune()

        try:
            own = configured(self.recipe, overrides)
            trial.set_user_attr(studies.EPOCHS, own.train.epochs)
            result = self.engine.trial(
                self.recipe, overrides, self.data[reading(own)], f"trial {trial.number}",
                tags={"tuneline.trial": trial.number}, on_epoch=on_epoch,
                deadline=self.clock.deadline(kept=self._seconds_of_finals()),
            )  # fmt: skip
        except Pruned:
            self.study.tell(trial, state=states.PRUNED, skip_if_finished=True)
            self._say(trial.number, "stopped early")
        except (Interrupted, OutOfTime) as ended:
            studies.lose(
                self.study, trial, "the command was stopped" if isinstance(ended, Interrupted) else "out of time"
            )
        except TrialLost as error:
            studies.lose(self.study, trial, str(error), blame=True)
            self._say(trial.number, f"lost: {error}")
            self._give_up(str(error))
        except InputError as error:
            trial.set_user_attr(studies.ERROR, str(error))
            bad = isinstance(error, DivergedError)  # the search is to learn that such settings are
            self.study.tell(trial, state=states.PRUNED if bad else states.FAIL, skip_if_finished=True)
            self._say(trial.number, f"failed: {error}")
            self._give_up(str(error))
        else:
            trial.set_user_attr(studies.RESULT, result.row())
            value = result.value(self.settings.metric)[0]
            self.study.tell(trial, value, skip_if_finished=True)
            better = "lowest" if minimal else "best"
            self._say(trial.number, f"{value:.4f} in {result.seconds:.0f} s, {better} {self.best_value():.4f}")

    def _give_up(self, error: str) -> None:
        if studies.hopeless(self.study, self.owner):
            raise InputError(f"no trial could be trained; the last one: {error}")

    # The finalists.

    def finals(self) -> list[Final]:
        """What is still to be trained: all finalists with one seed, then with the next."""
        waiting = finals.untrained(self.study, self.recipe)
        if self.budget.trials is not None:
            left = self.budget.trials - studies.count(self.study).spent - finals.trained(self.study)
            waiting = waiting[: max(left, 0)]
        return waiting

    def _final(self, attribute: str, trial: optuna.trial.FrozenTrial, seed: int) -> bool:
        """Train a finalist with another seed; gives whether that was tried: another command may have taken it."""
        if not (self._may_go_on() and finals.take(self.study, attribute, self.owner, self.lives)):
            return False
        if result := self._again(trial, seed):
            self.study.set_user_attr(attribute, result.row())
            self._say(trial.number, f"{result.value(self.settings.metric)[0]:.4f} with seed {seed}")
            self._show()
        else:
            finals.give_back(self.study, attribute)
        return True

    def _again(self, trial: optuna.trial.FrozenTrial, seed: int) -> Result | None:
        """The trial trained with another seed; None where it did not come to its end."""
        overrides = trial.user_attrs[studies.OVERRIDES] | {"train.seed": seed}
        try:
            data = self.data[reading(configured(self.recipe, overrides))]
            return self.engine.trial(
                self.recipe, overrides, data, f"trial {trial.number} seed {seed}",
                tags={"tuneline.trial": trial.number, "tuneline.finalist": "true"}, deadline=self.clock.deadline(),
            )  # fmt: skip
        except (Interrupted, OutOfTime):
            return None
        except (TrialLost, InputError) as error:
            self._say(trial.number, f"seed {seed} lost: {error}")
            return None

    def standings(self) -> list[dict[str, Any]]:
        """The finalists over the seeds that they all have, the best first, without those that lack the others' seeds.

        Raises:
            InputError: no trial was trained to its end.
        """
        best = finals.finalists(self.study, self.recipe)
        if not best:
            raise InputError(
                f"--budget: {self.budget.text} were spent before a trial was trained to its end; a larger one goes on "
                f"from there"
            )
        found = {trial.number: finals.by_seed(self.study, self.recipe, trial) for trial in best}
        seeds, kept = finals.comparable({number: set(results) for number, results in found.items()})
        rows = []
        for trial in best:
            if trial.number in kept:
                results = [found[trial.number][seed] for seed in sorted(seeds)]
                rows.append(finals.standing(trial, results, self.settings.metric))
            else:
                self._say(trial.number, "left out of the ranking: not trained with other seeds that the rest has")
        sign = 1 if self.settings.metric == "loss" else -1
        return sorted(rows, key=lambda row: (sign * row["score"], row["seconds"]))

    # What is told.

    def best_value(self) -> float:
        """Of all complete trials."""
        ranked = studies.ranked(self.study)
        return float(ranked[0].value or 0.0) if ranked else float("nan")

    def _say(self, number: int, what: str) -> None:
        self.tell("sweep", 0, 0, f"trial {number}: {what}")

    def _show(self) -> None:
        found = studies.count(self.study)
        done = found.spent - found.running + finals.trained(self.study)
        stopped = f"{found.pruned} of them stopped early"
        best = f", best {self.best_value():.4f}" if found.complete else ""
        facts = f"| {done} done, {stopped}{best} | ETA {self._eta(done)}"
        if self.budget.trials is not None:
            self.tell("sweep", min(done, self.budget.trials), self.budget.trials, f"trials {facts}")
        else:
            total = int(self.budget.seconds or 0)
            self.tell("sweep", min(int(self.clock.elapsed), total), total, f"seconds {facts}")

    def _eta(self, done: int) -> str:
        if self.budget.seconds is not None:
            left = max(self.clock.left, 0.0)
        elif done:
            left = self.clock.elapsed / done * max((self.budget.trials or 0) - done, 0)
        else:
            return "?"
        return f"{int(left) // 60}:{int(left) % 60:02d}"
