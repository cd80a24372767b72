"""Who becomes champion: promote, roll back, and the first champion, by compare-and-swap on the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tuneline import ledger
from tuneline.errors import ConflictError, InputError
from tuneline.ledger import FIRST, OUTSIDE, PROMOTE, ROLLBACK, Ledger, Move

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOBODY = "none"
"""What `--expect` calls it where there is no champion."""
_EVIDENCE = ("tuneline.gate", "tuneline.metric.", "tuneline.data_sha256", "tuneline.manifest_sha256", "tuneline.copied")
_REASON_LENGTH = 2000


@dataclass(frozen=True)
class Moved:
    """What a move came to.

    Attributes:
        model: the registered model.
        version: its champion now.
        before: the champion that it replaced; None for none.
        move: the entry in the history; None where the version was champion already.
        outside: the move that somebody made outside of tuneline, found on the way and recorded; None for none.
    """

    model: str
    version: str
    before: str | None
    move: Move | None
    outside: Move | None = None


def promote(
    api: MlflowClient, version: Any, expect: str | None = None, reason: str = "", override: bool = False
) -> Moved:
    """Make a version champion.

    Args:
        api: the registry.
        version: as registry.find gives it.
        expect: the champion that it is to replace, `none` for no champion; None takes the one that is there now.
        reason: why, for the history.
        override: promote it although the gate refused it.

    Raises:
        InputError: the gate refused the version.
        ConflictError: another version is champion than expected, or has become so in between.
    """
    name, to = version.name, str(version.version)
    check_reason(reason)
    refused = check_gate(version, override)
    known, outside = _current(api, name, expect)
    if known.champion == to and (expect is None or _is_last(known, _version(expect), to)):
        ledger.settle(api, name)
        return Moved(name, to, to, None, outside)
    _require(name, known, known.champion if expect is None else _version(expect))
    move = ledger.make(known.champion, to, PROMOTE, reason, refused, evidence_of(version))
    return _moved(api, name, move, outside)


def check_gate(version: Any, override: bool = False) -> bool:
    """Refuse a version that the gate refused, or never judged, unless that is overridden.

    Returns:
        Whether it is.

    Raises:
        InputError: names the rules.
    """
    if version.tags.get("tuneline.gate") == "passed":
        return False
    if not override:
        why = f"{version.name}/{version.version}: {_refusal(version.tags)}"
        raise InputError(f"{why}; --override promotes it all the same, and is recorded")
    return True


def become_first(api: MlflowClient, name: str, version: str, evidence: dict[str, Any]) -> bool:
    """Make a version champion where there is none; of several that ask at once, one becomes it."""
    if ledger.alias(api, name) is not None:
        return False
    known, outside = _current(api, name, None)
    if known.champion is not None:
        ledger.settle(api, name)
        return False
    try:
        _moved(api, name, ledger.make(None, version, FIRST, "the first that passed the gate", False, evidence), outside)
    except ConflictError:
        return False
    return True


def rollback(api: MlflowClient, name: str, expect: str | None = None, reason: str = "") -> Moved:
    """Go back to the champion before, as a move of its own; again, to the one before that.

    Args:
        api: the registry.
        name: the registered model.
        expect: the champion to go back from; None takes the one that is there now.
        reason: why, for the history.

    Raises:
        InputError: there was no champion before, or its version was deleted.
        ConflictError: another version is champion than expected, or has become so in between.
    """
    from mlflow.exceptions import MlflowException

    check_reason(reason)
    known, outside = _current(api, name, expect)
    _require(name, known, known.champion if expect is None else _version(expect))
    to = before(known)
    if to is None:
        raise InputError(f"{name}: no champion before {_called(known.champion)}; nothing to go back to")
    try:
        api.get_model_version(name, to)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"{name}: version {to}, the champion before, was deleted; promote another version") from None
    return _moved(api, name, ledger.make(known.champion, to, ROLLBACK, reason), outside)


def evidence_of(version: Any) -> dict[str, Any]:
    """What speaks for a version in the history: the gate's verdicts, the metrics, its run and what it was made of."""
    tags = {key.removeprefix("tuneline."): value for key, value in version.tags.items() if key.startswith(_EVIDENCE)}
    return tags | {"run_id": version.run_id or ""}


def before(known: Ledger) -> str | None:
    """The champion that a rollback goes back to; a version that was rolled back from is not gone back to."""
    stack: list[str | None] = []
    for move in known.moves:
        if move.kind == ROLLBACK and move.to in stack:
            del stack[len(stack) - stack[::-1].index(move.to) :]
        else:
            stack.append(move.to)
    return next((to for to in reversed(stack) if to not in (None, known.champion)), None)


def _current(api: MlflowClient, name: str, expect: str | None) -> tuple[Ledger, Move | None]:
    """The ledger, with a move of the alias that was made outside of tuneline recorded in it."""
    known, at = ledger.look(api, name)
    if known.agrees(at) or known.lags(at):
        return known, None
    if expect is not None and at != _version(expect):
        recorded = f"after the last recorded move it was {_called(known.champion)}"
        raise ConflictError(
            f"{name}: the champion is {_called(at)}, not {_called(_version(expect))}: the alias was moved outside of "
            f"tuneline ({recorded}); nothing was moved; see `tuneline history {name}`"
        )
    found = ledger.make(known.champion, at, OUTSIDE, "the alias was found here")
    known = ledger.append(api, name, found)
    made = known.counts(found)
    return (ledger.finish(api, name, found) if made else known), made


def _moved(api: MlflowClient, name: str, move: Move, outside: Move | None) -> Moved:
    known = ledger.append(api, name, move)
    made = known.counts(move)
    if made is None:
        raise _conflict(name, known, move.before)
    ledger.finish(api, name, move)
    return Moved(name, str(move.to), move.before, made, outside)


def _require(name: str, known: Ledger, expected: str | None) -> None:
    if known.champion != expected:
        raise _conflict(name, known, expected)


def _conflict(name: str, known: Ledger, expected: str | None) -> ConflictError:
    by = ""
    if known.moves:
        last = known.moves[-1]
        when = datetime.fromtimestamp(last.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        by = f" ({last.kind} by {last.who}, {when})"
    return ConflictError(
        f"{name}: the champion is {_called(known.champion)}{by}, not {_called(expected)}; nothing was moved; "
        f"see `tuneline history {name}`"
    )


def _is_last(known: Ledger, expected: str | None, to: str) -> bool:
    """Whether the last move was this very one: a command that is run again has reached its aim."""
    return bool(known.moves) and (known.moves[-1].before, known.moves[-1].to) == (expected, to)


def _refusal(tags: dict[str, str]) -> str:
    if "tuneline.gate" not in tags:
        return "no gate has judged it"
    rules = {
        key.removeprefix("tuneline.gate."): value for key, value in tags.items() if key.startswith("tuneline.gate.")
    }
    failed = [
        f"{rule}: {value.partition(': ')[2]}" for rule, value in sorted(rules.items()) if value.startswith("refused")
    ]
    return f"the gate refused it ({'; '.join(failed) or 'see its tags'})"


def check_reason(reason: str) -> None:
    """Refuse a reason that is too long to be kept.

    Raises:
        InputError: tells how long it may be.
    """
    if len(reason) > _REASON_LENGTH:
        raise InputError(f"--reason: {len(reason)} characters given; at most {_REASON_LENGTH}")


def _version(expect: str) -> str | None:
    if expect == NOBODY:
        return None
    if not expect.isdecimal():
        raise InputError(
            f"--expect: {expect!r} given; the number of a version, or {NOBODY!r} for no champion, is needed"
        )
    return str(int(expect))


def _called(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
