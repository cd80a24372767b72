"""The history of a model's champion: an append-only ledger in the registry, and the alias that follows it.

MLflow cannot move an alias on a condition: the last writer wins. But the version numbers that a registry gives out are
unique, and number n is given only when n-1 is there for all to see. So each move is a version of a side model,
`NAME.moves`, that holds tags and no files. Who won a race is not asked of anybody: whoever replays the ledger in its
order sees it. A move counts where the champion at its place is the one that it expects; any other is a conflict.

The alias `champion`, which predictions follow, is set after the ledger, to what the replay says. Whoever sets it has
an entry of its own in the ledger, and marks it `settled` once the alias was set and the ledger, read again after
that, still said the same. So an alias that differs tells why. Where it is at a version that was champion since the
first entry that is not settled, its setter was killed, or is slow; whoever needs the alias enters a `follow` and sets
it. Anywhere else it was moved outside of tuneline. That is said only where the alias was read between two readings of
the ledger that are equal, because a move that is made in between looks the same.
"""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from tuneline.config import LEDGER_SUFFIX
from tuneline.errors import ServiceError
from tuneline.trouble import passes, patiently, trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
FIRST, PROMOTE, ROLLBACK, OUTSIDE, FOLLOW = "first", "promote", "rollback", "outside", "follow"
SUFFIX = LEDGER_SUFFIX
_SOURCE = "tuneline:/move"
_PATIENCE_SECONDS, _GRACE_SECONDS, _UNFINISHED_SECONDS = 180, 3, 600
_TAG = "tuneline.move."
_SETTLED = "tuneline.settled"


@dataclass(frozen=True)
class Move:
    """One entry of the ledger.

    Attributes:
        before: the champion that it expects, and so replaces; None for no champion.
        to: the version that it makes champion; None for none.
        kind: first, promote, rollback; outside for a move of the alias that was found, and not made, by tuneline;
            follow for an entry that only lets the alias follow.
        who: user@host, as its maker said.
        reason: why, in the maker's words.
        override: the gate had refused the version.
        evidence: what spoke for the version when it was moved, such as the gate's verdicts.
        id: names it whatever number it gets: a request that was sent twice is one move.
        number: its place in the ledger.
        at: when the registry took it, in milliseconds since 1970.
        settled: the alias has followed it.
    """

    before: str | None
    to: str | None
    kind: str
    who: str = ""
    reason: str = ""
    override: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    number: int = 0
    at: int = 0
    settled: bool = False

    def summary(self) -> dict[str, Any]:
        """What `history --json` shows of it; `from` is the champion that it replaced."""
        told = asdict(self)
        when = datetime.fromtimestamp(self.at / 1000, UTC).isoformat(timespec="milliseconds")
        del told["settled"]
        return {"number": told.pop("number"), "from": told.pop("before"), **told, "at": when.replace("+00:00", "Z")}


@dataclass(frozen=True)
class Ledger:
    """A ledger as replayed.

    Attributes:
        champion: the version that the last move which counts has made champion.
        moves: those that count, in order.
        conflicts: those that lost: another move had come before them.
        missing: numbers of entries that somebody has deleted.
        known: False where entries are missing after which nothing tells the champion.
        follows: entries that moved nothing, whose makers let the alias follow.
    """

    champion: str | None
    moves: list[Move]
    conflicts: list[Move]
    missing: list[int]
    known: bool = True
    follows: list[Move] = field(default_factory=list)

    def agrees(self, at: str | None) -> bool:
        """Whether the alias, which is at this version, stands where the ledger has it."""
        return self.known and at == self.champion

    def lags(self, at: str | None) -> bool:
        """Whether the alias is where a setter that has not settled yet may have left it or put it."""
        return self.known and at != self.champion and at in self._unsettled_ends()

    def _unsettled_ends(self) -> set[str | None]:
        entries = sorted([*self.moves, *self.follows], key=lambda entry: entry.number)
        since = next((place for place, entry in enumerate(entries) if not entry.settled), len(entries))
        return {entry.before for entry in entries[since : since + 1]} | {entry.to for entry in entries[since:]}

    @property
    def unsettled(self) -> list[Move]:
        """Entries that count, and whose maker has not said that the alias followed."""
        return [entry for entry in [*self.moves, *self.follows] if not entry.settled]

    def counts(self, move: Move) -> Move | None:
        """The entry of that move where it counts."""
        return next((made for made in [*self.moves, *self.follows] if made.id == move.id), None)


