"""The audit's page stands alone, escapes everything, and says what audit.json says."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.prepare.test_audit import GOOD, HELD_OUT, audited
from tuneline.prepare import page

NASTY = '<script>alert("1")</script>&amp;\'"'


def report_of(labels: int = 2, **more: Any) -> dict[str, Any]:
    audit = audited({"train": [*GOOD, GOOD[0], ("poor actors", "neg")], **HELD_OUT})
    names = [f"label {at}" for at in range(labels)]
    counts = {"train": list(range(1, labels + 1)), "validation": [1] * labels, "test": [1] * labels}
    given: dict[str, Any] = {"labels": names, "counts": counts, "rows_read": {"train": 14, "validation": 1, "test": 1}}
    return page.report(audit, **(given | more))


class Tags(HTMLParser):
    """Tags, attributes and whether every tag that opens is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full() -> dict[str, Any]:
    return report_of(
        token_totals={"train": np.array([5, 9, 40], np.int32), "test": np.array([7], np.int32)},
        max_length=32, long_texts="head_tail", class_weights={"label 0": 1.5, "label 1": 0.75},
        sampling={"label 0": 0.5, "label 1": 0.5},
        label_errors=[{"row": 7, "label": NASTY, "suggested": "pos", "score": 0.012, "text": NASTY * 20}],
        identity={"sha256": {"train": NASTY}, "versions": {"train": "", "test": "1f"}, "seed": 0},
    )  # fmt: skip


@pytest.mark.parametrize("report", [report_of(), report_of(151), full()], ids=["plain", "many classes", "full"])
def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(report):
    source = page.render(report)
    parsed = Tags(source)
    assert parsed.open == []
    assert {tag for tag, _ in parsed.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "a", "base", "form"}
    )
    for _, attributes in parsed.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "xlink:href")}
    assert "url(" not in source and "@import" not in source and "http:" not in source and "https:" not in source
    policy = [attributes for tag, attributes in parsed.tags if attributes.get("http-equiv")]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_everything_that_comes_from_the_data_is_escaped():
    report = full() | {"labels": [NASTY, "label 1"]}
    report["findings"][0]["message"] = report["verdict"] = NASTY
    report["scripts"]["train"][NASTY] = 3
    source = page.render(report)
    assert "<script>" not in source
    assert source.count(str(html.escape("<script>"))) >= 6


def test_a_long_text_is_shortened_and_no_text_is_in_audit_json(tmp_path):
    page.write(tmp_path / "new", full())
    told = (tmp_path / "new" / "audit.json").read_text(encoding="utf-8")
    assert NASTY * 2 not in json.loads(told)["label_errors"][0].values()
    assert "text" not in json.loads(told)["label_errors"][0]
    shown = html.unescape((tmp_path / "new" / "audit.html").read_text(encoding="utf-8"))
    assert NASTY * 20 not in shown
    assert (NASTY * 20)[: page.SHOWN_TEXT] + "…" in shown


def test_the_page_shows_the_numbers_of_audit_json(tmp_path):
    page.write(tmp_path, full())
    report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    source = html.unescape((tmp_path / "audit.html").read_text(encoding="utf-8"))
    assert report["verdict"] in source
    for finding in report["findings"]:
        assert finding["message"] in source
        assert finding["action"] in source
        assert f"<code>{finding['check']}</code>" in source
    assert "1 (33.3%)" in source
    assert "1.5" in source and "0.75" in source and "50.0%" in source
    assert report["tokens"]["splits"]["train"]["over"] == 1
    assert sum(report["tokens"]["splits"]["train"]["counts"]) == 3
    assert "versions, train" not in source and "versions, test" in source


def test_the_verdict_follows_the_worst_finding():
    sound = audited({"train": GOOD, **HELD_OUT})
    bad = audited({"train": [*GOOD, ("", "pos")], **HELD_OUT})
    made = [page.report(audit, labels=[], counts={}, rows_read={}) for audit in (sound, bad)]
    assert [report["status"] for report in made] == ["clean", "refused"]
    assert report_of()["status"] == "warnings"
    assert "refused: 1 finding must" in made[1]["verdict"]
    assert made[1]["rows"] == {"train": 13, "validation": 1, "test": 1}
    assert "pos" in page.render(made[1])


@pytest.mark.parametrize("lengths", [[3], [1] * 500, [5, 100_000], list(range(2000))])
@pytest.mark.parametrize("max_length", [8, 128, 8192])
def test_histograms_hold_every_text_and_draw_the_cut_where_it_fits(lengths, max_length):
    report = report_of(token_totals={"train": np.array(lengths, np.int32)}, max_length=max_length, long_texts="head")
    tokens = report["tokens"]
    assert sum(tokens["splits"]["train"]["counts"]) == len(lengths)
    assert len(tokens["edges"]) == len(tokens["splits"]["train"]["counts"]) + 1
    source = page.render(report)
    if max_length <= max(lengths):
        assert "stroke-dasharray" in source
    columns = re.findall(r'<rect class="\w+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', source)
    assert len(columns) == len(tokens["edges"]) - 1
    assert all(float(y) + float(high) == pytest.approx(120, abs=0.02) for _, y, _, high in columns)


def test_rendering_twice_gives_the_same_bytes(tmp_path: Path):
    assert page.render(full()) == page.render(full())
