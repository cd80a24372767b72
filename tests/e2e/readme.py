"""The fenced blocks of a page, the commands in them, and the files that those commands name."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tests.conftest import ROOT, reviews

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language (empty for commands) and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; comments are left out, and `.venv/bin/tuneline` is `tuneline`."""
        found = [shlex.split(line, comments=True) for line in self.lines]
        return [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in found if words]

    @property
    def lines(self) -> list[str]:
        """Its lines; one that goes on in the next is one."""
        return self.text.replace("\\\n", " ").splitlines()


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page.name, text.count("\n", 0, match.start()) + 1, *match.group(1, 2)) for match in FENCE.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall("^ *```", text, re.MULTILINE)), f"{page.name}: a fence of another form"
    return found


def targets() -> dict[str, list[str]]:
    """What each target of the Makefile runs."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w-]+):", line):
            found[name := match.group(1)] = []
        elif line.startswith("\t") and name:
            found[name].append(line.strip())
        elif line.strip():
            name = ""
    return found


def make_data(folder: Path, page: list[Block]) -> None:
    """Write every file of texts that the commands name, small, with every column that they name."""
    words = [word for block in page if not block.language for command in block.commands for word in command]
    named = dict.fromkeys(word.partition("=") for word in words if word.startswith("data."))
    columns = {value: key for key, _, value in named if key.endswith("_column")}
    splits = ("data.train", "data.validation", "data.test")
    for key, _, value in named:
        if key in splits and not re.match(r"\w+:", value):
            rows = reviews(120, start=1000 * splits.index(key))
            texts, labels = [text for text, _ in rows], [label for _, label in rows]
            table = {"text": texts, "label": labels}
            table |= {name: labels if key == "data.label_column" else texts for name, key in columns.items()}
            path = folder / os.path.expandvars(value)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".parquet":
                pa.parquet.write_table(pa.table(table), path)
            else:
                pa.csv.write_csv(pa.table(table), path)
