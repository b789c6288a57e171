"""Lines counted by bytes beside what Python's csv module counts."""

import csv
import random

import pytest

from datasets_app.reading import line_scan
from datasets_app.reading.line_scan import scan_lines


def lines_by_csv(content: str) -> tuple[int, int, int]:
    reader = csv.reader(content.splitlines(keepends=True), strict=True)
    next(reader)
    header = reader.line_num
    blank = sum(not cells for cells in reader)
    return header, blank, reader.line_num


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_those_of_the_csv_module(tmp_path, monkeypatch, block, end):
    monkeypatch.setattr(line_scan, "CHUNK", block)
    cells = ["a", "", '"b"', '""', '"one""two"', f'"one{end}two"', f'"{end}{end}"', '""""', '"x,y"']
    chosen = random.Random(0)
    for number in range(60):
        records = [",".join(chosen.choices(cells, k=3)) for _ in range(chosen.randint(1, 8))]
        records.insert(chosen.randint(1, len(records)), "")
        content = end.join(records) + end * chosen.randint(0, 2)
        file = tmp_path / str(number)
        file.write_bytes(content.encode())
        scanned = scan_lines(file, ",", skipped_lines=0, has_marks=True)
        assert scanned and (scanned.header, scanned.blank, scanned.total) == lines_by_csv(content), content


@pytest.mark.parametrize(
    "content",
    ['a,b\n5" pipe,x\n', 'a,b\n"one"two,x\n', 'a,b\n"open,x\n', "a,b\rc,d\n", 'a,b\n1, "x"\n', "\na,b\n1,2\n"],
)
def test_bytes_do_not_tell_of_other_files(tmp_path, content):
    file = tmp_path / "a.csv"
    file.write_bytes(content.encode())
    assert scan_lines(file, ",", skipped_lines=0, has_marks=True) is None


def test_skipped_lines_are_not_counted(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b'a "title"\r\ntext,label\r\n"x\r\ny",1')
    scanned = scan_lines(file, ",", skipped_lines=1, has_marks=True)
    assert scanned and vars(scanned) == {"header": 1, "blank": 0, "inside": 1, "total": 3}
