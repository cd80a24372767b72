"""The text of a file, in UTF-8, a few megabytes at a time, whatever its compression, encoding and byte order mark."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from typing import Any

from tuneline.errors import InputError
from tuneline.tables.files import File, Written, compression_of, other_form

BLOCK = 4 << 20
MAX_CELL = 128 << 20
"""Bytes of the longest text that is read: what goes on beyond is no text, or a quote that was left open."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before utf-16-le, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def blocks(file: File, written: Written) -> Iterator[bytes]:
    """Blocks of UTF-8 without a byte order mark, cut between two characters.

    Args:
        file: plain, .gz or .zst.
        written: the encoding of a file without a byte order mark.

    Raises:
        InputError: damaged, of another form, or not in this encoding.
    """
    decoder: Any = None
    line, encoding = 1, written.encoding
    for block in _raw(file):
        data = block
        if decoder is None:
            mark = next((mark for mark in _MARKS if block.startswith(mark)), b"")
            encoding = _MARKS.get(mark, encoding)
            decoder, data = _decoder(encoding), block[len(mark) :]
            _check_start(file.name, data, encoding, written.encoding_key)
        text = _recoded(decoder, data, False, file.name, line, encoding, written.encoding_key)
        line += text.count(b"\n")
        yield text
    if decoder is not None:
        yield _recoded(decoder, b"", True, file.name, line, encoding, written.encoding_key)


def _raw(file: File) -> Iterator[bytes]:
    kind = compression_of(file.name)
    try:
        with _opened(file, kind) as stream:
            while block := stream.read(BLOCK):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        what = f"not a readable {kind} file" if kind else "not readable"
        raise InputError(f"{file.name}: {what}: {error}; make it anew") from None


def _opened(file: File, kind: str) -> Any:
    if kind == "gzip":
        return gzip.open(file.path)
    if kind == "zstd":
        import pyarrow as pa

        return pa.input_stream(str(file.path), compression="zstd")
    return file.path.open("rb")


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        " ".encode(encoding)  # refuses what is no encoding of text, such as rot13
        return codecs.getincrementaldecoder(encoding)("strict")
    except (LookupError, ValueError):
        raise InputError(
            f"data.encoding: {encoding!r} given; not an encoding that Python knows, such as utf-8, cp1252 or utf-16"
        ) from None


def _check_start(name: str, data: bytes, encoding: str, key: str) -> None:
    if form := other_form(data):
        raise InputError(f"{name}: is {form} by its first bytes, not what its name says; convert or rename it")
    if encoding.lower().startswith(("utf-16", "utf-32", "utf_16", "utf_32")):
        return
    if b"\0" in (data[:4096].splitlines() or [b""])[0]:
        way = f"{key}=utf-16-le reads that" if key else "convert it to UTF-8"
        raise InputError(f"{name}: line 1: NUL bytes: not a file of text, or UTF-16 without a byte order mark ({way})")


def _recoded(decoder: Any, data: bytes, last: bool, name: str, line: int, encoding: str, key: str) -> bytes:
    try:
        return decoder.decode(data, last).encode()
    except UnicodeDecodeError as error:
        at = line + error.object.count(b"\n", 0, error.start)
        known = "UTF-8" if encoding.lower() in ("utf-8", "utf8") else encoding
        way = f", or name its encoding with {key}=NAME" if key else ""
        raise InputError(
            f"{name}: line {at}: byte 0x{error.object[error.start]:02x} is not {known}; convert the file, for instance "
            f"iconv -f CP1252 -t UTF-8{way}"
        ) from None
    except UnicodeError as error:
        raise InputError(f"{name}: near line {line}: not {encoding}: {error}") from None
