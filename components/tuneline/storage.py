"""Folders kept under a name, in a local folder or below an s3:// prefix. A folder is there whole, or it is not there.

Its files are written first, a manifest with the SHA-256 of each last, and it gets its name only then. Whoever reads one
checks it against the manifest, so that a cut, altered or half-written folder is told from a good one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from tuneline.artifacts import read_json, sha256_file, write_json
from tuneline.s3.listing import client

MANIFEST = "manifest.json"
CHECKPOINTS = "TUNELINE_CHECKPOINTS"
"""Environment variable: a folder or s3://bucket/prefix for checkpoints of training; without it none are saved."""
ABANDONED_SECONDS = 3600
"""After so long a half-written folder that nobody writes to belongs to a process that was killed."""


class DamagedError(Exception):
    """A folder is not what its manifest says."""


class Store(Protocol):
    """Where named folders are kept."""

    def names(self) -> list[str]:
        """The names of what is kept, sorted; the folders may yet be damaged."""
        ...

    def saving(self, name: str) -> Any:
        """A context that gives an empty folder to fill, and keeps it under the name when it ends without an error."""
        ...

    def loading(self, name: str) -> Any:
        """A context that gives a folder to read; DamagedError where it is not what was saved."""
        ...

    def remove(self, name: str) -> None:
        """Forget a folder; none of that name is no error."""
        ...


def open_store(uri: str) -> Store:
    """The store at a local path or an s3://bucket/prefix."""
    return S3Store(uri) if uri.startswith("s3://") else LocalStore(Path(uri))


class LocalStore:
    """Named folders in a folder of this machine, or of a volume that it mounts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """See Store."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    @contextmanager
    def saving(self, name: str) -> Iterator[Path]:
        """See Store. Files and folder are on the disk (fsync) before the name is there."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._forget_abandoned()
        part = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.root))
        try:
            yield part
            seal(part)
            for path in (*part.iterdir(), part):
                _sync(path)
            shutil.rmtree(self.root / name, ignore_errors=True)
            part.rename(self.root / name)
            _sync(self.root)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _forget_abandoned(self) -> None:
        """Remove what processes that were killed have left half-written."""
        for part in self.root.glob(".*"):
            with suppress(OSError):  # its process has ended this moment, one way or the other
                if part.is_dir() and time.time() - last_change(part) > ABANDONED_SECONDS:
                    shutil.rmtree(part)

    @contextmanager
    def loading(self, name: str) -> Iterator[Path]:
        """See Store."""
        check(self.root / name)
        yield self.root / name

    def remove(self, name: str) -> None:
        """See Store. The manifest goes first: half a removal leaves no folder that looks whole."""
        (self.root / name / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.root / name, ignore_errors=True)


class S3Store:
    """Named folders below s3://bucket/prefix; credentials and endpoint as boto3 finds them.

    Raises:
        InputError: boto3 is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self.api = client()

    def names(self) -> list[str]:
        """See Store."""
        pages = self.api.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
        )
        found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        return sorted(prefix.removeprefix(self.prefix).rstrip("/") for prefix in found)

    @contextmanager
    def saving(self, name: str) -> Iterator[Path]:
        """See Store. The manifest is the last object to be written."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            seal(Path(folder))
            files = sorted(path.name for path in Path(folder).iterdir() if path.name != MANIFEST)
            for file in (*files, MANIFEST):
                self.api.upload_file(str(Path(folder) / file), self.bucket, self._key(name, file))

    @contextmanager
    def loading(self, name: str) -> Iterator[Path]:
        """See Store."""
        from botocore.exceptions import ClientError

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder)
            try:
                self.api.download_file(self.bucket, self._key(name, MANIFEST), str(target / MANIFEST))
                for file in _listed(target):
                    self.api.download_file(self.bucket, self._key(name, file), str(target / file))
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                    raise
                raise DamagedError(f"{name}: a file is missing") from None
            check(target)
            yield target

    def remove(self, name: str) -> None:
        """See Store."""
        self.api.delete_object(Bucket=self.bucket, Key=self._key(name, MANIFEST))
        pages = self.api.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(name, ""))
        for entry in (entry for page in pages for entry in page.get("Contents", [])):
            self.api.delete_object(Bucket=self.bucket, Key=entry["Key"])

    def _key(self, name: str, file: str) -> str:
        return f"{self.prefix}{name}/{file}"


def last_change(folder: Path) -> float:
    """When a folder or one of its files last changed, in seconds since the epoch."""
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


def seal(folder: Path) -> None:
    """Write the manifest over all files of a folder."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    write_json(folder / MANIFEST, {path.name: {"sha256": sha256_file(path)} for path in files})


def check(folder: Path) -> None:
    """Compare a folder with its manifest.

    Raises:
        DamagedError: there is none, or a file is missing or other than it says.
    """
    for name in _listed(folder):
        path = folder / name
        if not path.is_file() or sha256_file(path) != read_json(folder / MANIFEST)[name]["sha256"]:
            raise DamagedError(f"{folder.name}: {name} is missing or altered")


def _listed(folder: Path) -> list[str]:
    """File names of a manifest; plain names only, so that none leaves the folder."""
    try:
        tree = read_json(folder / MANIFEST)
        names = [name for name, entry in tree.items() if isinstance(entry["sha256"], str)]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise DamagedError(f"{folder.name}: no readable {MANIFEST}") from None
    if strange := [name for name in names if Path(name).name != name or name == MANIFEST]:
        raise DamagedError(f"{folder.name}: {strange[0]!r} in its {MANIFEST}")
    return names


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
