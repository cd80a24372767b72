"""How much a search may spend: hours, trials or dollars."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuneline.errors import InputError

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(h|m|min|s|trials?|usd)")
_SECONDS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}


@dataclass(frozen=True)
class Budget:
    """What ends a search; one of them.

    Attributes:
        text: as it was given.
        trials: trainings, those of finalists with other seeds included.
        seconds: of this machine.
    """

    text: str
    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str, usd_per_hour: float | None = None) -> Budget:
        """Read 2h, 30m, 90s, 20trials or 5usd.

        Args:
            text: the budget.
            usd_per_hour: what the machine costs, which dollars need.

        Raises:
            InputError: none of these, or dollars without a price.
        """
        match = _FORM.fullmatch(text.strip().lower())
        if not match or float(match[1]) <= 0:
            raise InputError(f"--budget: {text!r} given; write a number above 0 with its unit: 2h, 30m, 20trials, 5usd")
        amount, unit = float(match[1]), match[2]
        if unit.startswith("trial"):
            if not amount.is_integer():
                raise InputError(f"--budget: {text!r} given; trials are whole")
            return cls(text, trials=int(amount))
        if unit == "usd":
            if not usd_per_hour:
                raise InputError(
                    "--budget: dollars need the machine's price; give --usd-per-hour, or set TUNELINE_USD_PER_HOUR"
                )
            return cls(text, seconds=amount / usd_per_hour * 3600)
        return cls(text, seconds=amount * _SECONDS[unit])
