"""Promote, roll back and the first champion, in a real registry: what moves, what is refused, and what is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from tuneline import ledger, promotion
from tuneline.errors import ConflictError, InputError
from tuneline.promotion import become_first, promote, rollback
from tuneline.registry import copy, find

pytestmark = pytest.mark.medium


@pytest.fixture
def desk(store):
    """A registered model of five versions that the gate passed, and a sixth that it refused."""
    store.create_registered_model("desk")
    for number in range(1, 7):
        tags = {"tuneline.gate": "passed" if number < 6 else "refused", "tuneline.metric.accuracy": f"0.{number}"}
        if number == 6:
            tags["tuneline.gate.min_accuracy"] = "refused: accuracy 0.6, needs 0.95"
        run = store.create_run("0")
        store.create_model_version("desk", f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags)
    return store


def go(store: Any, number: int, **more: Any) -> promotion.Moved:
    return promote(store, find(f"desk/{number}"), **more)


def chain(store: Any) -> list[tuple[str, str | None, str | None]]:
    return [(move.kind, move.before, move.to) for move in ledger.read(store, "desk").moves]


def test_a_promoted_version_is_champion_and_its_evidence_is_kept(desk):
    moved = go(desk, 2, reason="better on May")
    assert (moved.version, moved.before) == ("2", None)
    assert ledger.alias(desk, "desk") == "2"
    (move,) = ledger.read(desk, "desk").moves
    assert move.evidence == {"gate": "passed", "metric.accuracy": "0.2", "run_id": find("desk/2").run_id}
    assert (move.reason, move.override) == ("better on May", False)


def test_a_promotion_that_expects_another_champion_is_a_conflict_that_names_it_and_its_mover(desk):
    go(desk, 1)
    go(desk, 2)
    with pytest.raises(
        ConflictError, match=r"^desk: the champion is version 2 \(promote by \S+@\S+, .* UTC\), not version 1"
    ):
        go(desk, 3, expect="1")
    with pytest.raises(ConflictError, match="not none; nothing was moved; see `tuneline history desk`"):
        go(desk, 3, expect="none")
    assert ledger.alias(desk, "desk") == "2"
    assert ledger.read(desk, "desk").conflicts == []  # seen before it was written
    go(desk, 3, expect="2")


def test_of_two_who_saw_the_same_champion_the_second_to_ask_is_told(desk, monkeypatch):
    go(desk, 1)
    append = ledger.append

    def overtaken(api, name, move):
        patch.setattr(ledger, "append", append)
        go(desk, 2)
        return append(api, name, move)

    third = find("desk/3")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "append", overtaken)
        with pytest.raises(ConflictError, match=r"the champion is version 2 .* not version 1"):
            promote(desk, third)
    assert [move.to for move in ledger.read(desk, "desk").conflicts] == ["3"]


def test_a_promotion_that_is_run_again_reaches_its_aim_without_a_second_move(desk):
    go(desk, 1)
    go(desk, 2, expect="1")
    for again in (go(desk, 2, expect="1"), go(desk, 2)):
        assert (again.version, again.move) == ("2", None)
    with pytest.raises(ConflictError):
        go(desk, 2, expect="3")
    assert len(chain(desk)) == 2


def test_a_version_that_the_gate_refused_is_promoted_only_by_an_override_which_is_recorded(desk):
    with pytest.raises(
        InputError, match=r"^desk/6: the gate refused it \(min_accuracy: accuracy 0\.6, needs 0\.95\); --over"
    ):
        go(desk, 6)
    assert chain(desk) == []
    go(desk, 6, override=True)
    go(desk, 1, override=True)
    assert [move.override for move in ledger.read(desk, "desk").moves] == [True, False]


def test_a_version_that_no_gate_judged_is_not_promoted(desk):
    desk.delete_model_version_tag("desk", "1", "tuneline.gate")
    with pytest.raises(InputError, match="no gate has judged it"):
        go(desk, 1)


def test_a_refusal_names_every_rule_that_refused_and_none_that_passed(desk):
    desk.set_model_version_tag("desk", "6", "tuneline.gate.better", "refused: accuracy -1, needs 0")
    desk.set_model_version_tag("desk", "6", "tuneline.gate.slices", "passed: 2 slices")
    with pytest.raises(
        InputError, match=r"refused it \(better: accuracy -1, needs 0; min_accuracy: accuracy 0\.6, needs 0\.95\);"
    ):
        go(desk, 6)
    desk.set_model_version_tag("desk", "5", "tuneline.gate", "refused")
    with pytest.raises(InputError, match=r"the gate refused it \(see its tags\)"):
        go(desk, 5)


def test_all_that_speaks_for_a_version_is_kept_in_the_history_and_nothing_else(desk):
    kept = {"gate.slices": "passed: none", "data_sha256": "d", "manifest_sha256": "m", "copied_from": "dev/3"}
    for key, value in (kept | {"other": "x"}).items():
        desk.set_model_version_tag("desk", "1", f"tuneline.{key}", value)
    go(desk, 1)
    (move,) = ledger.read(desk, "desk").moves
    assert move.evidence == kept | {"gate": "passed", "metric.accuracy": "0.1", "run_id": find("desk/1").run_id}


def test_a_promotion_that_is_run_again_lets_the_alias_follow_of_one_that_was_killed(desk, monkeypatch):
    monkeypatch.setattr(ledger, "_GRACE_SECONDS", 0)
    ledger.append(desk, "desk", ledger.make(None, "2", "promote"))
    assert ledger.alias(desk, "desk") is None
    assert go(desk, 2).move is None
    assert ledger.alias(desk, "desk") == "2"


def test_no_first_champion_is_made_where_one_was_promoted_whose_alias_lags(desk, monkeypatch):
    monkeypatch.setattr(ledger, "_GRACE_SECONDS", 0)
    ledger.append(desk, "desk", ledger.make(None, "2", "promote"))
    assert not become_first(desk, "desk", "1", {})
    assert ledger.alias(desk, "desk") == "2"
    assert chain(desk) == [("promote", None, "2")]


def test_an_expected_version_may_be_written_with_zeros(desk):
    go(desk, 1)
    assert go(desk, 2, expect="01").before == "1"


@pytest.mark.parametrize("expect", ["x", "", "-1", "1.0"])
def test_an_expectation_that_is_no_version_is_told(desk, expect):
    with pytest.raises(InputError, match=r"--expect: .* the number of a version, or 'none'"):
        go(desk, 1, expect=expect)


def test_a_reason_is_not_a_book(desk):
    with pytest.raises(InputError, match="--reason: 2001 characters given; at most 2000"):
        go(desk, 1, reason="x" * 2001)


def test_rolling_back_goes_back_one_champion_at_a_time(desk):
    for number in (1, 2, 3):
        go(desk, number)
    assert [rollback(desk, "desk").version for _ in range(2)] == ["2", "1"]
    with pytest.raises(InputError, match="desk: no champion before version 1; nothing to go back to"):
        rollback(desk, "desk")
    go(desk, 4)
    assert rollback(desk, "desk", reason="worse").version == "1"
    assert chain(desk)[-1] == ("rollback", "4", "1")
    assert ledger.read(desk, "desk").moves[-1].reason == "worse"


def test_a_rollbacks_reason_is_not_a_book_and_moves_nothing(desk):
    go(desk, 1)
    go(desk, 2, reason="x" * 2000)
    with pytest.raises(InputError, match="--reason: 2001 characters given; at most 2000"):
        rollback(desk, "desk", reason="x" * 2001)
    assert ledger.alias(desk, "desk") == "2"


def test_a_registry_that_fails_at_a_rollback_is_not_taken_for_a_deleted_version(desk, monkeypatch):
    go(desk, 1)
    go(desk, 2)

    def fails(*_: Any) -> None:
        raise MlflowException("disk full")

    monkeypatch.setattr(desk, "get_model_version", fails)
    with pytest.raises(MlflowException, match="disk full"):
        rollback(desk, "desk")
    assert ledger.alias(desk, "desk") == "2"


def test_a_champion_that_came_back_by_promotion_is_gone_back_from_to_the_one_before(desk):
    for number in (1, 2, 1):
        go(desk, number)
    assert [rollback(desk, "desk").version for _ in range(2)] == ["2", "1"]


def test_rolling_back_from_another_champion_than_expected_is_a_conflict(desk):
    go(desk, 1)
    go(desk, 2)
    with pytest.raises(ConflictError):
        rollback(desk, "desk", expect="1")
    assert rollback(desk, "desk", expect="2").version == "1"


def test_a_champion_before_that_was_deleted_is_not_gone_back_to(desk):
    go(desk, 1)
    go(desk, 2)
    desk.delete_model_version("desk", "1")
    with pytest.raises(InputError, match="version 1, the champion before, was deleted; promote another version"):
        rollback(desk, "desk")
    assert ledger.alias(desk, "desk") == "2"


def test_a_move_of_the_alias_outside_is_recorded_when_the_next_is_made(desk):
    go(desk, 1)
    desk.set_registered_model_alias("desk", "champion", "4")
    moved = go(desk, 2)
    assert moved.outside is not None
    assert chain(desk) == [("promote", None, "1"), ("outside", "1", "4"), ("promote", "4", "2")]


def test_a_move_of_the_alias_outside_is_a_conflict_for_who_expected_the_recorded_champion(desk):
    go(desk, 1)
    desk.set_registered_model_alias("desk", "champion", "4")
    with pytest.raises(
        ConflictError, match="the champion is version 4, not version 1: the alias was moved outside of tuneline"
    ):
        go(desk, 2, expect="1")
    go(desk, 2, expect="4")


def test_a_move_of_the_alias_outside_is_undone_by_a_rollback(desk):
    go(desk, 1)
    desk.set_registered_model_alias("desk", "champion", "4")
    assert rollback(desk, "desk").version == "1"
    assert chain(desk)[1:] == [("outside", "1", "4"), ("rollback", "4", "1")]


def test_an_alias_that_was_deleted_outside_leaves_no_champion(desk):
    go(desk, 1)
    desk.delete_registered_model_alias("desk", "champion")
    go(desk, 2, expect="none")
    assert chain(desk)[1:] == [("outside", "1", None), ("promote", None, "2")]


def test_a_champion_from_before_the_history_began_is_its_first_entry(desk):
    desk.set_registered_model_alias("desk", "champion", "3")
    go(desk, 1)
    assert chain(desk) == [("outside", None, "3"), ("promote", "3", "1")]
    assert rollback(desk, "desk").version == "3"


def test_a_history_with_deleted_entries_goes_on(desk):
    for number in (1, 2, 3):
        go(desk, number)
    desk.delete_model_version("desk.moves", "3")
    go(desk, 4)
    known = ledger.read(desk, "desk")
    assert (known.champion, known.missing, known.known) == ("4", [3], True)
    assert chain(desk)[2:] == [("outside", "2", "3"), ("promote", "3", "4")]


def test_of_two_first_champions_that_ask_at_once_one_becomes_it(desk, monkeypatch):
    append = ledger.append

    def overtaken(api, name, move):
        monkeypatch.setattr(ledger, "append", append)
        assert become_first(desk, "desk", "2", {})
        return append(api, name, move)

    monkeypatch.setattr(ledger, "append", overtaken)
    assert not become_first(desk, "desk", "1", {})
    assert ledger.alias(desk, "desk") == "2"
    assert chain(desk) == [("first", None, "2")]


def test_a_promotion_that_is_given_again_has_reached_its_aim_and_another_s_aim_is_a_conflict(desk):
    for number in (1, 2, 3):
        go(desk, number)
    again = go(desk, 3, expect="2")
    assert (again.before, again.version, again.move) == ("3", "3", None)
    with pytest.raises(ConflictError, match="the champion is version 3"):
        go(desk, 3, expect="1")
    assert len(chain(desk)) == 3


def test_a_champion_without_a_history_is_not_taken_for_the_aim_of_a_promotion_that_expects_another(desk):
    desk.set_registered_model_alias("desk", "champion", "1")
    with pytest.raises(ConflictError, match="the champion is version 1"):
        go(desk, 1, expect="2")


def test_the_first_champion_is_no_override(desk):
    assert become_first(desk, "desk", "1", {})
    (move,) = ledger.read(desk, "desk").moves
    assert (move.kind, move.override) == ("first", False)


def test_where_there_is_a_champion_no_first_one_is_made(desk):
    go(desk, 1)
    assert not become_first(desk, "desk", "2", {})
    desk.set_registered_model_alias("desk", "champion", "3")
    assert not become_first(desk, "desk", "2", {})
    assert ledger.alias(desk, "desk") == "3"
    assert chain(desk) == [("promote", None, "1")]  # whoever moves next records where the alias was found


def test_a_version_is_copied_to_another_model_once_with_its_tags_and_its_origin(desk):
    first, again = copy(find("desk/2"), "prod"), copy(find("desk/2"), "prod")
    assert (first.name, str(first.version), str(again.version)) == ("prod", "1", "1")
    assert first.run_id == find("desk/2").run_id
    assert (first.tags["tuneline.copied_from"], first.tags["tuneline.gate"]) == ("desk/2", "passed")
    assert str(copy(find("desk/3"), "prod").version) == "2"
    assert promote(desk, first).version == "1"
    assert ledger.alias(desk, "desk") is None


@pytest.mark.parametrize("reference", ["desk.moves/1", "desk.moves@champion"])
def test_the_history_is_not_taken_for_a_model(desk, reference):
    go(desk, 1)
    with pytest.raises(InputError, match=r"desk\.moves: holds the history of a model"):
        find(reference)
    with pytest.raises(InputError, match=r"names that end in \.moves hold the histories of models"):
        copy(find("desk/1"), "desk.moves")
    with pytest.raises(InputError, match=r"registered models: desk$"):
        find("nobody/1")
