"""Asynchronous successive halving (Li et al. 2020, ASHA) over shares of a trial's own epochs.

Optuna's compares trials after so many epochs. Where epochs are searched that favours the short ones: their learning
rate has fallen by then, and that of the long ones, which end higher, has not. Here all are compared where their
schedules are equally far, and with those that learn alike: the same checkpoint, tuned in the same way. Of 151 classes
the upper layers know fewer than LoRA does for half of a training, and end above it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner
from optuna.study import StudyDirection

from tuneline.search.study import EPOCHS

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

RUNGS = (1 / 4, 1 / 2)
"""Shares of its epochs after which a trial may be stopped."""
ALIKE = ("model.name", "train.tune")
"""What trials must share to be compared early; where it is not searched, they do."""
REDUCTION = 2
"""A trial goes on to the next rung while it is in the better half of those that came there."""


class Halving(BasePruner):
    """Stops a trial that is not in the better half of those like it, measured at the same share of their epochs."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, which has just reported an epoch, is to be stopped."""
        rung = _reached(trial)
        if rung is None:
            return False
        own = trial.intermediate_values[trial.last_step or 0]
        if math.isnan(own):
            return True
        known = (other for other in study.get_trials(deepcopy=False) if other.number != trial.number)
        others = (_at(other, rung) for other in known if _kind(other) == _kind(trial))
        values = [own, *(value for value in others if value is not None and not math.isnan(value))]
        values.sort(reverse=study.direction == StudyDirection.MAXIMIZE)
        return own not in values[: max(1, len(values) // REDUCTION)]


def _kind(trial: FrozenTrial) -> list[Any]:
    return [trial.params.get(key) for key in ALIKE]


def _reached(trial: FrozenTrial) -> float | None:
    """The rung at which the last report stands, if it stands at one."""
    return next((rung for rung in RUNGS if trial.last_step == _epoch(trial, rung)), None)


def _at(trial: FrozenTrial, rung: float) -> float | None:
    """What a trial had reported at this rung; None where it did not come there, or passes it with its first epoch."""
    epoch = _epoch(trial, rung)
    return None if epoch is None else trial.intermediate_values.get(epoch)


def _epoch(trial: FrozenTrial, rung: float) -> int | None:
    """The first epoch at whose end a trial has come to a rung; None where it has come to the next one by then."""
    epochs = trial.user_attrs.get(EPOCHS, 0)
    epoch = math.ceil(rung * epochs - 1e-9)
    return epoch if epochs and epoch / epochs < rung * REDUCTION else None
