"""Objects of S3, brought to this machine whole and as they were listed, or not at all.

Every read asks for the ETag that the listing gave (an object that changes meanwhile is refused), goes on where a
connection broke, and ends with a comparison of the bytes with the checksum that S3 keeps, or with the ETag where that
is an MD5. Credentials, region and endpoint are found as boto3 finds them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneline.errors import InputError, ServiceError
from tuneline.progress import Progress, say
from tuneline.s3 import checksums
from tuneline.s3.listing import CHANGED, WORKERS, Listing, Object, client, told

PART = 16 << 20
"""Bytes that one request asks for; a larger object is fetched by several at once."""
ATTEMPTS = 5
"""Broken connections in a row before an object is given up."""
DOWNLOADS = 3
"""Downloads of an object whose bytes come damaged."""
PAUSE = 0.1
"""Seconds before the first new attempt, doubled before each further one."""
_CHUNK = 1 << 20


class _DamagedError(Exception):
    """An answer is not what was asked for."""


@contextmanager
def downloaded(listing: Listing, names: Sequence[str], step: str = "prepare") -> Iterator[Path]:
    """A temporary folder with these objects of a listing, as `download` brings them."""
    with tempfile.TemporaryDirectory(prefix="tuneline-") as folder:
        download(listing, names, Path(folder), step)
        yield Path(folder)


def download(listing: Listing, names: Sequence[str], folder: Path, step: str = "prepare") -> None:
    """Bring these objects of a listing into a folder, under their names, all of them verified.

    Args:
        listing: what a URI names.
        names: of its objects.
        folder: made where it is missing.
        step: who tells how far it is.

    Raises:
        InputError: an object is gone, changed, not to be read, or its bytes are not what its checksum says.
        ServiceError: S3 does not answer.
    """
    wanted = set(names)
    try:
        _Download(listing, folder, step).all([found for found in listing.objects if found.name in wanted])
    except OSError as error:
        raise InputError(
            f"{listing.key}: {listing.shown}: cannot be kept in {folder}: {error.strerror}; TMPDIR names another folder"
        ) from None


class _Download:
    """A download of a listing's objects into a folder, by several threads."""

    def __init__(self, listing: Listing, folder: Path, step: str) -> None:
        self.listing, self.folder, self.step = listing, folder, step
        with told(listing.key, listing.shown):
            self.api = client()
        self.unproven: list[str] = []

    def all(self, objects: list[Object]) -> None:
        """Fetch small objects side by side, then large ones, each by parts side by side."""
        megabytes = sum(found.size for found in objects) >> 20
        progress = Progress(self.step, megabytes, f"MB from {self.listing.shown}")
        done = 0
        small = [found for found in objects if found.size <= PART]
        pool = ThreadPoolExecutor(WORKERS)
        try:
            for size in _finished(pool, [(self._small, found) for found in small]):
                done += size
                progress.update(done >> 20)
            for found in objects:
                if found.size > PART:
                    self._large(found, pool, lambda fetched, before=done: progress.update((before + fetched) >> 20))
                    done += found.size
        finally:
            pool.shutdown(cancel_futures=True)
        if self.unproven:
            told = f"one of {len(self.unproven)} objects without a checksum that can be compared here"
            say(f"[{self.step}] {self.unproven[0]}: {told}")

    def _small(self, found: Object) -> int:
        with told(self.listing.key, self._name(found)), self._file(found).open("wb") as file:
            for _ in range(DOWNLOADS):
                try:
                    head = self._copy(found, file.fileno(), 0, found.size)
                    file.truncate(found.size)
                except _DamagedError:
                    continue
                if not found.size or self._proven(found, head):
                    return found.size
        raise self._damaged(found)

    def _large(self, found: Object, pool: ThreadPoolExecutor, tell: Callable[[int], None]) -> None:
        with told(self.listing.key, self._name(found)):
            head = self.api.head_object(**self._asked(found), ChecksumMode="ENABLED")
        with self._file(found).open("wb") as file:
            file.truncate(found.size)

            def part(start: int) -> int:
                stop = min(start + PART, found.size)
                with told(self.listing.key, self._name(found)):
                    self._copy(found, file.fileno(), start, stop)
                return stop - start

            for _ in range(DOWNLOADS):
                fetched = 0
                try:
                    for size in _finished(pool, [(part, start) for start in range(0, found.size, PART)]):
                        fetched += size
                        tell(fetched)
                except _DamagedError:
                    continue
                if self._proven(found, head):
                    return
        raise self._damaged(found)

    def _copy(self, found: Object, file: int, start: int, stop: int) -> dict[str, Any]:
        """Bring bytes to their place, going on where a connection breaks, and give the first answer's headers."""
        from botocore.exceptions import FlexibleChecksumError

        first: dict[str, Any] = {}
        at, broken = start, 0
        while at < stop:
            try:
                answer = self._get(found, at, stop)
                first = first or answer
                for chunk in answer["Body"].iter_chunks(_CHUNK):
                    os.pwrite(file, chunk, at)
                    at, broken = at + len(chunk), 0
            except FlexibleChecksumError:
                raise _DamagedError from None
            except _interruptions() as error:
                broken += 1
                if broken == ATTEMPTS:
                    raise ServiceError(
                        f"{self.listing.key}: {self._name(found)}: the connection broke {ATTEMPTS} times in a row "
                        f"({type(error).__name__}); run again"
                    ) from None
                time.sleep(PAUSE * 2**broken)
        return first

    def _get(self, found: Object, at: int, stop: int) -> dict[str, Any]:
        whole = at == 0 and stop == found.size  # only then does S3 tell the checksum
        span = {} if whole else {"Range": f"bytes={at}-{stop - 1}"}
        answer = self.api.get_object(**self._asked(found), **span, ChecksumMode="ENABLED")
        if answer["ETag"] != found.etag:
            raise InputError(f"{self.listing.key}: {self._name(found)}: {CHANGED}")
        if answer["ContentLength"] != stop - at:
            raise _DamagedError
        return answer

    def _proven(self, found: Object, head: dict[str, Any]) -> bool:
        wanted = checksums.expected(head)
        size = found.size
        if wanted and wanted.parts:
            with told(self.listing.key, self._name(found)):
                size = self.api.head_object(Bucket=self.listing.bucket, Key=found.key, PartNumber=1)["ContentLength"]
            if not (wanted.parts - 1) * size < found.size <= wanted.parts * size:
                wanted = None  # parts of many sizes
        if wanted is None:
            self.unproven.append(self._name(found))
            return True
        return checksums.matches(self.folder / found.name, wanted, size)

    def _file(self, found: Object) -> Path:
        path = self.folder / found.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _asked(self, found: Object) -> dict[str, str]:
        return {"Bucket": self.listing.bucket, "Key": found.key, "IfMatch": found.etag}

    def _name(self, found: Object) -> str:
        return f"s3://{self.listing.bucket}/{found.key}"

    def _damaged(self, found: Object) -> InputError:
        return InputError(
            f"{self.listing.key}: {self._name(found)}: its bytes are not what its checksum says, {DOWNLOADS} times; "
            f"upload it again, or look at what stands between here and S3"
        )


def _finished(pool: ThreadPoolExecutor, work: list[tuple[Callable[..., int], Any]]) -> Iterator[int]:
    """The results, as they come; the first failure ends it, when nothing of it runs any more."""
    futures: list[Future[int]] = [pool.submit(function, argument) for function, argument in work]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()


def _interruptions() -> tuple[type[Exception], ...]:
    """What a body that breaks off raises; an endpoint that cannot be reached has been tried often enough by boto3."""
    from botocore import exceptions

    return (
        exceptions.ConnectionClosedError,
        exceptions.IncompleteReadError,
        exceptions.ReadTimeoutError,
        exceptions.ResponseStreamingError,
    )
