"""The search's memory: an Optuna study in a database, which any number of commands, here or elsewhere, may share.

A trial that was under way when its command died is proposed again. Whether it died is seen at once on the same machine,
and after five minutes without a heartbeat from another. Settings that MOST_DEATHS commands died of are given up.
"""

from __future__ import annotations

import random
import secrets
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import address
from tuneline.config import Recipe, SweepConfig
from tuneline.errors import InputError, how_to_install
from tuneline.search.space import Range, Space, own, starts, told

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

HEARTBEAT_SECONDS, GRACE_SECONDS = 60, 300
SEARCHED, ORIGIN = "searched", "origin"
RUN = "tuneline.run"
"""The study's attribute that names its MLflow run."""
RUN_SECONDS = 60.0
"""How long whoever made the study may take to say which MLflow run is its."""
OWNERLESS_SECONDS = 60.0
"""How long a trial that was asked for may be without an owner's name, which is told in the next statement."""
TURN_SECONDS = 1.0
"""How long whoever gave a trial back waits at most before asking again: a random time, so that not all do at once."""
MOST_DEATHS = 3
"""Commands or pods that died while they trained the same settings, and nothing else, after which these are given up: a
machine that goes down is seldom a trial's doing, but one that takes all memory takes its pod down each time."""
HOPELESS = 3
"""Trials that fail before one succeeds, after which the search is given up."""
MOST_REPEATS = 10
"""Proposals in a row that repeat earlier trials, after which the space is taken to hold nothing new."""
EPOCHS = "epochs"
"""The trial's attribute that tells how many epochs it trains."""
REPEATS = "repeats"
"""The trial's attribute that names an earlier trial of the same settings, whose result it took."""
OWNER, LOST, RESULT, OVERRIDES, ERROR, AGAIN = "owner", "lost", "result", "overrides", "error", "again"
DEATHS = "deaths"
"""The trial's attribute that tells how many commands or pods died before while they trained its settings."""


def open_study(url: str, name: str, recipe: Recipe, space: Space, origin: str = "") -> tuple[optuna.Study, bool]:
    """The study of that name, made where there is none, and whether this command made it: of several only one does.

    Whoever makes it proposes what is tried first, before anybody else asks for a trial.

    Raises:
        InputError: the database is not to be had, or the study searches something else, or with other weights or code
            than `origin` stands for (Origins.of_all); "" trains nothing and does not ask.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(f"tuneline sweep needs Optuna: {how_to_install('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")  # Sweep records it
    from tuneline.search.database import open_storage

    storage, settings, seed = open_storage(url), recipe.sweep, recipe.train.seed
    direction = "minimize" if settings.metric == "loss" else "maximize"
    pruner, first = _pruner(recipe, space), True
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, pruner=pruner)
        study.set_user_attr(SEARCHED, _searched(settings, space))
        study.set_user_attr(ORIGIN, origin)
        propose_first(study, space, recipe)
    except optuna.exceptions.DuplicatedStudyError:
        study, first = optuna.load_study(storage=storage, study_name=name, pruner=pruner), False
        if study.user_attrs.get(SEARCHED, searched := _searched(settings, space)) != searched:
            raise InputError(f"--study: {name} has searched another space or metric; give another name") from None
        if origin and (study.user_attrs.get(ORIGIN) or origin) != origin:
            raise InputError(
                f"--study: {name} holds trials of other weights, or of another version's code; give another name"
            ) from None
        seed = secrets.randbits(31)  # one that goes on, or joins, draws other values; pods' pids are all alike
    study.sampler = _sampler(settings, seed)
    return study, first


def propose_first(study: optuna.Study, space: Space, recipe: Recipe) -> None:
    """Have the recipe's own values tried, once, so that the search knows what it started from; then some others.

    Which others, space.starts says; a random search draws all but the first.
    """
    others = [] if recipe.sweep.sampler == "random" else starts(space, recipe)
    for settings in [own(space, recipe), *others]:
        study.enqueue_trial(settings, skip_if_exists=True)


def _searched(settings: SweepConfig, space: Space) -> str:
    return address(space=told(space), metric=settings.metric)


def run_of(study: optuna.Study) -> str:
    """The study's MLflow run, which whoever made it is about to tell; "" where that is not told in RUN_SECONDS."""
    until = time.monotonic() + RUN_SECONDS
    while not (found := study.user_attrs.get(RUN, "")) and time.monotonic() < until:
        time.sleep(0.5)
    return found


