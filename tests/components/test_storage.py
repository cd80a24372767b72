"""A kept folder is there whole or not at all: on a disk, and at a real HTTP server for S3."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import boto3
import pytest

from tuneline import storage
from tuneline.storage import DamagedError, LocalStore, S3Store, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore | S3Store:
    if request.param == "local":
        return LocalStore(tmp_path / "kept")
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"b-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return S3Store(f"s3://{bucket}/check/points")


def keep(store: LocalStore | S3Store, name: str, **files: str) -> None:
    with store.saving(name) as folder:
        for file, text in files.items():
            (folder / file).write_text(text)


def damage(store: LocalStore | S3Store, name: str, file: str, content: bytes | None) -> None:
    """Put other bytes in a file's place, or take it away."""
    if isinstance(store, LocalStore):
        path = store.root / name / file
        path.unlink() if content is None else path.write_bytes(content)
        return
    api, place = boto3.client("s3"), {"Bucket": store.bucket, "Key": f"{store.prefix}{name}/{file}"}
    api.delete_object(**place) if content is None else api.put_object(**place, Body=content)


def test_what_is_saved_is_loaded(store):
    keep(store, "one", a="x", b="y" * 100_000)
    keep(store, "two", a="z")
    assert store.names() == ["one", "two"]
    with store.loading("one") as folder:
        assert ((folder / "a").read_text(), (folder / "b").read_text()) == ("x", "y" * 100_000)


def test_what_a_killed_process_left_half_written_goes_with_a_later_save_and_what_is_being_written_stays(tmp_path):
    long_ago = time.time() - storage.ABANDONED_SECONDS - 60
    for name, old in ((".one.dead", True), (".one.alive", False), (".one.slow", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("x")
        for path in (tmp_path / name, tmp_path / name / "a") if old else ():
            os.utime(path, (long_ago, long_ago))
    os.utime(tmp_path / ".one.slow" / "a")  # its folder is old, and its file grows
    keep(LocalStore(tmp_path), "two", a="z")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".one.alive", ".one.slow", "two"]


def test_nothing_is_kept_of_a_folder_whose_filling_failed(store):
    with pytest.raises(ZeroDivisionError), store.saving("one") as folder:
        (folder / "a").write_text("x")
        1 / 0  # noqa: B018
    assert store.names() == []
    if isinstance(store, LocalStore):
        assert list(store.root.iterdir()) == []


def test_a_name_that_is_saved_again_holds_the_later_files_only(store):
    keep(store, "one", a="x", b="y")
    keep(store, "one", a="z")
    with store.loading("one") as folder:
        assert (folder / "a").read_text() == "z"
        assert not (folder / "b").exists() or isinstance(store, S3Store)


@pytest.mark.parametrize("content", [b"y", b"", None])
@pytest.mark.parametrize("file", ["a", storage.MANIFEST])
def test_an_altered_an_emptied_and_a_missing_file_are_found(store, file, content):
    keep(store, "one", a="x", b="y")
    damage(store, "one", file, content)
    with pytest.raises(DamagedError), store.loading("one"):
        pass


def test_a_manifest_that_names_a_file_outside_is_refused(store):
    keep(store, "one", a="x")
    damage(store, "one", storage.MANIFEST, b'{"../../secret": {"sha256": "0"}}')
    with pytest.raises(DamagedError, match="secret"), store.loading("one"):
        pass


def test_a_removed_folder_is_gone_and_may_be_removed_again(store):
    keep(store, "one", a="x")
    store.remove("one")
    store.remove("one")
    assert store.names() == []


def test_an_empty_store_has_no_names(store):
    assert store.names() == []


def test_a_half_written_folder_has_no_name(tmp_path):
    store = LocalStore(tmp_path)
    with store.saving("one") as folder:
        assert store.names() == []
        assert folder.parent == tmp_path  # so that the name is given by a rename within one file system
    assert store.names() == ["one"]


def test_the_address_tells_the_kind_of_store(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    found = open_store("s3://bucket/a/b/")
    assert isinstance(found, S3Store)
    assert (found.bucket, found.prefix) == ("bucket", "a/b/")


def test_files_are_readable_by_the_group_that_shares_the_volume(tmp_path):
    keep(LocalStore(tmp_path), "one", a="x")
    assert os.access(tmp_path / "one" / "a", os.R_OK)
