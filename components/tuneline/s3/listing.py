"""What an s3:// URI names: an object, all below a prefix, or those that match a glob, with size and ETag.

Credentials, region and endpoint are found as boto3 finds them (AWS_PROFILE, AWS_ENDPOINT_URL, a pod's role and so on).
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tuneline.errors import InputError, ServiceError, how_to_install, without_credentials

WORKERS = 16
_DENIED = "access denied; the credentials in use need s3:ListBucket and s3:GetObject for it"
_EXPIRED = "the session token has expired; log in again"
CHANGED = "changed while it was read; run again when nobody writes to it"
_GONE = "no such object, nor any below it"
_SAID = {
    "NoSuchBucket": "no such bucket",
    "NoSuchKey": _GONE,
    "404": _GONE,
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "the session token is not valid; log in again",
    "InvalidAccessKeyId": "unknown access key; look at AWS_ACCESS_KEY_ID, or the profile in use",
    "SignatureDoesNotMatch": "wrong secret key; look at AWS_SECRET_ACCESS_KEY, or the profile in use",
    "InvalidObjectState": "is archived; restore it first",
    "PreconditionFailed": CHANGED,
    "412": CHANGED,
    "PermanentRedirect": "lies in another region; set AWS_DEFAULT_REGION",
    "InvalidBucketName": "not the name of a bucket",
}


@dataclass(frozen=True)
class Object:
    """An object as it was listed; `name` is relative to what the URI names."""

    key: str
    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class Listing:
    """What a URI names.

    Attributes:
        key: the configuration key that holds the URI.
        bucket: where the objects are.
        shown: what messages call the folder that their names are relative to.
        objects: in the order of their names.
        is_folder: all below a prefix; otherwise one object, or those that match a glob.
        version: the VersionId or ETag of one object; a hash over the keys, sizes and ETags of several.
    """

    key: str
    bucket: str
    shown: str
    objects: list[Object]
    is_folder: bool
    version: str

    @property
    def names(self) -> list[str]:
        """The objects' names."""
        return [found.name for found in self.objects]


def find(uri: str, key: str) -> Listing:
    """List what a URI names.

    Args:
        uri: s3://bucket/key, s3://bucket/prefix or either with *, ? or [ in it.
        key: the configuration key that holds it.

    Raises:
        InputError: nothing is there, or it may not be read.
        ServiceError: S3 does not answer.
    """
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise InputError(f"{key}: {uri}: names no bucket; write s3://bucket/prefix")
    with told(key, uri):
        api = client()
        is_glob = glob.has_magic(path)
        if path and not path.endswith("/") and not is_glob and (head := _head(api, bucket, path)):
            return _one(key, bucket, path, head)
        root = _before_glob(path) if is_glob else f"{path.rstrip('/')}/" if path.strip("/") else ""
        objects = sorted(_below(api, bucket, root), key=lambda found: found.name)
    if is_glob:
        pattern = path[len(root) :].split("/")
        objects = [found for found in objects if _fits(found.name.split("/"), pattern)]
    if not objects:
        raise InputError(f"{key}: {uri}: {_GONE}; for keys that begin alike write s3://{bucket}/{path}*")
    for found in objects:
        if {"", ".", ".."} & set(found.name.split("/")):
            raise InputError(f"{key}: s3://{bucket}/{found.key}: this key is no path of a file; copy it to another")
    lines = "".join(f"{found.key}\0{found.size}\0{found.etag}\n" for found in objects)
    version = hashlib.sha256(lines.encode()).hexdigest()
    return Listing(key, bucket, f"s3://{bucket}/{root}".rstrip("/"), objects, not is_glob, version)


def client() -> Any:
    """A client that asks again where S3 is busy.

    Raises:
        InputError: boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise InputError(f"s3:// needs {how_to_install('s3')}") from None
    retries: Any = {"mode": "standard", "total_max_attempts": 5}
    return boto3.Session().client(
        "s3", config=Config(retries=retries, max_pool_connections=WORKERS, connect_timeout=10)
    )


@contextmanager
def told(key: str, name: str) -> Iterator[None]:
    """Turn what boto3 raises into one line.

    Raises:
        InputError: a person can mend it.
        ServiceError: S3 failed or does not answer.
    """
    try:
        import botocore.exceptions as raised
    except ImportError:
        raise InputError(f"{key}: {name}: needs {how_to_install('s3')}") from None

    try:
        yield
    except raised.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _SAID:
            raise InputError(f"{key}: {name}: {_SAID[code]}") from None
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = ServiceError if status >= 500 or code == "SlowDown" else InputError
        raise kind(f"{key}: {name}: S3 refused with {code} ({status})") from None
    except (raised.HTTPClientError, raised.ConnectionError) as error:
        raise ServiceError(f"{key}: {name}: S3 does not answer: {without_credentials(str(error))}") from None
    except raised.ParamValidationError:
        raise InputError(f"{key}: {name}: not the name of a bucket and a key") from None
    except raised.BotoCoreError as error:
        raise InputError(f"{key}: {name}: {without_credentials(str(error))}") from None


def _head(api: Any, bucket: str, path: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        return api.head_object(Bucket=bucket, Key=path)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        api.get_object(Bucket=bucket, Key=path)["Body"].close()  # unlike HEAD, its refusal says why
        raise


def _one(key: str, bucket: str, path: str, head: dict[str, Any]) -> Listing:
    folder, _, name = path.rpartition("/")
    version = head.get("VersionId", "null")
    found = Object(path, name, head["ContentLength"], head["ETag"])
    shown = f"s3://{bucket}/{folder}".rstrip("/")
    return Listing(key, bucket, shown, [found], False, found.etag.strip('"') if version == "null" else version)


def _below(api: Any, bucket: str, root: str) -> Iterator[Object]:
    for page in api.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=root):
        for entry in page.get("Contents", []):
            if not (entry["Key"].endswith("/") and entry["Size"] == 0):  # a console's mark of a folder
                yield Object(entry["Key"], entry["Key"][len(root) :], entry["Size"], entry["ETag"])


def _before_glob(path: str) -> str:
    start = min(path.index(sign) for sign in "*?[" if sign in path)
    return path[: path.rfind("/", 0, start) + 1]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path matches, folder by folder; ** matches any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