def _sampler(settings: SweepConfig, seed: int) -> Any:
    import optuna

    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=6, seed=seed
    )  # fmt: skip


def _pruner(recipe: Recipe, space: Space) -> Any:
    import optuna

    from tuneline.search.halving import Halving

    if recipe.sweep.pruner == "none":
        return optuna.pruners.NopPruner()
    if recipe.sweep.pruner == "asha":
        return Halving()
    epochs = space.get("train.epochs")
    most = recipe.train.epochs if epochs is None else epochs.high if isinstance(epochs, Range) else max(epochs.values)
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max(int(most), 2), reduction_factor=3)


def ask(study: optuna.Study, owner: str, most: int | None) -> optuna.Trial | None:
    """The next trial, which is this owner's from now on; None where the study has `most` of them.

    Several may ask for the last one at once. Each counts once more when it has one, and gives it back where they are
    too many: whoever came last sees all others, so that there are never more than `most`, and whoever gave one back
    asks again, so that there are not fewer.

    Args:
        study: the study.
        owner: who will train it.
        most: how many trials a budget allows; None for no limit.
    """
    while most is None or count(study).spent < most:
        if not (trial := _owned(study, owner)):
            continue
        if most is None or count(study).spent <= most:
            return trial
        lose(study, trial, "given back: others asked for the last of the budget at the same time")
        time.sleep(random.uniform(0, TURN_SECONDS))
    return None


def _owned(study: optuna.Study, owner: str) -> optuna.Trial | None:
    """A trial with its owner's name; None where that took so long that others took the trial for dead."""
    from optuna.exceptions import UpdateFinishedTrialError

    storage: Any = study._storage
    trial = study.ask()
    try:
        trial.set_user_attr(OWNER, owner)
    except UpdateFinishedTrialError:
        return None
    storage.record_heartbeat(trial._trial_id)
    return trial


def lose(
    study: optuna.Study, trial: FrozenTrial | optuna.Trial, why: str, blame: bool = False, died: bool = False
) -> bool:
    """End a trial that was not trained to its end, and propose its settings again, unless others did or it is given up.

    Args:
        study: the study.
        trial: the trial.
        why: how it was lost.
        blame: whether it may be its own fault: such a one gets one more try, others as many as it takes.
        died: whether its owner died while it trained: settings that this befalls MOST_DEATHS times are given up.

    Returns:
        Whether its settings are proposed again.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    frozen = next(one for one in study.get_trials(deepcopy=False) if one.number == trial.number)
    again, deaths = bool(frozen.user_attrs.get(AGAIN)), frozen.user_attrs.get(DEATHS, 0) + died
    given_up = blame and again
    if died and deaths >= MOST_DEATHS:
        given_up, why = True, f"given up: {deaths} commands or pods died while they trained it"
    storage: Any = study._storage
    try:
        for name in (LOST, ERROR) if given_up else (LOST,):
            storage.set_trial_user_attr(frozen._trial_id, name, why)
        storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:  # of several that find it dead at once, one is the first
        return False
    # What it drew, and what it was to draw by an earlier proposal.
    settings = frozen.system_attrs.get("fixed_params", {}) | frozen.params
    if settings and not given_up:
        study.enqueue_trial(settings, user_attrs={AGAIN: again or blame, DEATHS: deaths})
    return not given_up


def recover(study: optuna.Study, lives: Callable[[str], bool], ownerless: dict[int, float]) -> int:
    """Propose again what was under way in commands that were killed; gives how many trials that are.

    Args:
        study: the study.
        lives: whether a command still runs, as far as can be seen from here.
        ownerless: when this process first saw a trial without an owner, by the trial's id and time.monotonic; kept
            from call to call. The time that stands with a trial is of its maker's clock, and perhaps time zone.
    """
    from optuna.trial import TrialState

    storage: Any = study._storage
    stale, now = set(storage._get_stale_trial_ids(study._study_id)), time.monotonic()
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    beside = Counter(trial.user_attrs.get(OWNER) for trial in running)
    found = 0
    for trial in running:
        owner = trial.user_attrs.get(OWNER)
        alone = beside[owner] == 1  # of several nobody knows which one it died of
        if trial._trial_id in stale:
            found += lose(study, trial, "its command was not heard of for minutes", died=alone)
        elif owner:
            found += not lives(owner) and lose(study, trial, "its command was killed", died=alone)
        elif now - ownerless.setdefault(trial._trial_id, now) > OWNERLESS_SECONDS:
            found += lose(study, trial, "its command was killed")
    return found


def twin(study: optuna.Study, overrides: dict[str, Any]) -> FrozenTrial | None:
    """An earlier trial of the same settings that came to its end, well or badly, as another one would.

    One that was given up because its process was lost is none: another machine, or fewer workers, may have the memory.
    """
    return next(
        (
            trial
            for trial in study.get_trials(deepcopy=False)
            if state_of(trial) in ("complete", "pruned", "failed")
            and trial.user_attrs.get(OVERRIDES) == overrides
            and LOST not in trial.user_attrs
        ),
        None,
    )


def repeat(study: optuna.Study, trial: optuna.Trial, known: FrozenTrial) -> None:
    """End a trial as an earlier one of the same settings ended."""
    trial.set_user_attr(REPEATS, known.number)
    for name in (RESULT, ERROR):
        if name in known.user_attrs:
            trial.set_user_attr(name, known.user_attrs[name])
    value = known.value if state_of(known) == "complete" else None
    study.tell(trial, value, state=known.state, skip_if_finished=True)


def exhausted(study: optuna.Study, owner: str) -> bool:
    """Whether this owner's last proposals all repeated earlier trials, and nothing waits to be tried."""
    trials = study.get_trials(deepcopy=False)
    if any(state_of(trial) == "waiting" for trial in trials):
        return False
    own = [trial for trial in trials if trial.state.is_finished() and trial.user_attrs.get(OWNER) == owner]
    last = [trial for trial in own if state_of(trial) != "lost"][-MOST_REPEATS:]
    return len(last) == MOST_REPEATS and all(REPEATS in trial.user_attrs for trial in last)


