"""What the bytes of an S3 object must add up to: its own checksum where it has one, else its ETag where that is an MD5.

An object that was uploaded in N parts has the checksum of its parts' checksums, written CHECKSUM-N.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
_CHUNK = 1 << 20


class _Crc32:
    """zlib's CRC32 with hashlib's manners."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes) -> None:
        self.value = zlib.crc32(data, self.value)

    def digest(self) -> bytes:
        return self.value.to_bytes(4, "big")


_ALGORITHMS: dict[str, Any] = {"SHA256": hashlib.sha256, "SHA1": hashlib.sha1, "CRC32": _Crc32, "MD5": hashlib.md5}


@dataclass(frozen=True)
class Expected:
    """A checksum that an object must have.

    Attributes:
        algorithm: SHA256, SHA1, CRC32 or MD5.
        digest: its bytes.
        parts: into how many parts the object was cut when it was uploaded; 0 for a digest of the whole.
    """

    algorithm: str
    digest: bytes
    parts: int = 0


def expected(head: dict[str, Any]) -> Expected | None:
    """The best checksum that the answer to a GET or HEAD tells of; None where it tells of none that is known here."""
    for algorithm in ("SHA256", "CRC32", "SHA1"):
        if value := head.get(f"Checksum{algorithm}"):
            text, _, parts = value.partition("-")
            return Expected(algorithm, base64.b64decode(text), int(parts or 0))
    found = _ETAG.fullmatch(head["ETag"].strip('"').lower())
    if found is None or head.get("SSECustomerAlgorithm") or str(head.get("ServerSideEncryption")).startswith("aws:"):
        return None  # such an ETag is no MD5
    return Expected("MD5", bytes.fromhex(found[1]), int(found[2] or 0))


def matches(path: Path, wanted: Expected, part_size: int) -> bool:
    """Whether a file adds up to it.

    Args:
        path: the file.
        wanted: what it must add up to.
        part_size: bytes of each part but the last; asked for only where wanted.parts is not 0.
    """
    make = _ALGORITHMS[wanted.algorithm]
    if not wanted.parts:
        return _digest(path, make, 0, path.stat().st_size) == wanted.digest
    whole = make()
    for number in range(wanted.parts):
        whole.update(_digest(path, make, number * part_size, part_size))
    return whole.digest() == wanted.digest


def _digest(path: Path, make: Any, start: int, size: int) -> bytes:
    digest = make()
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and (chunk := file.read(min(_CHUNK, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.digest()
