"""From an uploaded file to bounded plain bytes on disk: what kind it is, how large it may be, gzip undone."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from django.utils.translation import gettext as _

from accounts.errors import Invalid

KINDS = ("csv", "tsv", "json", "jsonl", "parquet")
CHUNK = 1 << 20
_FOREIGN = {  # first bytes of what people mistake for a data file
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


class TooLarge(Invalid):
    code, status = "too_large", 413


def too_large(limit: int) -> TooLarge:
    message = _(
        "This file is larger than the limit of %(limit)s MiB (unpacked). Nothing was stored. "
        "Split it, or ask an administrator to raise UPLOAD_LIMIT_MB."
    )
    return TooLarge(message % {"limit": max(1, limit >> 20)}, field="file", limit_bytes=limit)


def kind_of(filename: str, head: bytes) -> str:
    """One of KINDS: by the content where that is certain, else by the name, else CSV."""
    if head.startswith(b"PAR1"):
        return "parquet"
    suffix = Path(filename.lower().removesuffix(".gz")).suffix.removeprefix(".")
    suffix = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet"}.get(suffix, suffix)
    if suffix in KINDS:
        return suffix
    return {b"[": "json", b"{": "jsonl"}.get(head.lstrip()[:1], "csv")


def unpack(file: Path, into: Path, *, limit: int) -> Path:
    """The file itself, or its content in `into` where it is gzip; TooLarge beyond `limit` bytes, packed or not."""
    size = file.stat().st_size
    if size == 0:
        raise Invalid(_("This file is empty. Nothing was stored; choose a file that has rows."), field="file")
    if size > limit:
        raise too_large(limit)
    with open(file, "rb") as packed:
        if packed.read(2) != b"\x1f\x8b":
            return file
    target = into / "unpacked"
    with open(target, "wb") as out:
        for chunk in _gunzip(file, limit):
            out.write(chunk)
    if target.stat().st_size == 0:
        raise Invalid(_("The gzip file has nothing inside. Nothing was stored."), field="file")
    return target


def _gunzip(file: Path, limit: int) -> Iterator[bytes]:
    done = 0
    try:
        with gzip.open(file) as packed:
            while chunk := packed.read(CHUNK):
                done += len(chunk)
                if done > limit:
                    raise too_large(limit)
                yield chunk
    except (OSError, EOFError, zlib.error):
        message = _("This gzip file is damaged or cut off. Nothing was stored; pack it again and send it again.")
        raise Invalid(message, field="file") from None


def head_of(file: Path, size: int = 1 << 16) -> bytes:
    with open(file, "rb") as f:
        return f.read(size)


def refuse_binary(head: bytes) -> None:
    """Invalid where the first bytes are those of a picture, a workbook, a program, or of no text at all."""
    found = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)
    if not found and not head.startswith(_WIDE_BOMS) and not looks_like_utf16(head):
        found = "binary data" if len(_CONTROL.findall(head)) > len(head) * 0.02 + 4 else None
    if found:
        message = _("This is not a text file: it looks like %(what)s. Nothing was stored; save the rows as CSV.")
        raise Invalid(message % {"what": found}, field="file", looks_like=found)


def looks_like_utf16(head: bytes) -> str | None:
    """utf-16-le or utf-16-be where every other byte is mostly zero, as in Western text without a byte order mark."""
    even, odd, half = head[0::2].count(0), head[1::2].count(0), len(head) / 2
    if half > 4 and odd > half * 0.3 and even < half * 0.02:
        return "utf-16-le"
    if half > 4 and even > half * 0.3 and odd < half * 0.02:
        return "utf-16-be"
    return None


def copy_stream(source: BinaryIO, target: Path, *, limit: int) -> int:
    """Write a stream to disk in chunks; TooLarge as soon as it passes the limit. Returns the bytes written."""
    done = 0
    with open(target, "wb") as out:
        while chunk := source.read(CHUNK):
            done += len(chunk)
            if done > limit:
                raise too_large(limit)
            out.write(chunk)
    return done