def hopeless(study: optuna.Study, owner: str) -> bool:
    """Whether trials failed, or diverged, and none did anything else: HOPELESS of them, or all that the space holds.

    Where many are under way at once, twice as many have to fail: the first to end are those that end badly.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if REPEATS not in trial.user_attrs]
    if any(_trains(trial) for trial in trials):
        return False
    failed = sum(ERROR in trial.user_attrs for trial in trials if trial.state.is_finished())
    running = sum(state_of(trial) == "running" for trial in trials)
    return failed >= max(HOPELESS, 2 * running) or (failed > 0 and exhausted(study, owner))


def _trains(trial: FrozenTrial) -> bool:
    """Whether it was trained, or has come to the end of an epoch."""
    if ERROR in trial.user_attrs:
        return False
    state = state_of(trial)
    return state in ("complete", "pruned") or (state == "running" and bool(trial.intermediate_values))


@dataclass(frozen=True)
class Count:
    """Trials by how they ended."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    lost: int = 0
    repeated: int = 0

    @property
    def spent(self) -> int:
        """Those that a budget of trials counts."""
        return self.complete + self.pruned + self.failed + self.running


def count(study: optuna.Study) -> Count:
    """How many trials ended how."""
    found = dict.fromkeys(Count.__dataclass_fields__, 0)
    for trial in study.get_trials(deepcopy=False):
        if (state := state_of(trial)) in found:
            found[state] += 1
    return Count(**found)


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, failed, lost, running or waiting; repeated for what took the result of an earlier trial."""
    if trial.state.is_finished() and REPEATS in trial.user_attrs:
        return "repeated"
    name = trial.state.name.lower()
    if name == "fail":
        # What Optuna itself took for dead has neither an error nor a word.
        return "failed" if ERROR in trial.user_attrs else "lost"
    return name


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials, the best first; of equals the quicker, and each setting once."""
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    complete = [trial for trial in study.get_trials(deepcopy=False) if state_of(trial) == "complete"]
    complete.sort(key=lambda trial: (sign * (trial.value or 0.0), trial.user_attrs[RESULT]["seconds"]))
    seen: set[str] = set()
    found = []
    for trial in complete:
        settings = str(sorted(trial.user_attrs[OVERRIDES].items()))
        if settings not in seen:
            seen.add(settings)
            found.append(trial)
    return found
