"""Data on S3 comes whole and as it was listed, or is refused with a reason: a real HTTP server, faults before it."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from tests.components.prepare.faulty_s3 import FaultyReads
from tuneline.config import DataConfig
from tuneline.errors import InputError, ServiceError
from tuneline.prepare.sources import fingerprint, open_source
from tuneline.s3 import fetch, listing

pytestmark = pytest.mark.medium

CSV = b"text,label\ngood,pos\nbad,neg\n"
ROWS = [("good", "pos"), ("bad", "neg")]


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultyReads]:
    """S3 as the source sees it; its downloads are looked for in the test's folder."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    (tmp_path / "downloads").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "downloads"))
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    with FaultyReads().serving() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.in_front_of(s3_server))
        yield proxy
    assert list((tmp_path / "downloads").iterdir()) == []  # nothing is left behind, whatever came


@pytest.fixture
def bucket(proxy: FaultyReads) -> str:
    name = f"b-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def put(bucket: str, key: str, body: bytes = CSV, **keys: Any) -> str:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body, **keys)
    return f"s3://{bucket}/{key}"


def rows(uri: str, split: str = "train", **keys: Any) -> list[tuple[str, str]]:
    source = open_source(uri, split, DataConfig(train="unused", **keys))
    return [(row["text"], row["label"]) for batch in source.batches for row in batch.to_pylist()]


