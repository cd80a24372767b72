"""Writing predictions: whole or not at all, and safe in a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuneline.serve.files import write


def rows(*, fail: bool = False) -> Iterator[dict[str, Any]]:
    yield {"text": "=1+2", "label": "-1", "score": 0.5}
    if fail:
        raise RuntimeError
    yield {"text": "-good", "label": "+x", "score": 0.5}


def test_formulas_are_quoted_and_numbers_are_not(tmp_path: Path) -> None:
    write(rows(), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == ["text,label,score", "'=1+2,-1,0.5", "'-good,'+x,0.5"]


def test_json_lines_hold_the_texts_as_they_are(tmp_path: Path) -> None:
    write(rows(), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text().startswith('{"text": "=1+2", "label": "-1"')


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_an_old_file_outlives_a_prediction_that_fails(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(RuntimeError):
        write(rows(fail=True), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"
