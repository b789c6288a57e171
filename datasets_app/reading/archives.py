"""Unpack an uploaded file into plain bytes on disk, within limits, and recognise what kind of file it is."""

import gzip
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from datasets_app.reading.class_files import ClassFile, class_files
from datasets_app.reading.splits import split_of_name
from web.errors import InvalidError

GZIP = b"\x1f\x8b"
ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
DIRECTORY_BYTES = 64 * 1024  # of a ZIP: a thousand names, and more than a data file needs
PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may need gigabytes of memory to unpack
KINDS = ("csv", "tsv", "json", "jsonl", "parquet")
CHUNK = 1 << 20
CELL_BYTES = 8  # of the size limit that each cell takes up, see `refuse_cells`
_FOREIGN = {  # first bytes of what people mistake for a data file
    b"%PDF": gettext_noop("a PDF"),
    b"\x89PNG": gettext_noop("a PNG picture"),
    b"\xff\xd8\xff": gettext_noop("a JPEG picture"),
    b"GIF8": gettext_noop("a GIF picture"),
    b"\x7fELF": gettext_noop("a program"),
    b"SQLite format 3": gettext_noop("an SQLite database"),
    b"ARROW1": gettext_noop("an Arrow file"),
    b"\x80\x04\x95": gettext_noop("a Python pickle"),
    b"\x80\x05\x95": gettext_noop("a Python pickle"),
}
_PACKED = {  # first bytes of archives that are not unpacked
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"(\xb5/\xfd": "Zstandard",
}
_TAR = slice(257, 262)  # where a tar archive has its name
_MARKUP = re.compile(rb"\s*<(\?xml|!doctype|(html|table|rows|root|data|dataset|items|corpus)\b)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00\x02-\x08\x0e-\x1a\x1c-\x1e]")  # without \x01 and \x1f, which are delimiters, too
_EAST_ASIAN = re.compile("[\t\n\r -~\u2010-\u2030\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7af\uff00-\uffef]")
_TRAILER_BYTES = 65_557  # at most: 22, and a comment
_LOCAL_HEADER_BYTES = 30  # before the name of an entry
_DAMAGE = (  # what the libraries raise for damaged archives
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),
)
_ABOUT_DATA = ("readme", "license", "licence", "citation", "dataset_info", "classes.")  # beginnings of names
_DOCUMENT_SUFFIXES = (".txt", ".text", ".md", ".markdown")
_FEWEST_BYTES = 500  # of files that are taken for documents unless a person says so
_LABELS = re.compile(r".*(labels?|class(es)?|categor(y|ies))")  # names of files beside texts with the label of each
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
    """Return one of KINDS, by the content if that is certain, else by the name; an empty string if neither tells."""
    if head.startswith(b"PAR1"):
        return "parquet"
    suffix = Path(filename.lower().removesuffix(".gz").removesuffix(".zip")).suffix.removeprefix(".")
    suffix = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet"}.get(suffix, suffix)
    return suffix if suffix in KINDS else ""


@dataclass(frozen=True)
class DataFile:
    """A file to read, unpacked: where it is, what it is called, and its split or label if its name speaks of one."""

    path: Path
    name: str
    split: str | None = None
    label: str | None = None  # where files or folders of an archive are called after labels
    is_one_text: bool = False  # of such a file: else each line is a text
    is_document: bool = False  # one of several plain texts without labels


def unpack(file: Path, filename: str, into: Path, *, limit: int, prose: bool | None = None) -> list[DataFile]:
    """Return the data files: one, or those of an archive that are its splits or its documents.

    prose: whether a person says that the texts are documents; None if nobody says so.
    Raises FileTooLargeError over `limit` bytes, packed or unpacked, and InvalidError for an archive that is damaged or empty,
    or that holds another archive.
    """
    size = file.stat().st_size
    if size == 0:
        raise InvalidError(_("This file is empty. Nothing was stored; choose a file that has rows."), field="file")
    if size > limit:
        raise too_large(limit)
    head = head_of(file, 4)
    if head.startswith(GZIP):
        message = _("This gzip file is damaged or cut off. Nothing was stored; pack it again and send it again.")
        target = into / "unpacked"
        with gzip.open(file) as packed:
            unpack_stream(cast(IO[bytes], packed), target, limit, InvalidError(message, field="file"))
        refuse_nested(target)
        return [DataFile(target, filename)]
    if head not in ZIP:
        return [DataFile(file, filename)]

    try:
        with open_zip(file) as archive:
            entries = choose_entries(archive, size, prose)
            if sum(entry.file_size for entry in entries) > limit:
                raise too_large(limit)
            classes = _classes_of(entries)
            are_documents = len(entries) > 1 and not all(split_of_name(entry.filename) for entry in entries)
            unpacked = []
            left = limit
            for number, entry in enumerate(entries):
                target = into / f"unpacked-{number}"
                with archive.open(entry) as packed:
                    left -= unpack_stream(packed, target, left, _damaged_zip())
                named = classes.get(entry.filename)
                if named:
                    unpacked.append(DataFile(target, entry.filename, named.split, named.label, named.is_one_text))
                    continue
                if not are_documents or entry.file_size:  # an empty note is no fault
                    refuse_nested(target)
                split = split_of_name(entry.filename) if len(entries) > 1 and not are_documents else None
                unpacked.append(DataFile(target, entry.filename, split, is_document=are_documents))
            return unpacked
    except _DAMAGE as error:
        if isinstance(error, InvalidError | OSError) and not isinstance(error, zipfile.BadZipFile):
            raise
        raise _damaged_zip() from None


