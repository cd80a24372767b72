"""The ledger of a model's champion: which moves count, and that the alias follows whatever happens to their maker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline import ledger
from tuneline.errors import ConflictError, ServiceError
from tuneline.ledger import Move, replay
from tuneline.promotion import promote


def entry(number: int, before: str | None, to: str | None, **more: Any) -> Move:
    return Move(before, to, more.pop("kind", "promote"), id=more.pop("id", f"m{number}"), number=number, **more)


def test_of_two_moves_that_expect_the_same_champion_the_one_with_the_lower_number_counts():
    known = replay([entry(1, None, "1"), entry(3, "1", "3"), entry(2, "1", "2")])
    assert known.champion == "2"
    assert [move.number for move in known.moves] == [1, 2]
    assert [move.number for move in known.conflicts] == [3]


def test_a_move_that_was_sent_twice_counts_once():
    known = replay([entry(1, None, "1", id="a"), entry(2, None, "1", id="a"), entry(3, "1", "2")])
    assert (known.champion, len(known.moves), known.conflicts) == ("2", 2, [])


def test_without_entries_there_is_no_champion():
    assert replay([]) == ledger.Ledger(None, [], [], [])


def test_after_a_deleted_entry_the_next_settled_move_is_taken_for_what_it_says():
    kept = [entry(1, None, "1"), entry(3, "2", "3"), entry(4, "2", "4", settled=True), entry(5, "4", "5")]
    known = replay(kept)
    assert (known.champion, known.missing, known.known) == ("5", [2], True)
    assert [move.number for move in known.conflicts] == [3]


def test_after_a_deleted_entry_without_a_settled_one_the_champion_is_not_known():
    known = replay([entry(1, None, "1"), entry(3, "2", "3")])
    assert not known.known
    assert not known.agrees("1")
    assert replay([entry(1, None, "1"), entry(3, "2", "3"), entry(4, "9", "7", kind="outside")]).agrees("7")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=30))
def test_the_moves_that_count_are_a_chain_and_every_expected_champion_is_replaced_once(pairs):
    known = replay(entry(number, str(a) if a else None, str(b)) for number, (a, b) in enumerate(pairs, start=1))
    champion = None
    for move in known.moves:
        assert move.before == champion
        champion = move.to
    assert known.champion == champion
    assert sorted(move.number for move in [*known.moves, *known.conflicts]) == list(range(1, len(pairs) + 1))


@pytest.fixture
def desk(store, monkeypatch):
    """A registered model of four versions; nobody waits for a slow maker."""
    monkeypatch.setattr(ledger, "_GRACE_SECONDS", 0)
    store.create_registered_model("desk")
    for _ in range(4):
        run = store.create_run("0")
        store.create_model_version("desk", f"{run.info.artifact_uri}/model", run.info.run_id)
    return store


def moved(store: Any, before: str | None, to: str | None) -> Move:
    """A move whose alias has followed."""
    move = ledger.make(before, to, "promote")
    assert ledger.append(store, "desk", move).counts(move)
    ledger.finish(store, "desk", move)
    return move


def test_a_move_is_kept_with_who_when_why_from_to_and_evidence_and_the_alias_follows(desk, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    move = ledger.make(None, "2", "promote", "better on May", True, {"gate": "refused", "run_id": "r"})
    ledger.append(desk, "desk", move)
    ledger.finish(desk, "desk", move)
    (made,) = ledger.read(desk, "desk").moves
    assert dataclasses.replace(made, number=0, at=0, settled=False) == move
    assert made.who.startswith("ana@")
    assert (made.number, made.settled, ledger.alias(desk, "desk")) == (1, True, "2")
    told = made.summary()
    assert (told["from"], told["to"], told["reason"], told["override"]) == (None, "2", "better on May", True)
    assert told["at"].endswith("Z")


def test_the_ledger_says_in_mlflow_what_it_is(desk):
    moved(desk, None, "1")
    side = desk.get_registered_model("desk.moves")
    assert side.tags == {"tuneline.ledger_of": "desk"}
    assert "The history of desk's champion" in side.description
    assert desk.get_model_version("desk.moves", "1").description.startswith("promote of desk: none -> 1, by ")


def test_a_move_whose_maker_was_killed_before_the_alias_moved_is_finished_by_the_next_who_looks(desk):
    moved(desk, None, "1")
    ledger.append(desk, "desk", ledger.make("1", "2", "promote"))
    assert ledger.alias(desk, "desk") == "1"
    known, at = ledger.settle(desk, "desk")
    assert (known.champion, at, ledger.alias(desk, "desk")) == ("2", "2", "2")


def test_a_slow_maker_does_not_put_the_alias_back_behind_a_later_move(desk, monkeypatch):
    slow = ledger.make(None, "1", "promote")
    ledger.append(desk, "desk", slow)
    point, overtaken = ledger._point, []

    def overtake(api, name, version):
        if not overtaken:
            overtaken.append(version)
            moved(desk, "1", "2")
        return point(api, name, version)

    monkeypatch.setattr(ledger, "_point", overtake)
    assert ledger.finish(desk, "desk", slow).champion == "2"
    assert overtaken == ["1"]
    assert ledger.alias(desk, "desk") == "2"
    assert ledger.read(desk, "desk").unsettled == []


def test_an_alias_that_a_slow_maker_has_put_back_is_not_taken_for_a_move_outside(desk):
    ledger.append(desk, "desk", ledger.make(None, "1", "promote"))  # its maker sleeps before it sets the alias
    moved(desk, "1", "2")
    desk.set_registered_model_alias("desk", "champion", "1")  # and wakes, and is killed
    known, at = ledger.settle(desk, "desk")
    assert (known.champion, at) == ("2", "2")


def between(monkeypatch: pytest.MonkeyPatch, name: str, call: int, happens: Callable[[], object]) -> None:
    """Let something happen right after the call-th call of a function of the ledger has got its answer."""
    real, calls = getattr(ledger, name), []

    def wrapped(*arguments):
        answer = real(*arguments)
        calls.append(name)
        if len(calls) == call:
            happens()
        return answer

    monkeypatch.setattr(ledger, name, wrapped)


def test_a_move_that_ends_between_the_looks_at_alias_and_ledger_is_not_taken_for_one_outside(desk, monkeypatch):
    moved(desk, None, "1")
    between(monkeypatch, "alias", 1, lambda: moved(desk, "1", "2"))
    known, at = ledger.look(desk, "desk")
    assert (known.champion, at) == ("2", "2")


def test_of_two_that_expect_one_champion_the_one_that_looked_while_the_other_moved_loses(desk, monkeypatch):
    moved(desk, None, "1")
    desk.set_model_version_tag("desk", "3", "tuneline.gate", "passed")
    between(monkeypatch, "alias", 1, lambda: moved(desk, "1", "2"))
    with pytest.raises(ConflictError, match="the champion is version 2"):
        promote(desk, desk.get_model_version("desk", "3"), expect="1")
    assert [move.to for move in ledger.read(desk, "desk").moves] == ["1", "2"]


def test_one_that_lets_the_alias_follow_late_is_not_taken_for_a_move_outside(desk, monkeypatch):
    ledger.append(desk, "desk", ledger.make(None, "1", "promote"))  # its maker was killed
    point, seen = ledger._point, []

    def late(api, name, version):
        if not seen:
            seen.append(version)
            moved(desk, "1", "2")
            moved(desk, "2", "3")
            answer = point(api, name, version)  # puts the alias back behind both
            seen.append(ledger.look(desk, "desk"))
            return answer
        return point(api, name, version)

    monkeypatch.setattr(ledger, "_point", late)
    known, at = ledger.settle(desk, "desk")
    meanwhile, was = seen[1]
    assert (meanwhile.champion, was, meanwhile.lags(was)) == ("3", "1", True)
    assert (known.champion, at) == ("3", "3")
    assert [move.to for move in known.moves] == ["1", "2", "3"]


def test_an_alias_that_was_moved_outside_is_left_and_told(desk):
    moved(desk, None, "1")
    moved(desk, "1", "2")
    desk.set_registered_model_alias("desk", "champion", "1")
    known, at = ledger.settle(desk, "desk")
    assert (known.champion, at, known.agrees(at)) == ("2", "1", False)
    assert ledger.alias(desk, "desk") == "1"


def test_a_move_that_nobody_settled_is_settled_when_it_is_old(desk, monkeypatch):
    ledger.append(desk, "desk", ledger.make(None, "1", "promote"))
    ledger.settle(desk, "desk")
    assert [move.number for move in ledger.read(desk, "desk").unsettled] == [1]
    monkeypatch.setattr(ledger, "_UNFINISHED_SECONDS", -1)
    ledger.settle(desk, "desk")
    assert ledger.read(desk, "desk").unsettled == []


def test_a_champion_whose_version_was_deleted_is_no_champion(desk):
    moved(desk, None, "1")
    desk.delete_model_version("desk", "1")
    known, at = ledger.settle(desk, "desk")
    assert (known.champion, at) == ("1", None)


def test_a_ledger_of_more_entries_than_a_page_is_read_whole_and_in_order(desk, monkeypatch):
    for before, to in ((None, "1"), ("1", "2"), ("2", "3"), ("3", "4"), ("4", "1")):
        ledger.append(desk, "desk", ledger.make(before, to, "promote"))
    search = type(desk).search_model_versions

    def small(self, query, max_results, **more):
        return search(self, query, max_results=2, **more)

    monkeypatch.setattr(type(desk), "search_model_versions", small)
    assert [move.to for move in ledger.read(desk, "desk").moves] == ["1", "2", "3", "4", "1"]


def test_a_request_whose_answer_is_lost_is_sent_again_and_is_one_move(desk, monkeypatch):
    from mlflow.exceptions import MlflowException

    create, lost = type(desk).create_model_version, []

    def lossy(self, *arguments, **more):
        made = create(self, *arguments, **more)
        if len(lost) < 2:
            lost.append(made.version)
            raise MlflowException("connection reset by peer")
        return made

    moved(desk, None, "1")
    monkeypatch.setattr(type(desk), "create_model_version", lossy)
    moved(desk, "1", "2")
    known = ledger.read(desk, "desk")
    assert lost == [2, 3]
    assert [(move.number, move.to) for move in known.moves] == [(1, "1"), (2, "2")]
    assert known.conflicts == []


def test_a_registry_that_never_answers_clearly_is_told_with_what_to_do(desk, monkeypatch):
    from mlflow.exceptions import MlflowException

    def broken(*_arguments, **_more):
        raise MlflowException("connection reset by peer")

    monkeypatch.setattr(ledger, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(type(desk), "create_model_version", broken)
    with pytest.raises(ServiceError, match="whether desk was moved is not known: `tuneline history desk` tells"):
        ledger.append(desk, "desk", ledger.make(None, "1", "promote"))


def test_a_refusal_of_the_registry_is_not_repeated(desk, monkeypatch):
    from mlflow.exceptions import MlflowException

    def refused(*_arguments, **_more):
        raise MlflowException("no", error_code=7)  # PERMISSION_DENIED

    moved(desk, None, "1")
    monkeypatch.setattr(type(desk), "create_model_version", refused)
    with pytest.raises(MlflowException):
        ledger.append(desk, "desk", ledger.make("1", "2", "promote"))


def test_who_in_a_cluster_is_the_pipelines_run(monkeypatch):
    monkeypatch.setenv("KFP_RUN_ID", "6e1f")
    assert ledger.who() == "pipeline run 6e1f"
