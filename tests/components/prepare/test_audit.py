"""The audit finds what is wrong, does what the policy says, and counts real data sets right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuneline.config import DataConfig, Policy
from tuneline.errors import InputError
from tuneline.prepare import facts
from tuneline.prepare.audit import Audit, Finding, SplitFacts, check, refuse, truncated

GOOD = [(f"a good film number {at}", "pos") for at in range(6)] + [
    (f"a bad film number {at}", "neg") for at in range(6)
]
HELD_OUT = {"validation": [("great actors", "pos")], "test": [("poor actors", "neg")]}


def audited(
    splits: dict[str, list[tuple[str, str]]], origins: dict[str, str] | None = None, near: float = 0.0, **policy: str
) -> Audit:
    """The audit of rows held in memory; a missing label is ""."""
    names = list(dict.fromkeys(label for rows in splits.values() for _, label in rows if label))
    parts, start = {}, {"train": 0, "validation": 0, "test": 0}
    for split, rows in splits.items():
        origin = (origins or {}).get(split, split)
        texts = [text for text, _ in rows]
        codes = np.array([names.index(label) if label else -1 for _, label in rows], np.int32)
        places = np.arange(start[origin], start[origin] + len(rows))
        start[origin] += len(rows)
        found = facts.examine(texts, None, near)
        parts[split] = SplitFacts(
            f"{origin}.csv", origin, places, codes, found, lambda at, texts=texts: [texts[row] for row in at]
        )
    return check(parts, names, DataConfig(train="x", near_duplicates=near, policy=Policy(**policy)))


def found(audit: Audit, name: str) -> list[Finding]:
    return [finding for finding in audit.findings if finding.check == name]


def one(audit: Audit, name: str) -> Finding:
    (finding,) = found(audit, name)
    return finding


def dropped(audit: Audit) -> dict[str, list[int]]:
    return {split: np.flatnonzero(drop).tolist() for split, drop in audit.drop.items() if drop.any()}


def test_sound_data_has_no_errors_no_warnings_and_loses_nothing():
    audit = audited({"train": GOOD, **HELD_OUT})
    assert {finding.severity for finding in audit.findings} == {"info"}
    assert dropped(audit) == {}
    assert audit.notes == []
    refuse(audit.findings)


ROWS: dict[str, tuple[dict[str, list[tuple[str, str]]], list[str], int, str, str]] = {
    "empty_text": ({"train": [*GOOD, (" \t", "pos")]}, ["train"], 1,
                   "train.csv: row 13, column 'text': empty text", "train 12"),
    "missing_label": ({"train": [*GOOD, ("so so", "")]}, ["train"], 1,
                      "train.csv: row 13, column 'label': no label", "train 12"),
    "unknown_label": ({"test": [("ok", "pos"), ("so so", "mixed")]}, ["test"], 1,
                      "data.test: row 2: label 'mixed' does not occur in the training rows; add examples", "test 1"),
    "label_conflict": ({"train": [*GOOD, ("A Good film  number 0", "neg")]}, ["train"], 1,
                       "under two labels", "train 0,12"),
    "duplicate_in_split": ({"train": [*GOOD, GOOD[1], GOOD[1]]}, ["train"], 2, "2 exact repeats", "train 12,13"),
    "duplicate_across_splits": ({"train": [*GOOD, ("poor actors", "neg")]}, ["train", "test"], 1,
                                "1 text of test found in train too", "train 12"),
    "near_duplicate_in_split": ({"train": [*GOOD, ("A GOOD film number 3", "pos")]}, ["train"], 1,
                                "case, blanks", "train 12"),
    "near_duplicate_across_splits": ({"train": [*GOOD, ("Poor  actors", "neg")]}, ["train", "test"], 1,
                                     "1 text of test nearly like one of train", "train 12"),
    "small_class": ({"train": [*GOOD, ("hm", "odd")], "test": [("hmm", "odd")]}, ["train"], 1,
                    "'odd' (1)", "train 12; test 0"),
    "control_characters": ({"train": [*GOOD, ("a\x08b", "pos")]}, ["train"], 1, "control characters", ""),
    "mojibake": ({"train": [*GOOD, ("cafÃ©", "pos")]}, ["train"], 1, "wrong encoding", ""),
    "markup": ({"train": [*GOOD, ("x<br />y", "pos")]}, ["train"], 1, "HTML", ""),
    "personal_data": ({"train": [*GOOD, ("me@example.org", "pos")]}, ["train"], 1, "e-mail", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_check_warns_fixes_or_fails_as_the_policy_says(name):
    rows, splits, count, told, gone = ROWS[name]
    splits_given = {"train": GOOD, **HELD_OUT, **rows}
    audits = {action: audited(splits_given, **{name: action}) for action in ("warn", "fix", "fail")}
    for action, audit in audits.items():
        finding = one(audit, name)
        assert (finding.splits, finding.count) == (splits, count)
        assert finding.severity == ("error" if action == "fail" else "warning")
        assert finding.action
    expected = {part.split()[0]: [int(at) for at in part.split()[1].split(",")] for part in gone.split("; ") if part}
    assert dropped(audits["fix"]) == expected
    assert dropped(audits["warn"]) == (expected if name == "missing_label" else {})
    with pytest.raises(InputError) as caught:
        refuse(audits["fail"].findings, "audit.html")
    message = str(caught.value)
    assert told in message
    assert f"data.policy.{name}=fix" in message
    assert "data.policy." + name + "=fix" in message and "=warn goes on" in message
    assert message.endswith("all findings: audit.html")
    refuse(audits["warn"].findings)
    refuse(audits["fix"].findings)


def test_the_default_policy_refuses_what_cannot_be_learned_from_and_removes_leaks():
    audit = audited({"train": [*GOOD, ("", "pos"), ("x", ""), ("poor actors", "neg")], **HELD_OUT})
    assert dropped(audit) == {"train": [14]}
    with pytest.raises(InputError, match=r"^train\.csv: row 13, column 'text': empty text.*and 1 more findings? stop"):
        refuse(audit.findings)


def test_removals_are_told_in_a_sentence_a_split():
    audit = audited(
        {
            "train": [*GOOD, ("poor actors", "neg"), ("great actors", "pos")],
            "validation": [("poor actors", "neg"), ("great actors", "pos")],
            "test": HELD_OUT["test"],
        }
    )
    assert dropped(audit) == {"train": [12, 13], "validation": [0]}
    assert sorted(audit.notes) == [
        "train: 2 rows removed, because their texts also stand in a held-out split",
        "validation: 1 row removed, because their texts also stand in the test split",
    ]


def test_copies_that_leave_for_another_reason_are_not_removed_twice_over():
    copies = [("poor actors", "neg")] * 3
    audit = audited({"train": [*GOOD, *copies], **HELD_OUT}, duplicate_in_split="fix")
    assert dropped(audit) == {"train": [12, 13, 14]}
    assert one(audit, "duplicate_across_splits").action == "removed 3 rows from train"


def test_a_group_whose_first_text_leaves_keeps_another():
    near = [("Poor actors", "neg"), ("poor actors", "neg"), ("POOR actors", "neg")]
    audit = audited({"train": [*GOOD, near[1], near[0], near[2]], **HELD_OUT}, near_duplicate_in_split="fix")
    assert dropped(audit) == {"train": [12, 14]}


def test_near_duplicates_are_found_by_similarity_where_it_is_asked():
    text = "one two three four five six seven eight nine ten eleven twelve"
    splits = {
        "train": [*GOOD, (text, "pos")],
        "validation": HELD_OUT["validation"],
        "test": [(f"{text} thirteen", "pos")],
    }
    assert found(audited(splits), "near_duplicate_across_splits") == []
    finding = one(audited(splits, near=0.8), "near_duplicate_across_splits")
    assert finding.rows == {"train": [13], "test": [1]}
    assert dropped(audited(splits, near=0.8, near_duplicate_across_splits="fix")) == {"train": [12]}


def test_a_split_made_here_counts_with_the_data_it_was_made_from():
    made = {
        "train": GOOD,
        "validation": [("x y", "pos"), ("x y", "pos"), ("poor actors", "neg")],
        "test": HELD_OUT["test"],
    }
    audit = audited(made, origins={"validation": "train"})
    copies, leak = one(audit, "duplicate_in_split"), one(audit, "duplicate_across_splits")
    assert (copies.splits, copies.count, copies.rows) == (["train"], 1, {"train": [14]})
    assert (leak.splits, leak.count, leak.rows) == (["train", "test"], 1, {"train": [15], "test": [1]})
    assert dropped(audit) == {"validation": [2]}


def test_a_text_of_another_label_across_splits_is_told():
    audit = audited({"train": [*GOOD, ("poor actors", "pos")], **HELD_OUT})
    finding = one(audit, "label_conflict")
    assert (finding.splits, finding.count) == (["train", "test"], 1)
    assert "removed" in finding.action


def test_a_source_in_the_order_of_its_labels_is_told_and_a_shuffled_one_is_not():
    rows = [(f"text {at}", "pos" if at < 50 else "neg") for at in range(100)]
    assert one(audited({"train": rows, **HELD_OUT}), "sorted_by_label").splits == ["train"]
    mixed = [rows[at * 37 % 100] for at in range(100)]
    assert found(audited({"train": mixed, **HELD_OUT}), "sorted_by_label") == []


def test_scripts_and_labels_of_one_split_only_are_told():
    audit = audited({"train": [*GOOD, ("Привет", "odd")], **HELD_OUT})
    assert one(audit, "scripts").count == 2
    assert "'odd'" in one(audit, "label_in_one_split").message


def test_a_message_holds_no_text_of_the_data():
    secret = "the secret text me@example.org 877-927-8767 <b>x</b>"
    audit = audited({"train": [*GOOD, (secret, "pos"), (secret, "neg")], **HELD_OUT})
    for finding in audit.findings:
        assert "secret" not in str(finding.told())
        assert "example.org" not in str(finding.told())


def test_truncation_is_a_finding_from_a_tenth_on_and_windows_leave_nothing_out():
    lengths = {"train": np.array([10] * 9 + [20] * 2, np.int32), "test": np.array([10] * 9 + [20], np.int32)}
    places = {name: np.arange(len(values)) for name, values in lengths.items()}

    def told(long_texts: str = "head", **policy: Any) -> list[Finding]:
        return truncated(lengths, 16, long_texts, DataConfig(train="x", policy=Policy(**policy)), places)

    (finding,) = told()
    assert (finding.check, finding.splits, finding.count, finding.severity) == ("truncated", ["train"], 2, "warning")
    assert finding.rows == {"train": [10, 11]}
    assert told("windows")[0].severity == "info"
    with pytest.raises(InputError, match=r"^data\.train: 2 texts .*model\.max_length"):
        refuse(told(truncated="fail"))


def real(folder: Path) -> Audit:
    """The audit of a real data set as it lies there."""
    import pyarrow.parquet as pq

    tables = {path.stem: pq.read_table(path) for path in folder.glob("*.parquet")}
    return audited({
        name: list(zip(tables[name]["text"].to_pylist(), tables[name]["label"].to_pylist(), strict=True))
        for name in ("train", "validation", "test") if name in tables
    })  # fmt: skip


def counts(audit: Audit, name: str) -> dict[str, int]:
    return {" ".join(finding.splits): finding.count for finding in found(audit, name)}


def test_imdb_has_the_known_leaks_copies_and_damage(real_data):
    audit = real(real_data / "imdb")
    assert counts(audit, "duplicate_across_splits") == {"train test": 123}
    assert counts(audit, "duplicate_in_split") == {"train": 96, "test": 199}
    assert counts(audit, "sorted_by_label") == {"train": 25_000, "test": 25_000}
    assert counts(audit, "label_conflict") == {}
    markup, control = counts(audit, "markup"), counts(audit, "control_characters")
    assert markup["train"] >= 14_665 and markup["test"] >= 14_535
    assert control["train"] >= 811 and control["test"] >= 760
    assert audit.drop["train"].sum() == 123
    assert not audit.drop["test"].any()


def test_sms_spam_has_the_known_copies_before_and_after_folding(real_data):
    audit = real(real_data / "sms_spam")
    assert counts(audit, "duplicate_in_split") == {"train": 403}
    assert "415 after folding" in one(audit, "duplicate_in_split").message
    assert audit.facts["duplicates"][0] == {"where": "within train", "exact": 403, "folded": 415, "near": None}


def test_clinc150_has_the_known_leaks_two_of_each_split_under_another_label(real_data):
    audit = real(real_data / "clinc150")
    assert counts(audit, "duplicate_across_splits") == {"train validation": 3, "train test": 2}
    assert counts(audit, "label_conflict") == {"train validation": 2, "train test": 2}
    assert audit.drop["train"].sum() == 5