def replay(entries: Iterable[Move]) -> Ledger:
    """Decide which moves count, in the order of their numbers, whatever order they are given in.

    Where entries were deleted, the champion at that point is not known. Then the next move that the alias has followed
    (settled), or that says where the alias was found, is taken for what it says.
    """
    champion: str | None = None
    known, seen, last = True, set[str](), 0
    moves: list[Move] = []
    follows: list[Move] = []
    conflicts: list[Move] = []
    missing: list[int] = []
    for entry in sorted(entries, key=lambda entry: entry.number):
        gap = range(last + 1, entry.number)
        missing += gap
        known, last = known and not gap, entry.number
        if entry.id in seen:
            continue
        seen.add(entry.id)
        if entry.before == champion if known else entry.settled or entry.kind == OUTSIDE:
            champion, known = entry.to, True
            (follows if entry.kind == FOLLOW else moves).append(entry)
        else:
            conflicts.append(entry)
    return Ledger(champion, moves, conflicts, missing, known, follows)


def read(api: MlflowClient, name: str) -> Ledger:
    """The ledger of a registered model; an empty one where nothing was moved yet."""
    found, token, query = [], None, f"name = '{name}{SUFFIX}'"
    while True:
        ask = partial(api.search_model_versions, query, max_results=10_000, order_by=["version_number ASC"])
        page = patiently(partial(ask, page_token=token))
        found += page
        if not (token := page.token):
            return replay(_move(version) for version in found)


def _move(version: Any) -> Move:
    tags = version.tags
    return Move(
        tags.get(f"{_TAG}from") or None, tags.get(f"{_TAG}to") or None, tags.get(f"{_TAG}kind", ""),
        tags.get(f"{_TAG}who", ""), tags.get(f"{_TAG}reason", ""), tags.get(f"{_TAG}override") == "true",
        json.loads(tags.get(f"{_TAG}evidence") or "{}"), tags.get(f"{_TAG}id", f"entry {version.version}"),
        int(version.version), version.creation_timestamp, tags.get(_SETTLED) == "true",
    )  # fmt: skip


def alias(api: MlflowClient, name: str) -> str | None:
    """The version that holds the alias champion."""
    at = patiently(lambda: api.get_registered_model(name)).aliases.get(CHAMPION)
    return None if at is None else str(at)


def make(
    before: str | None, to: str | None, kind: str, reason: str = "", override: bool = False,
    evidence: dict[str, Any] | None = None,
) -> Move:  # fmt: skip
    """A move of this user that is not in the ledger yet."""
    return Move(before, to, kind, who(), reason, override, evidence or {}, id=uuid.uuid4().hex)


