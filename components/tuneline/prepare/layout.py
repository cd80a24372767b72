"""What a folder, glob or prefix holds, told by the names in it: data files, classes of texts, or a saved data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tuneline.errors import InputError
from tuneline.tables import READABLE, form_of
from tuneline.tables.files import COMPRESSED, FORMS

_ASIDE = {"readme", "license", "licence", "source", "notice", "changelog", "sha256sums", "md5sums", "manifest"}
_SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
}
_STATE = "state.json"


@dataclass(frozen=True)
class Layout:
    """What is to be read.

    Attributes:
        kind: files of one form, one text a file in a folder for each class, or what datasets' save_to_disk wrote.
        files: their names relative to the folder, with /, in the order of reading.
    """

    kind: Literal["table", "classes", "saved"]
    files: list[str]


def lay_out(names: Sequence[str], uri: str, split: str) -> Layout:
    """What a folder of these names holds.

    Args:
        names: relative names of all files below it, with /.
        uri: what messages call it.
        split: which of a saved data set's splits is asked for.

    Raises:
        InputError: nothing readable, or more than one thing.
    """
    key = f"data.{split}"
    shown = sorted(name for name in names if not any(part[0] in "._" for part in name.split("/") if part))
    if "dataset_dict.json" in shown:
        return _of_split(shown, uri, split)
    if _STATE in shown:
        return _saved(shown, "")
    flat = [name for name in shown if "/" not in name and not _is_aside(name)]
    nested = [name for name in shown if "/" in name]
    if any(form_of(name) for name in flat):
        if nested:
            raise InputError(f"{key}: {uri} holds data files and folders ({_first(nested)}); give one or the other")
        return table(flat, uri, split)
    if nested:
        return _classes(nested, uri, key)
    if flat:
        raise InputError(f"{key}: {uri} holds no data but {flat[0]}; allowed: {READABLE}")
    raise InputError(f"{key}: {uri} holds no files; give a file or a folder of files ({READABLE})")


def table(names: Sequence[str], uri: str, split: str) -> Layout:
    """Files of one form, of one split.

    Raises:
        InputError: they are not.
    """
    key = f"data.{split}"
    if unknown := [name for name in names if not form_of(name)]:
        raise InputError(f"{key}: {uri} holds {unknown[0]}, of unknown form; allowed: {READABLE}")
    forms = {FORMS[form_of(name)]: name for name in reversed(names)}
    if len(forms) > 1:
        found = ", ".join(f"{form} ({name})" for form, name in sorted(forms.items()))
        raise InputError(f"{key}: {uri} holds files of several forms: {found}; pick one with a glob, such as *.csv")
    splits = {split_name: name for name in reversed(names) if (split_name := _split_of(name))}
    if len(splits) > 1:
        found = ", ".join(sorted(splits.values()))
        raise InputError(f"{key}: {uri} holds files of several splits: {found}; name those of one split")
    return Layout("table", list(names))


def _of_split(names: list[str], uri: str, split: str) -> Layout:
    here = sorted({name.split("/")[0] for name in names if name.endswith(f"/{_STATE}")})
    if split not in here:
        raise InputError(
            f"data.{split}: {uri} is a saved data set without a split {split!r}; found {', '.join(here) or 'none'}; "
            f"give the folder of one"
        )
    return _saved([name for name in names if name.startswith(f"{split}/")], f"{split}/")


def _saved(names: list[str], below: str) -> Layout:
    return Layout("saved", [f"{below}{_STATE}", *(name for name in names if name.endswith(".arrow"))])


def check_saved(folder: Path, layout: Layout, uri: str) -> list[str]:
    """The data files of a saved data set, in their order, all of which must be there.

    Raises:
        InputError: its state.json cannot be read, or a file that it names is missing.
    """
    state, *files = layout.files
    below = state.removesuffix(_STATE)
    try:
        listed = [below + entry["filename"] for entry in json.loads((folder / state).read_text())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{uri}: {state} is not one that datasets' save_to_disk writes; save it again") from None
    if missing := [name for name in listed if name not in files]:
        raise InputError(f"{uri}: {missing[0]} is missing, which its {state} names; copy the whole folder")
    return listed


def _classes(names: list[str], uri: str, key: str) -> Layout:
    """Files of text, each in a folder that is named after its class."""
    if deep := [name for name in names if name.count("/") > 1]:
        raise InputError(f"{key}: {uri} holds folders in folders ({deep[0]}); give a folder of one folder a class")
    for name in names:
        if form_of(name):
            raise InputError(
                f"{key}: {uri} holds data files in folders ({name}); give their folder, or a glob such as */*.csv"
            )
        if _text_suffix(name) not in ("", ".txt"):
            raise InputError(f"{key}: {uri} holds {name}; a folder of a class holds texts (.txt, .txt.gz, .txt.zst)")
    return Layout("classes", names)


def _text_suffix(name: str) -> str:
    path = PurePosixPath(name)
    suffix = PurePosixPath(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return suffix.lower()


def _is_aside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() == ".md" or path.stem.lower() in _ASIDE or name == "dataset_info.json"


def _split_of(name: str) -> str:
    """The split that a file is named after, such as train-00000-of-00002.parquet; "" for none."""
    stem = PurePosixPath(name).name.partition(".")[0]
    return _SPLIT_NAMES.get(stem.lower().partition("-")[0].partition("_")[0], "")


def _first(names: list[str]) -> str:
    return f"{names[0].split('/')[0]}/"
