"""The labels that the model will know, in the order of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

from tuneline.errors import InputError


def order(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Labels in the order of the model's outputs: as wanted, else sorted, whole numbers by their value.

    Args:
        names: the labels that occur, each once.
        wanted: data.label_order; empty sorts.

    Raises:
        InputError: what is wanted names other labels than occur.
    """
    if not wanted:
        numeric = all(name.isascii() and name.isdigit() for name in names)
        return sorted(names, key=(lambda name: (int(name), name)) if numeric else None)
    absent, more = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    if absent or more:
        told = [f"{shown(absent[0])} occurs in no training row"] if absent else []
        told += [f"the label {shown(more[0])} of the data is not named"] if more else []
        count = len(absent) + len(more) - len(told)
        also = f" (and {count} more)" if count else ""
        raise InputError(f"data.label_order: {' and '.join(told)}{also}; name exactly the labels of the training rows")
    return list(wanted)


def shown(label: str) -> str:
    """A label for a message; short, because a column of texts may have been taken for labels."""
    return repr(label if len(label) <= 40 else f"{label[:40]}…")