def refusal(uri: str, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        rows(uri)
    assert "\n" not in str(caught.value)
    assert "testing" not in str(caught.value)
    return str(caught.value)


def pin(uri: str) -> str:
    return fingerprint(uri, "data.train", DataConfig(train="unused"))


def many(lines: int) -> bytes:
    return b"text,label\n" + b"".join(b"text number %d,pos\n" % number for number in range(lines))


def test_an_object_a_prefix_and_a_glob_are_read(bucket):
    put(bucket, "data/a.csv")
    put(bucket, "data/b.csv.gz", gzip.compress(b"text,label\nfine,pos\n"))
    put(bucket, "data/", b"")
    put(bucket, "database.csv", b"text,label\nother,pos\n")
    assert rows(f"s3://{bucket}/data/a.csv") == ROWS
    both = [*ROWS, ("fine", "pos")]
    for uri in ("data", "data/", "data/*.csv*", "*/*", "**/[ab].*", "dat?/?.csv*"):
        assert rows(f"s3://{bucket}/{uri}") == both, uri
    assert rows(f"s3://{bucket}/data*.csv") == [("other", "pos")]


def test_classes_and_saved_data_sets_are_read_like_folders(bucket, tmp_path):
    from datasets import Dataset

    for key, text in (("tree/pos/a.txt", b"good"), ("tree/neg/b.txt", b"bad"), ("tree/neg/c.txt", b"worse")):
        put(bucket, key, text)
    assert rows(f"s3://{bucket}/tree") == [("bad", "neg"), ("worse", "neg"), ("good", "pos")]
    Dataset.from_dict({"text": ["good"], "label": ["pos"]}).save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        put(bucket, f"saved/{path.name}", path.read_bytes())
    assert rows(f"s3://{bucket}/saved") == [("good", "pos")]


def test_only_what_is_read_is_fetched(bucket, proxy):
    for name in ("a.csv", "README.md", "_SUCCESS", ".hidden"):
        put(bucket, f"data/{name}")
    assert rows(f"s3://{bucket}/data") == ROWS
    assert [key.rpartition("/")[2] for key in proxy.asked] == ["a.csv"]


def test_a_bad_row_is_told_with_its_object(bucket):
    put(bucket, "data/a.csv")
    uri = put(bucket, "data/b.csv", b"text,label\nbad\n")
    assert refusal(f"s3://{bucket}/data").startswith(f"{uri}: row 1 (line 2) has 1 cells, the header has 2")


def test_a_version_and_a_pin_follow_what_is_listed(bucket):
    uri = put(bucket, "data/a.csv")
    etag = hashlib.md5(CSV).hexdigest()
    assert pin(uri) == open_source(uri, "train", DataConfig(train="x")).version == etag
    folder = pin(f"s3://{bucket}/data")
    assert pin(f"s3://{bucket}/data/*.csv") == folder
    put(bucket, "data/b.csv")
    assert pin(f"s3://{bucket}/data") != folder
    api = boto3.client("s3")
    api.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = api.put_object(Bucket=bucket, Key="data/c.csv", Body=CSV)["VersionId"]
    assert pin(f"s3://{bucket}/data/c.csv") == version


@pytest.mark.parametrize("times", [1, 3])
def test_a_connection_that_is_cut_goes_on_where_it_broke(bucket, proxy, times):
    content = many(100_000)
    uri = put(bucket, "rows.csv", content)
    proxy.cut, proxy.times = 1 << 19, times
    assert len(rows(uri)) == 100_000
    assert proxy.ranges[1:] == [f"bytes={(number + 1) << 19}-{len(content) - 1}" for number in range(times)]


def test_a_connection_that_is_always_cut_is_given_up(bucket, proxy):
    uri = put(bucket, "rows.csv")
    proxy.cut, proxy.times = 0, 1000
    assert "the connection broke 5 times in a row" in refusal(uri, ServiceError)


def test_a_large_object_comes_in_parts_each_of_which_may_break(bucket, proxy, monkeypatch):
    monkeypatch.setattr(fetch, "PART", 1 << 19)
    uri = put(bucket, "rows.csv", many(100_000))
    proxy.cut, proxy.times = 50_000, 3
    assert len(rows(uri)) == 100_000
    assert len(proxy.ranges) >= 5 + 3


@pytest.mark.parametrize("part", [fetch.PART, 1 << 10])
def test_a_flipped_byte_is_seen_and_fetched_again(bucket, proxy, monkeypatch, part):
    monkeypatch.setattr(fetch, "PART", part)
    uri = put(bucket, "rows.csv", many(500))
    proxy.flip, proxy.times = 700, 1
    assert rows(uri)[499] == ("text number 499", "pos")
    assert sum(proxy.asked.values()) > 1


@pytest.mark.parametrize("keys", [{}, {"ChecksumAlgorithm": "SHA256"}, {"ChecksumAlgorithm": "SHA1"}])
@pytest.mark.parametrize("part", [fetch.PART, 1 << 10])
def test_bytes_that_are_always_flipped_are_refused(bucket, proxy, monkeypatch, part, keys):
    monkeypatch.setattr(fetch, "PART", part)
    uri = put(bucket, "rows.csv", many(500), **keys)
    proxy.flip, proxy.times = 700, 1000
    assert f"{uri}: its bytes are not what its checksum says, 3 times; upload it again" in refusal(uri)


@pytest.mark.parametrize("flip", [None, 100])
def test_an_object_that_was_uploaded_in_parts_is_verified(bucket, proxy, flip):
    content, size = many(700_000), 5 << 20
    config = TransferConfig(multipart_threshold=size, multipart_chunksize=size)
    boto3.client("s3").upload_fileobj(io.BytesIO(content), bucket, "rows.csv", Config=config)
    proxy.flip, proxy.times = flip, 1000
    uri = f"s3://{bucket}/rows.csv"
    if flip is None:
        assert len(rows(uri)) == 700_000
    else:
        assert "its bytes are not what its checksum says" in refusal(uri)


@pytest.mark.parametrize("uri", ["rows.csv", "data", "data/", "data/*.csv", ""])
def test_a_missing_key_is_told_with_its_configuration_key(bucket, uri):
    message = refusal(f"s3://{bucket}/{uri}")
    assert message.startswith(f"data.train: s3://{bucket}/{uri}: no such object, nor any below it")


def test_an_object_that_goes_after_it_was_listed_is_refused(bucket):
    put(bucket, "data/a.csv")
    put(bucket, "data/b.csv")
    source = open_source(f"s3://{bucket}/data", "train", DataConfig(train="x"))
    boto3.client("s3").delete_object(Bucket=bucket, Key="data/b.csv")
    with pytest.raises(InputError, match=r"data/b\.csv: no such object"):
        next(source.batches)


@pytest.mark.parametrize("part", [fetch.PART, 8])
def test_an_object_that_changes_after_it_was_listed_is_refused(bucket, monkeypatch, part):
    monkeypatch.setattr(fetch, "PART", part)
    uri = put(bucket, "data/a.csv")
    source = open_source(uri, "train", DataConfig(train="x"))
    put(bucket, "data/a.csv", CSV.replace(b"good", b"poor"))
    with pytest.raises(InputError, match=r"a\.csv: changed while it was read; run again"):
        next(source.batches)


@pytest.mark.parametrize("where", ["list-type", "a.csv"])
@pytest.mark.parametrize(
    ("refuse", "told"),
    [
        ((403, "AccessDenied"), "access denied; the credentials in use need s3:ListBucket and s3:GetObject"),
        ((400, "ExpiredToken"), "the session token has expired; log in again"),
        ((403, "InvalidAccessKeyId"), "unknown access key; look at AWS_ACCESS_KEY_ID"),
        ((403, "SignatureDoesNotMatch"), "wrong secret key; look at AWS_SECRET_ACCESS_KEY"),
        ((403, "InvalidObjectState"), "is archived; restore it first"),
        ((400, "Strange"), "S3 refused with Strange (400)"),
    ],
)
def test_a_refusal_is_told_in_words(bucket, proxy, where, refuse, told):
    put(bucket, "data/a.csv")
    proxy.refuse, proxy.times, proxy.where = refuse, 1000, where
    assert told in refusal(f"s3://{bucket}/data/" if where == "list-type" else f"s3://{bucket}/data/a.csv")


def test_a_token_that_expires_between_listing_and_reading_is_told(bucket, proxy):
    put(bucket, "data/a.csv")
    put(bucket, "data/b.csv")
    source = open_source(f"s3://{bucket}/data", "train", DataConfig(train="x"))
    proxy.refuse, proxy.times, proxy.where = (400, "ExpiredToken"), 1000, "b.csv"
    with pytest.raises(InputError, match=r"data/b\.csv: the session token has expired; log in again"):
        next(source.batches)


def test_a_server_that_is_busy_is_asked_again(bucket, proxy):
    uri = put(bucket, "a.csv")
    proxy.refuse, proxy.times = (503, "SlowDown"), 2
    assert rows(uri) == ROWS


def test_no_bucket_no_server_no_credentials_are_told(bucket, monkeypatch, tmp_path):
    assert "s3://no-such-bucket/a.csv/: no such bucket" in refusal("s3://no-such-bucket/a.csv/")
    assert "names no bucket; write s3://bucket/prefix" in refusal("s3:///a.csv")
    assert "not the name of a bucket" in refusal("s3://no bucket/a.csv")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert "credentials" in refusal(f"s3://{bucket}/a.csv")


def test_an_endpoint_that_does_not_answer_is_told(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert "S3 does not answer: " in refusal(f"s3://{bucket}/a.csv", ServiceError)


@pytest.mark.parametrize("key", ["data//a.csv", "data/../a.csv", "data/./a.csv"])
def test_a_key_that_is_no_path_is_refused(bucket, monkeypatch, key):
    found = listing.Object(key, key.removeprefix("data/"), 1, '"x"')
    monkeypatch.setattr(listing, "_below", lambda api, bucket, root: iter([found]))
    assert f"s3://{bucket}/{key}: this key is no path of a file" in refusal(f"s3://{bucket}/data/")


@pytest.mark.parametrize("lacking", [["boto3"], ["boto3", "botocore", "botocore.config", "botocore.exceptions"]])
def test_without_boto3_the_package_to_install_is_named(monkeypatch, lacking):
    for name in lacking:
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert "needs pip install -e '.[s3]' in tuneline's checkout" in refusal("s3://bucket/a.csv")


@pytest.mark.slow
def test_thousands_of_small_objects_are_read_once_each_though_some_connections_break(bucket, proxy):
    api = boto3.client("s3")
    count = 2_500  # three pages of a listing

    def upload(number: int) -> None:
        body = b"text number %d" % number
        api.put_object(Bucket=bucket, Key=f"tree/{'pos' if number % 2 else 'neg'}/{number:05}.txt", Body=body)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload, range(count)))
    proxy.cut, proxy.times, proxy.where = 3, 50, "/tree/"
    found = rows(f"s3://{bucket}/tree")
    assert len(found) == count
    assert dict(found) == {f"text number {number}": "pos" if number % 2 else "neg" for number in range(count)}
    assert proxy.broken > 25  # of a text's last bytes nothing is cut
    assert sum(proxy.asked.values()) == count + proxy.broken


@pytest.mark.slow
def test_an_object_of_a_gigabyte_is_read_in_parts_though_a_connection_breaks(bucket, proxy):
    line = b"a line of one hundred bytes of which there are many so that the object is as large as it must be,pos\n"
    block = line * (10_000_000 // len(line))
    api, parts = boto3.client("s3"), []
    upload = api.create_multipart_upload(Bucket=bucket, Key="big.csv")["UploadId"]
    place = {"Bucket": bucket, "Key": "big.csv", "UploadId": upload}
    for number in range(1, 109):
        body = b"text,label\n".ljust(len(block), b"\n") if number == 1 else block
        parts.append({"PartNumber": number, "ETag": api.upload_part(**place, PartNumber=number, Body=body)["ETag"]})
    api.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    proxy.cut, proxy.times, proxy.where = 5_000_000, 5, "big.csv"
    source = open_source(f"s3://{bucket}/big.csv", "train", DataConfig(train="x"))
    assert sum(batch.num_rows for batch in source.batches) == 107 * len(block) // len(line)
    assert len(proxy.ranges) >= 64 + 5