def unpack_stream(packed: IO[bytes], target: Path, limit: int, damaged: InvalidError) -> int:
    """Write what an archive unpacks to, and return its bytes; raise FileTooLargeError as soon as it passes the limit."""
    unpacked = 0
    with open(target, "wb") as out:
        while True:
            try:  # around the read alone: an error of the write below is that of a full disk
                chunk = packed.read(CHUNK)
            except _DAMAGE:
                raise damaged from None
            if not chunk:
                return unpacked
            unpacked += len(chunk)  # counted as it comes, because the size that an archive states may be a lie
            if unpacked > limit:
                raise too_large(limit)
            out.write(chunk)


def refuse_nested(file: Path) -> None:
    """Raise InvalidError for a file that an archive holds and that is empty or an archive itself."""
    head = head_of(file, 4)
    if not head:
        raise InvalidError(_("There is nothing inside this archive. Nothing was stored."), field="file")
    if head.startswith(GZIP) or head in ZIP:
        message = _("There is an archive inside this archive. Nothing was stored; pack it once only.")
        raise InvalidError(message, field="file")


def open_zip(file: Path) -> zipfile.ZipFile:
    """Open a ZIP archive whose directory is small enough.

    The directory is checked before anything is unpacked. Its size comes first, from the trailer of the archive (APPNOTE
    4.3.16), because Python reads the whole directory into memory.
    """
    with open(file, "rb") as packed:
        packed.seek(max(0, file.stat().st_size - _TRAILER_BYTES))
        tail = packed.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise _damaged_zip()
    if struct.unpack_from("<I", tail, at + 12)[0] > DIRECTORY_BYTES:
        message = _("This ZIP archive has too many files inside. Nothing was stored; pack one data file.")
        raise InvalidError(message, field="file")
    try:
        return zipfile.ZipFile(file)
    except _DAMAGE:
        raise _damaged_zip() from None


def zip_names(file: Path) -> list[str]:
    """Return the names of the files in a ZIP archive; none if it is damaged."""
    try:
        with open_zip(file) as archive:
            return archive.namelist()
    except InvalidError:
        return []


def choose_entries(archive: zipfile.ZipFile, size: int, prose: bool | None = None) -> list[zipfile.ZipInfo]:
    """Return the data files of an archive of `size` bytes; raise InvalidError or BadZipFile for anything unusual.

    One data file, or several that are called after splits or labels, beside which notes such as README.md are left; or documents,
    unless a person says that they are none (`prose`).
    """
    entries = []
    for entry in archive.infolist():
        is_hidden = entry.filename.startswith("__MACOSX/") or entry.filename.rpartition("/")[2].startswith(".")
        if not entry.is_dir() and not is_hidden:  # macOS and others add hidden files
            entries.append(entry)
    documents = _documents_among(entries, prose)
    if len(entries) > 1:  # some may tell about the data, as README.md does
        data = [entry for entry in entries if not _file_name(entry.filename).startswith(_ABOUT_DATA)]
        notes = (".md", ".py", ".pdf", ".html", ".yml", ".yaml")
        entries = [entry for entry in data if not _file_name(entry.filename).endswith(notes)] or entries
    if len(documents) > 3 * len(entries):  # a folder of Markdown, and some text files in it
        entries = documents
    splits = [split_of_name(entry.filename) for entry in entries]
    if classes := _classes_of(entries):
        entries = [entry for entry in entries if entry.filename in classes]
    elif len(entries) > 1 and not all(splits) and documents:
        entries = documents
    elif not entries or (len(entries) > 1 and not all(splits)):
        names = ", ".join(f"“{entry.filename[:60]}”" for entry in entries[:5])
        message = _(
            "A ZIP archive must hold one data file, or one for each split with the name of the split (train.csv, test.csv), or "
            "texts in files or folders that are called after their labels (neg.txt, pos.txt), or documents (.txt, .md); "
            "this one holds %(count)s: %(names)s. Nothing was stored."
        )
        raise InvalidError(message % {"count": len(entries), "names": names}, field="file")
    # Entries that share bytes unpack to far more than was sent (Fifield, WOOT 2019).
    end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if entry.header_offset < end or entry.header_offset + entry.compress_size > size:
            raise zipfile.BadZipFile
        end = entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16) or entry.flag_bits & 1 or entry.compress_type not in PLAIN_METHODS:
            message = _(
                "This ZIP archive holds a link, or is encrypted or packed in an unusual way. Nothing was stored."
            )
            raise InvalidError(message, field="file")
    order = ("train", "eval", "test")
    return sorted(entries, key=lambda e: (order.index(split_of_name(e.filename) or "train"), e.filename))