def who() -> str:
    """Who moves, as history will say: the tracking server's user, else this machine's, and where."""
    if run := os.environ.get("KFP_RUN_ID"):
        return f"pipeline run {run}"
    try:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def append(api: MlflowClient, name: str, move: Move) -> Ledger:
    """Put a move into the ledger, and see what became of it.

    A request that fails is sent again: of two entries with one id, the replay takes the first.

    Returns:
        The ledger, in which the move counts or is a conflict.

    Raises:
        ServiceError: no clear answer within three minutes.
    """
    from mlflow.exceptions import MlflowException

    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            api.create_model_version(
                f"{name}{SUFFIX}", _SOURCE, tags=_tags(move), description=_told(name, move), await_creation_for=0
            )
            return read(api, name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                _open(api, name)
            elif not passes(error):
                raise
            elif time.monotonic() > until:
                raise ServiceError(
                    f"{trouble(error)}; whether {name} was moved is not known: `tuneline history {name}` tells"
                ) from None
            else:
                time.sleep(random.uniform(0.1, 1))


def _open(api: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    told = (
        f"The history of {name}'s champion, a version a move, written and read by `tuneline promote`, `rollback` and "
        f"`history`. No models are in here. Do not delete or change any of it."
    )
    try:
        patiently(lambda: api.create_registered_model(f"{name}{SUFFIX}", {"tuneline.ledger_of": name}, told))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(move: Move) -> dict[str, str]:
    values = {
        "id": move.id, "kind": move.kind, "from": move.before or "", "to": move.to or "", "who": move.who,
        "reason": move.reason, "override": "true" if move.override else "false", "evidence": json.dumps(move.evidence),
    }  # fmt: skip
    return {f"{_TAG}{key}": value for key, value in values.items()}


def _told(name: str, move: Move) -> str:
    why = f": {move.reason}" if move.reason else ""
    return f"{move.kind} of {name}: {move.before or 'none'} -> {move.to or 'none'}, by {move.who}{why}"


def look(api: MlflowClient, name: str) -> tuple[Ledger, str | None]:
    """The ledger, and the version that holds the alias; one that the ledger does not explain was moved outside."""
    earlier = None
    while True:
        at, ledger = alias(api, name), read(api, name)
        if ledger.agrees(at) or ledger.lags(at) or ledger == earlier:
            return ledger, at
        earlier = ledger


def settle(api: MlflowClient, name: str) -> tuple[Ledger, str | None]:
    """Look, and let the alias follow where its setter does not within some seconds.

    Returns:
        As look; the alias lags only where its version was deleted.
    """
    until = time.monotonic() + _GRACE_SECONDS
    ledger, at = look(api, name)
    while ledger.lags(at) and time.monotonic() < until:
        time.sleep(0.2)
        ledger, at = look(api, name)
    if ledger.lags(at):
        follow = make(ledger.champion, ledger.champion, FOLLOW, "the alias had not followed")
        if append(api, name, follow).counts(follow):
            finish(api, name, follow)
        ledger, at = look(api, name)
    if ledger.agrees(at):
        _close_old(api, name, ledger)
    return ledger, at


def finish(api: MlflowClient, name: str, move: Move) -> Ledger:
    """Let the alias follow an entry of one's own that counts, and mark it settled.

    Between reading the ledger and setting the alias another move may have come, whose maker set the alias first: so the
    ledger is read again after the alias is set, until both agree.
    """
    ledger, pointed = read(api, name), False
    while not pointed:
        champion = ledger.champion
        _point(api, name, champion)
        ledger = read(api, name)
        pointed = ledger.champion == champion
    if made := ledger.counts(move):
        _mark(api, name, made)
    return ledger


def _close_old(api: MlflowClient, name: str, ledger: Ledger) -> None:
    """Settle for their makers, who are gone, the moves that the alias has followed ten minutes ago or more."""
    since = (time.time() - _UNFINISHED_SECONDS) * 1000
    for move in ledger.unsettled:
        if move.at < since:
            _mark(api, name, move)


def _mark(api: MlflowClient, name: str, move: Move) -> None:
    patiently(lambda: api.set_model_version_tag(f"{name}{SUFFIX}", str(move.number), _SETTLED, "true"))


def _point(api: MlflowClient, name: str, version: str | None) -> bool:
    """Set the alias; False where the version was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        if version is None:
            patiently(lambda: api.delete_registered_model_alias(name, CHAMPION))
        else:
            patiently(lambda: api.set_registered_model_alias(name, CHAMPION, version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True
