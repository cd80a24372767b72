"""Files that a person asks to have written: what cannot be written is refused before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from tuneline.errors import InputError


def check_writable(option: str, path: Path) -> None:
    """Refuse a place where nothing can be written.

    Args:
        option: that gave it, such as --output.
        path: the file or folder to be; folders above it that are lacking will be made.

    Raises:
        InputError: what lies above it is no folder, or one in which this user may not write.
    """
    above = next((folder for folder in path.absolute().parents if _exists(folder)), path)
    if not above.is_dir():
        raise InputError(f"{option}: {path}: cannot be written: {above} is a file; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{option}: {path}: cannot be written: no right to write in {above}; name another place")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # below a folder that may not be entered
        return False


def check_file(option: str, path: Path, beginning: str, kind: str) -> None:
    """Refuse also to replace a file of another kind.

    Args:
        option: that gave it.
        path: the file to be.
        beginning: how a file of the kind begins, which may be replaced.
        kind: what the message calls it.

    Raises:
        InputError: as of check_writable, or a folder or a file of another kind lies there, or one that is read-only.
    """
    if not _exists(path):
        check_writable(option, path)
        return
    if path.is_dir():
        raise InputError(f"{option}: {path} is a folder; name a file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise InputError(f"{option}: {path}: cannot be written: no right to read and write it; name another file")
    if (start := path.read_bytes()[: len(beginning)]) and start != beginning.encode():
        raise InputError(f"{option}: {path}: holds something other than {kind}; name another file, or remove it")