def _classes_of(entries: list[zipfile.ZipInfo]) -> dict[str, ClassFile]:
    """Return what the names of files tell that are called after labels, and not after splits."""
    names = [entry.filename for entry in entries]
    is_by_split = all(split_of_name(name) for name in names)
    return class_files(names) if len(names) > 1 and not is_by_split else {}


def _documents_among(entries: list[zipfile.ZipInfo], prose: bool | None) -> list[zipfile.ZipInfo]:
    """Return the files of an archive that are plain texts, without README and the like; none if others or labels are among them.

    prose: what a person says of them; else they have to be long enough.
    """
    documents = [entry for entry in entries if not _file_name(entry.filename).startswith(_ABOUT_DATA)]
    paths = [Path(entry.filename.lower()) for entry in documents]
    are_texts = all(path.suffix in _DOCUMENT_SUFFIXES and not _LABELS.fullmatch(path.stem) for path in paths)
    is_prose = sum(entry.file_size for entry in documents) >= _FEWEST_BYTES if prose is None else prose
    return documents if are_texts and is_prose else []


def _file_name(name: str) -> str:
    """Return the name of an entry without its folders, in lower case."""
    return name.rpartition("/")[2].lower()


def _damaged_zip() -> InvalidError:
    message = _("This ZIP archive is damaged or cut off. Nothing was stored; pack it again and send it again.")
    return InvalidError(message, field="file")


def head_of(file: Path, size: int = 1 << 16) -> bytes:
    """Return the first bytes of a file."""
    with open(file, "rb") as f:
        return f.read(size)


def refuse_binary(head: bytes) -> None:
    """Raise InvalidError if the first bytes are those of a picture, an archive, a program, a web page, or not text."""
    packed = (
        "tar"
        if head[_TAR] == b"ustar"
        else next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
    )
    if packed:
        message = _("This is a %(kind)s archive. Nothing was stored; pack the files as ZIP, or send a single one.")
        raise InvalidError(message % {"kind": packed}, field="file")
    kind = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)
    if _MARKUP.match(head.removeprefix(b"\xef\xbb\xbf")):
        kind = gettext_noop("a web page or XML")
    if not kind and not head.startswith(_WIDE_BOMS) and not looks_like_utf16(head):
        kind = gettext_noop("binary data") if len(_CONTROL.findall(head)) > len(head) * 0.02 + 4 else None
    if kind:
        message = _("This is no table of texts: it looks like %(what)s. Nothing was stored; save the rows as CSV.")
        raise InvalidError(message % {"what": _(kind)}, field="file", looks_like=kind)


def looks_like_utf16(head: bytes) -> str | None:
    """Return utf-16-le or utf-16-be if every other byte is mostly zero, as in Western text without a byte order mark."""
    even = head[0::2].count(0)
    odd = head[1::2].count(0)
    half = len(head) / 2
    if half > 4 and odd > half * 0.3 and even < half * 0.02:
        return "utf-16-le"
    if half > 4 and even > half * 0.3 and odd < half * 0.02:
        return "utf-16-be"
    # Chinese, Japanese or Korean text has few zeros, and hardly any other meaning.
    for codec in ("utf-16-le", "utf-16-be"):
        try:
            text = head[: len(head) // 2 * 2 - 2].decode(codec)
        except UnicodeDecodeError:
            continue
        if "\n" in text and len(_EAST_ASIAN.findall(text)) > len(text) * 0.95 and not text.isascii():
            return codec
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
