"""Unpack an uploaded file into plain bytes on disk, within limits, and recognise what kind of file it is."""

import gzip
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO, cast

from django.utils.translation import gettext as _

from web.errors import InvalidError

GZIP = b"\x1f\x8b"
ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
DIRECTORY_BYTES = 64 * 1024  # of a ZIP: a thousand names, and more than a data file needs
PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may need gigabytes of memory to unpack
KINDS = ("csv", "tsv", "json", "jsonl", "parquet")
CHUNK = 1 << 20
CELL_BYTES = 8  # of the size limit that each cell takes up, see `refuse_cells`
_FOREIGN = {  # first bytes of what people mistake for a data file
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_TRAILER_BYTES = 65_557  # at most: 22, and a comment
_LOCAL_HEADER_BYTES = 30  # before the name of an entry
_DAMAGE = (  # what the libraries raise for damaged archives
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),
)
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


class FileTooLargeError(InvalidError):
    code = "too_large"
    status = 413


def too_large(limit: int) -> FileTooLargeError:
    """Return the error for a file over the limit in bytes."""
    message = _(
        "This file is larger than the limit of %(limit)s MiB (unpacked). Nothing was stored. "
        "Split it, or ask an administrator to raise UPLOAD_LIMIT_MB."
    )
    return FileTooLargeError(message % {"limit": max(1, limit >> 20)}, field="file", limit_bytes=limit)


def refuse_cells(cells: int, limit: int) -> None:
    """Raise FileTooLargeError for more cells (rows times columns) than one for each 8 bytes of the limit.

    A cell takes 16 bytes in memory, however short it is in the file.
    """
    if cells > limit // CELL_BYTES:
        message = _(
            "This file has more than %(cells)s cells (rows times columns), which is the limit for files of %(limit)s MiB. "
            "Nothing was stored. Leave out columns, split it, or ask an administrator to raise UPLOAD_LIMIT_MB."
        )
        facts = {"cells": f"{limit // CELL_BYTES:,}", "limit": max(1, limit >> 20)}
        raise FileTooLargeError(message % facts, field="file", limit_bytes=limit)


def kind_of(filename: str, head: bytes) -> str:
    """Return one of KINDS, by the content if that is certain, else by the name, else CSV."""
    if head.startswith(b"PAR1"):
        return "parquet"
    suffix = Path(filename.lower().removesuffix(".gz").removesuffix(".zip")).suffix.removeprefix(".")
    suffix = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet"}.get(suffix, suffix)
    if suffix in KINDS:
        return suffix
    return {b"[": "json", b"{": "jsonl"}.get(head.lstrip()[:1], "csv")


def unpack(file: Path, into: Path, *, limit: int) -> tuple[Path, str]:
    """Return the plain file, and its name inside a ZIP archive.

    Raises FileTooLargeError over `limit` bytes, packed or unpacked, and InvalidError for an archive that is damaged or empty,
    or that holds another archive.
    """
    size = file.stat().st_size
    if size == 0:
        raise InvalidError(_("This file is empty. Nothing was stored; choose a file that has rows."), field="file")
    if size > limit:
        raise too_large(limit)
    head = head_of(file, 4)
    if head in ZIP:
        packed, inner_name = open_zip_entry(file, limit)
        damaged = _damaged_zip()
    elif head.startswith(GZIP):
        packed = cast(IO[bytes], gzip.open(file))  # noqa: SIM115  (closed below, as the entry of a ZIP is)
        inner_name = ""
        message = _("This gzip file is damaged or cut off. Nothing was stored; pack it again and send it again.")
        damaged = InvalidError(message, field="file")
    else:
        return file, ""

    target = into / "unpacked"
    unpacked = 0
    with packed, open(target, "wb") as out:
        while True:
            try:  # around the read alone: an error of the write below is that of a full disk
                chunk = packed.read(CHUNK)
            except _DAMAGE:
                raise damaged from None
            if not chunk:
                break
            unpacked += len(chunk)  # counted as it comes, because the size that an archive states may be a lie
            if unpacked > limit:
                raise too_large(limit)
            out.write(chunk)

    inner_head = head_of(target, 4)
    if not inner_head:
        raise InvalidError(_("There is nothing inside this archive. Nothing was stored."), field="file")
    if inner_head.startswith(GZIP) or inner_head in ZIP:
        message = _("There is an archive inside this archive. Nothing was stored; pack it once only.")
        raise InvalidError(message, field="file")
    return target, inner_name


