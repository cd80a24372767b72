"""What `tuneline sweep` may search, and what can be done about unequal classes while training. Part of the schema."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

_PLAIN = {"train.class_weights": False, "train.sampling": "natural", "train.logit_adjustment": 0.0,
          "train.focal_gamma": 0.0}  # fmt: skip
BALANCE: dict[str, dict[str, Any]] = {
    "none": _PLAIN,
    "class_weights": _PLAIN | {"train.class_weights": True},
    "focal": _PLAIN | {"train.focal_gamma": 2.0},
    "balanced_sampling": _PLAIN | {"train.sampling": "balanced"},
    "logit_adjustment": _PLAIN | {"train.logit_adjustment": 1.0},
}
"""What can be done about unequal classes while training, by name, as values of keys."""
_NOT_SEARCHED = {
    "train.seed": "finalists are repeated over seeds (sweep.seeds)",
    "train.distributed": "a trial is one process",
    "train.resume": "a trial keeps no checkpoints",
    "train.checkpoint_minutes": "a trial keeps no checkpoints",
}


def check_dimension(key: str, spec: Any, sections: dict[str, type[BaseModel]]) -> None:
    """Refuse a key that is not to be searched, or values that it does not take.

    Args:
        key: such as train.epochs, or balance.
        spec: its choices, or its range.
        sections: whose keys may be searched.

    Raises:
        ValueError: the message goes on after `sweep.`.
    """
    section, _, name = key.partition(".")
    known = {f"{part}.{field}": schema for part, schema in sections.items() for field in schema.model_fields}
    if key in _NOT_SEARCHED:
        raise ValueError(f"space: {key} is not searched: {_NOT_SEARCHED[key]}")
    if key != "balance" and key not in known:
        close = difflib.get_close_matches(key, ["balance", *known], n=1)
        hint = f"did you mean {close[0]}?" if close else "give a key of model or train, such as train.learning_rate"
        raise ValueError(f"space: {key}: unknown key; {hint}")
    if isinstance(spec, dict):
        values = _range_ends(key, spec)
        if section != "train":
            raise ValueError(f"space: {key}: a range given; give a list, because each value has data prepared for it")
    elif isinstance(spec, list) and spec:
        values = spec
    else:
        raise ValueError(
            f"space: {key}: {spec!r} given; give a list of choices, or a range such as {{low: 1, high: 9}}"
        )
    for value in values:
        _check_choice(key, value, known.get(key), name)


def _range_ends(key: str, spec: dict[str, Any]) -> list[Any]:
    strange = sorted(set(map(str, spec)) - {"low", "high", "log"})
    if strange or not {"low", "high"} <= set(spec):
        raise ValueError(f"space: {key}: a range holds low, high and perhaps log; {', '.join(map(str, spec))} given")
    ends = [number(spec["low"]), number(spec["high"])]
    if None in ends or ends[0] >= ends[1]:
        raise ValueError(
            f"space: {key}: low {spec['low']!r} and high {spec['high']!r} given; two numbers, the lower one first"
        )
    if not isinstance(spec.get("log", False), bool) or (spec.get("log") and ends[0] <= 0):
        raise ValueError(f"space: {key}: log {spec['log']!r} given; true or false, and true only with low above 0")
    return ends


def _check_choice(key: str, value: Any, schema: type[BaseModel] | None, name: str) -> None:
    if schema is None:
        if value not in BALANCE:
            raise ValueError(f"space: {key}: {value!r} given; allowed: {', '.join(BALANCE)}")
        return
    if not isinstance(value, str | int | float):
        raise ValueError(f"space: {key}: {value!r} given; single values can be searched")
    try:
        schema.model_validate({name: value})
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"space: {key}: {value!r} given; {message[0].lower()}{message[1:]}") from None


def taken(value: Any, kind: Any) -> Any:
    """A value as a field of this type takes it, however it is written: 2.0 for an int is 2, and 1e-5 is no text.

    Args:
        value: which the field allows.
        kind: the field's annotation; values of others than int and float stay as they are.
    """
    if kind is int:
        return int(number(value))
    return number(value) if kind is float else value


def number(value: Any) -> Any:
    """The value as a number, None where it is none: YAML 1.1 reads 1e-5, without a dot, as a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
