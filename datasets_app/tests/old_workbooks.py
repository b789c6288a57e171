"""The smallest .xls and .ods files: nothing among our dependencies writes them, and xlwt has had no release since 2017."""

import io
import struct
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

_FREE = 0xFFFF_FFFF
_END = 0xFFFF_FFFE
_FAT = 0xFFFF_FFFD
_SECTOR = 512
_SMALLEST_STREAM = 4096  # bytes; smaller ones are kept in another way
_GLOBALS = 0x0005
_WORKSHEET = 0x0010

Cell = str | int | float


def ods(**sheets: Sequence[Sequence[Cell]]) -> bytes:
    """Return an OpenDocument spreadsheet (ISO/IEC 26300)."""
    tables = "".join(f'<table:table table:name="{name}">{_rows(rows)}</table:table>' for name, rows in sheets.items())
    names = {name: f"urn:oasis:names:tc:opendocument:xmlns:{name}:1.0" for name in ("office", "table", "text")}
    declared = " ".join(f'xmlns:{name}="{address}"' for name, address in names.items())
    content = f"<office:spreadsheet>{tables}</office:spreadsheet>"
    content = f"<office:document-content {declared}><office:body>{content}</office:body></office:document-content>"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", content)
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
    return packed.getvalue()


def _rows(rows: Sequence[Sequence[Cell]]) -> str:
    return "".join(f"<table:table-row>{''.join(map(_cell, row))}</table:table-row>" for row in rows)


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return f'<table:table-cell office:value-type="string"><text:p>{escape(value)}</text:p></table:table-cell>'
    return f'<table:table-cell office:value-type="float" office:value="{value}"><text:p>{value}</text:p></table:table-cell>'


def xls(**sheets: Sequence[Sequence[Cell]]) -> bytes:
    """Return a workbook of Excel 97 (MS-XLS) in a compound file (MS-CFB)."""
    streams = [_sheet(rows) for rows in sheets.values()]
    bounds_size = sum(len(_bound_sheet(name, 0)) for name in sheets)
    position = len(_beginning(_GLOBALS)) + bounds_size + len(_record(0x000A))
    bounds = b""
    for name, stream in zip(sheets, streams, strict=True):
        bounds += _bound_sheet(name, position)
        position += len(stream)
    return _compound_file(_beginning(_GLOBALS) + bounds + _record(0x000A) + b"".join(streams))


def _record(kind: int, content: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def _beginning(kind: int) -> bytes:
    return _record(0x0809, struct.pack("<HHHHII", 0x0600, kind, 0, 1996, 0, 6))


def _bound_sheet(name: str, position: int) -> bytes:
    return _record(0x0085, struct.pack("<IHBB", position, 0, len(name), 1) + name.encode("utf-16-le"))


def _sheet(rows: Sequence[Sequence[Cell]]) -> bytes:
    cells = b""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            at = struct.pack("<HHH", i, j, 0)
            if isinstance(value, str):
                cells += _record(0x0204, at + struct.pack("<HB", len(value), 1) + value.encode("utf-16-le"))
            else:
                cells += _record(0x0203, at + struct.pack("<d", value))
    return _beginning(_WORKSHEET) + cells + _record(0x000A)


def _compound_file(stream: bytes) -> bytes:
    """Return a compound file with one stream: header, a sector of the file allocation table, one of the directory, the stream."""
    stream = stream.ljust(_SMALLEST_STREAM, b"\0")
    sectors = -(-len(stream) // _SECTOR)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, 1, 1, 0, _SMALLEST_STREAM, _END, 0, _END, 0) + struct.pack(
        "<109I", 0, *[_FREE] * 108
    )
    table = [_FAT, _END, *range(3, sectors + 2), _END]
    table += [_FREE] * (_SECTOR // 4 - len(table))
    directory = _entry("Root Entry", 5, child=1, start=_END, size=0)
    directory += _entry("Workbook", 2, child=_FREE, start=2, size=len(stream))
    return b"".join(
        [
            header,
            struct.pack(f"<{_SECTOR // 4}I", *table),
            directory.ljust(_SECTOR, b"\0"),
            stream.ljust(sectors * _SECTOR, b"\0"),
        ]
    )


def _entry(name: str, kind: int, *, child: int, start: int, size: int) -> bytes:
    encoded = name.encode("utf-16-le")
    head = encoded.ljust(64, b"\0") + struct.pack("<HBB3I", len(encoded) + 2, kind, 1, _FREE, _FREE, child)
    return head + bytes(36) + struct.pack("<IQ", start, size)