def open_zip_entry(file: Path, limit: int) -> tuple[IO[bytes], str]:
    """Open the one data file of a ZIP archive, and return it with its name.

    The directory is checked before anything is unpacked. Its size comes first, from the trailer of the archive (APPNOTE
    4.3.16), because Python reads the whole directory into memory.
    """
    size = file.stat().st_size
    with open(file, "rb") as packed:
        packed.seek(max(0, size - _TRAILER_BYTES))
        tail = packed.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise _damaged_zip()
    if struct.unpack_from("<I", tail, at + 12)[0] > DIRECTORY_BYTES:
        message = _("This ZIP archive has too many files inside. Nothing was stored; pack one data file.")
        raise InvalidError(message, field="file")
    try:
        with zipfile.ZipFile(file) as archive:
            entry = choose_entry(archive, size)
            if entry.file_size > limit:
                raise too_large(limit)
            return archive.open(entry), entry.filename  # the entry keeps the file open until it is closed itself
    except _DAMAGE:
        raise _damaged_zip() from None


def choose_entry(archive: zipfile.ZipFile, size: int) -> zipfile.ZipInfo:
    """Return the one data file of an archive of `size` bytes; raise InvalidError or BadZipFile for anything unusual."""
    entries = []
    for entry in archive.infolist():
        is_hidden = entry.filename.startswith("__MACOSX/") or entry.filename.rpartition("/")[2].startswith(".")
        if not entry.is_dir() and not is_hidden:  # macOS and others add hidden files
            entries.append(entry)
    if len(entries) != 1:
        names = ", ".join(f"“{entry.filename[:60]}”" for entry in entries[:5])
        message = _("A ZIP archive must hold one data file; this one holds %(count)s: %(names)s. Nothing was stored.")
        raise InvalidError(message % {"count": len(entries), "names": names}, field="file")
    chosen = entries[0]
    if chosen.filename.startswith(("xl/", "word/", "[Content")):
        message = _("This looks like an Excel workbook. Nothing was stored; save the rows as CSV.")
        raise InvalidError(message, field="file")
    if stat.S_ISLNK(chosen.external_attr >> 16) or chosen.flag_bits & 1 or chosen.compress_type not in PLAIN_METHODS:
        message = _("This ZIP archive holds a link, or is encrypted or packed in an unusual way. Nothing was stored.")
        raise InvalidError(message, field="file")
    # Entries that share bytes unpack to far more than was sent (Fifield, WOOT 2019).
    end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if entry.header_offset < end or entry.header_offset + entry.compress_size > size:
            raise zipfile.BadZipFile
        end = entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size
    return chosen


def _damaged_zip() -> InvalidError:
    message = _("This ZIP archive is damaged or cut off. Nothing was stored; pack it again and send it again.")
    return InvalidError(message, field="file")


def head_of(file: Path, size: int = 1 << 16) -> bytes:
    """Return the first bytes of a file."""
    with open(file, "rb") as f:
        return f.read(size)


def refuse_binary(head: bytes) -> None:
    """Raise InvalidError if the first bytes are those of a picture, a workbook, a program, or not text."""
    kind = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)
    if not kind and not head.startswith(_WIDE_BOMS) and not looks_like_utf16(head):
        kind = "binary data" if len(_CONTROL.findall(head)) > len(head) * 0.02 + 4 else None
    if kind:
        message = _("This is not a text file: it looks like %(what)s. Nothing was stored; save the rows as CSV.")
        raise InvalidError(message % {"what": kind}, field="file", looks_like=kind)


def looks_like_utf16(head: bytes) -> str | None:
    """Return utf-16-le or utf-16-be if every other byte is mostly zero, as in Western text without a byte order mark."""
    even = head[0::2].count(0)
    odd = head[1::2].count(0)
    half = len(head) / 2
    if half > 4 and odd > half * 0.3 and even < half * 0.02:
        return "utf-16-le"
    if half > 4 and even > half * 0.3 and odd < half * 0.02:
        return "utf-16-be"
    return None


def copy_stream(source: BinaryIO, target: Path, *, limit: int) -> int:
    """Write a stream to disk and return its bytes; raise FileTooLargeError as soon as it passes the limit."""
    done = 0
    with open(target, "wb") as out:
        while chunk := source.read(CHUNK):
            done += len(chunk)
            if done > limit:
                raise too_large(limit)
            out.write(chunk)
    return done
