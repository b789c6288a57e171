"""Small files of the kinds that people have: for each kind of file, what a person expects to be stored."""

import io
import json
import random
import zipfile
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

_WORDS = [
    "river", "stone", "the", "a", "of", "garden", "old", "music", "never,", "and", "always", "house", "said", "12",
    "people", "night;", "when", "they", "came", "back", "to", "light", "water,", "with", "bread",
]  # fmt: skip
_random = random.Random(3)
TEXTS = [" ".join(_random.choice(_WORDS) for _ in range(_random.randint(5, 14))) for _ in range(48)]
PLAIN = [text.replace(",", "").replace(";", "") for text in TEXTS]
LABELS = ["good", "bad"] * 24


@dataclass
class RealFile:
    """A file, and what is read from it: rows of (text, label), the kind, codes of notes and reasons of rows left out."""

    name: str
    content: bytes
    rows: list[tuple[str, str]] | int
    kind: str = "labels"
    notes: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] | None = None


def lines(rows) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def document(value) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def records(values) -> bytes:
    return b"\n".join(map(document, values))


def archive(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return packed.getvalue()


def workbook_cell(value: object) -> str:
    return f'<c t="inlineStr"><is><t>{value}</t></is></c>' if isinstance(value, str) else f"<c><v>{value}</v></c>"


def workbook(**sheets: list[list[object]]) -> bytes:
    """Return an .xlsx file with these sheets: texts as inline strings, all else as numbers (ECMA-376, part 1)."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    files = {}
    for number, rows in enumerate(sheets.values(), 1):
        cells = ["<row>" + "".join(map(workbook_cell, row)) + "</row>" for row in rows]
        data = "".join(cells)
        files[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{main}"><sheetData>{data}</sheetData></worksheet>'
        )
    listed = "".join(f'<sheet name="{name}" sheetId="{i}" r:id="r{i}"/>' for i, name in enumerate(sheets, 1))
    files["xl/workbook.xml"] = f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>{listed}</sheets></workbook>'
    kind = f"{relations}/worksheet"
    linked = "".join(
        f'<Relationship Id="r{i}" Type="{kind}" Target="worksheets/sheet{i}.xml"/>' for i in range(1, len(sheets) + 1)
    )
    files["xl/_rels/workbook.xml.rels"] = f'<Relationships xmlns="{package}/relationships">{linked}</Relationships>'
    files["_rels/.rels"] = (
        f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r" Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    )
    files["[Content_Types].xml"] = (
        f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>'
    )
    return archive(**{name: content.encode() for name, content in files.items()})


def hub_parquet(texts, numbers) -> bytes:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
    }
    table = pa.table({"text": texts, "label": numbers})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def pairs(count=8, texts=TEXTS):
    return list(zip(texts[:count], LABELS[:count], strict=True))


def flags(count=12):
    return [(i % 2, int(i % 3 == 0), int(i % 4 == 0)) for i in range(count)]


QUOTED = [f'"{text}",{label}' for text, label in pairs()]
MULTI = [
    json.dumps(sorted(name for name, flag in zip(["anger", "fear", "joy"], row, strict=True) if flag))
    for row in flags()
]

REAL_FILES = {
    # a first line that is a row
    "label and text, no header": RealFile(
        "sms", lines(f"{label}\t{text}" for text, label in pairs(24)), pairs(24), notes={"no_header"}
    ),
    "numbers in front, no header": RealFile(
        "a.csv",
        lines(f'"{i % 2 * 4}","{i}","Mon May 11 03:17:40 UTC 2009","kindle","user{i}","{TEXTS[i]}"' for i in range(16)),
        [(TEXTS[i], str(i % 2 * 4)) for i in range(16)],
        notes={"no_header"},
    ),
    "label behind the text, no header": RealFile(
        "dev.txt",
        lines(f"體育新聞第{i}則今天公布了\t{i % 3}" for i in range(20)),
        [(f"體育新聞第{i}則今天公布了", str(i % 3)) for i in range(20)],
        notes={"no_header"},
    ),
    # quotation marks
    "marks that quote nothing": RealFile(
        "a.tsv",
        lines(["label\ttext", *(f'{label}\t"{text}' for text, label in pairs())]),
        [(f'"{text}', label) for text, label in pairs()],
        notes={"literal_marks"},
    ),
    "single marks": RealFile(
        "a.csv",
        lines(f"{['Sport', 'Web'][i % 2]};'{TEXTS[i]}; und mehr, ja.'" for i in range(24)),
        [(f"{TEXTS[i]}; und mehr, ja.", ["Sport", "Web"][i % 2]) for i in range(24)],
        notes={"no_header"},
    ),
    "marks with a backslash before": RealFile(
        "a.csv",
        lines(["text,label", *(rf'"they \"said\" {text}",{label}' for text, label in pairs())]),
        [(f'they "said" {text}', label) for text, label in pairs()],
    ),
    "cells of several lines": RealFile(
        "a.csv",
        lines(["text,label", *(f'"{text}\n\nsecond, part",{label}' for text, label in pairs())]),
        [(f"{text}\n\nsecond, part", label) for text, label in pairs()],
    ),
    "a mark never closed among quoted cells": RealFile(
        "a.csv",
        lines(["text,label", *QUOTED, '"Never again,bad', '"And fine",good']),
        [*pairs(), ('"Never again', "bad"), ("And fine", "good")],
        notes={"literal_marks"},
    ),
    # delimiters
    "at sign": RealFile(
        "a.txt", lines(f"{text} .@{label}" for text, label in pairs(24)), [(f"{t} .", x) for t, x in pairs(24)],
        notes={"no_header"},
    ),
    "only the first semicolon separates": RealFile(
        "a.csv",
        lines(f"{label};{text}; und {'mehr; ' * (i % 4)}ja." for i, (text, label) in enumerate(pairs(24))),
        [(f"{text}; und {'mehr; ' * (i % 4)}ja.", label) for i, (text, label) in enumerate(pairs(24))],
        notes={"no_header", "first_delimiter"},
    ),
    "only the first space separates": RealFile(
        "train.label",
        lines(f"{['DESC:manner', 'HUM:ind'][i % 2]} {TEXTS[i]} ?" for i in range(32)),
        [(f"{TEXTS[i]} ?", ["DESC:manner", "HUM:ind"][i % 2]) for i in range(32)],
        notes={"no_header", "first_delimiter"},
    ),
    "sep line of Excel": RealFile(
        "a.csv",
        lines(["sep=;", "Text;Urteil", *(f"{text};{label}" for text, label in pairs(8, PLAIN))]),
        pairs(8, PLAIN),
        notes={"skipped_lines"},
    ),
    # lines before or unlike the header
    "comment before the header": RealFile(
        "a.csv", lines(["# exported 2026-01-02", "text,label", *QUOTED]), pairs(), notes={"skipped_lines"}
    ),
    "title before the header": RealFile(
        "a.csv", lines(["My survey", "", "text,label", *QUOTED]), pairs(), notes={"skipped_lines"}
    ),
    "lines and blank lines before the header": RealFile(
        "a.csv", lines(["", "My survey", "", "of last week", "text,label", *QUOTED]), pairs(), notes={"skipped_lines"}
    ),
    "row names without a name": RealFile(
        "a.csv", lines(["text,label", *(f"{i},{line}" for i, line in enumerate(QUOTED, 1))]), pairs(), notes={"row_names"}
    ),
    "a delimiter at the end of each line": RealFile(
        "a.csv", lines(["text,label", *(f"{line}," for line in QUOTED)]), pairs(), notes={"header_too_short"}
    ),
    "one name too many": RealFile(
        "a.csv", lines(["text,label,note", *QUOTED]), pairs(), notes={"header_too_long"}
    ),
    # text in several columns
    "texts that run on": RealFile(
        "a.csv",
        lines(["v1,v2,,,", *(f"{x},{t}{', yes, but,' if i % 5 == 0 else ',,,'}" for i, (t, x) in enumerate(pairs(24, PLAIN)))]),
        [(f"{t}{', yes, but' if i % 5 == 0 else ''}", x) for i, (t, x) in enumerate(pairs(24, PLAIN))],
        notes={"overflow_joined"},
    ),
    "texts with the delimiter": RealFile(
        "a.csv",
        lines(["label,text", *(f"{x},{t}{', a bit' if i == 5 else ''}" for i, (t, x) in enumerate(pairs(24, PLAIN)))]),
        [(f"{t}{', a bit' if i == 5 else ''}", x) for i, (t, x) in enumerate(pairs(24, PLAIN))],
        notes={"cells_joined"},
    ),
    "another text that is not used": RealFile(
        "a.csv",
        lines(["Id,Score,Summary,Text", *(f'{i},{i % 5 + 1},Good stuff {i},"{TEXTS[i]}"' for i in range(16))]),
        [(TEXTS[i], str(i % 5 + 1)) for i in range(16)],
        notes={"unused_text"},
    ),
    # several labels of a text
    "columns of yes and no": RealFile(
        "a.txt",
        lines(["ID\tTweet\tanger\tfear\tjoy", *(f"En-{i}\t{TEXTS[i]}\t{a}\t{b}\t{c}" for i, (a, b, c) in enumerate(flags()))]),
        [(TEXTS[i], label) for i, label in enumerate(MULTI)],
        kind="multi_label",
        notes={"several_labels"},
    ),
    "one yes in each row": RealFile(
        "a.csv",
        lines(["text,good,bad", *(f'"{t}",{int(x == "good")},{int(x == "bad")}' for t, x in pairs())]),
        pairs(),
        notes={"flag_columns"},
    ),
    "several labels in a cell": RealFile(
        "a.tsv",
        lines(f"{TEXTS[i]}\t{['27', '4', '4,27', '3'][i % 4]}\tid{i}" for i in range(40)),
        [(TEXTS[i], ['["27"]', '["4"]', '["27", "4"]', '["3"]'][i % 4]) for i in range(40)],
        kind="multi_label",
        notes={"no_header", "several_in_cell"},
    ),
    # exports of annotation tools
    "Label Studio, short form": RealFile(
        "a.json",
        document([{"text": t, "id": i, "mood": x, "annotator": 1, "annotation_id": i} for i, (t, x) in enumerate(pairs())]),
        pairs(),
        notes={"export"},
    ),
    "doccano": RealFile("a.jsonl", records({"id": 1, "text": t, "label": [x]} for t, x in pairs()), pairs()),
    "doccano, spans": RealFile(
        "a.jsonl",
        records({"id": 1, "text": t, "label": [[0, 3, "X"]]} for t, _x in pairs()),
        [(t, '[{"start": 0, "end": 3, "label": "X"}]') for t, _x in pairs()],
        kind="spans",
        notes={"export"},
    ),
    "Argilla 2": RealFile(
        "a.json",
        document(
            [
                {
                    "id": "1",
                    "fields": {"text": t},
                    "metadata": {"airline": "United"},
                    "suggestions": {},
                    "responses": {"mood": [{"value": x, "user_id": "u"}]},
                }
                for t, x in pairs()
            ]
        ),
        pairs(),
        notes={"export"},
    ),
    "Argilla 1": RealFile(
        "a.json",
        document([{"text": t, "inputs": {"text": t}, "annotation": x, "status": "Validated"} for t, x in pairs()]),
        pairs(),
        notes={"export"},
    ),
    "Prodigy": RealFile(
        "a.jsonl",
        records(
            {"text": t, "_input_hash": i, "accept": [x], "answer": "accept" if i < 6 else "ignore"}
            for i, (t, x) in enumerate(pairs())
        ),
        pairs(6),
        notes={"export"},
        left_out={"cancelled": 2},
    ),
    "spaCy, categories": RealFile(
        "a.json", document([[t, {"cats": {x: 1.0, "other": 0.0}}] for t, x in pairs()]), pairs()
    ),
    "Rasa, JSON": RealFile(
        "a.json",
        document({"rasa_nlu_data": {"common_examples": [{"text": t, "intent": x, "entities": []} for t, x in pairs()]}}),
        pairs(),
    ),
    "Rasa, YAML": RealFile(
        "nlu.yml",
        lines(
            ['version: "3.1"', "nlu:"]
            + [f"- intent: {x}\n  examples: |\n    - {t} in [Berlin](city)" for t, x in pairs(8, PLAIN)]
        ),
        [(f"{t} in Berlin", x) for t, x in pairs(8, PLAIN)],
    ),
    "title with empty cells": RealFile(
        "a.csv", lines(["Survey of May,,", "no,remark,verdict", *(f"{i},{line}" for i, line in enumerate(QUOTED))]), pairs(),
        notes={"skipped_lines"},
    ),
    "first word is a label": RealFile(
        "a.label", lines(f"{'NUM:date' if x == 'good' else 'HUM:ind'} {t}" for t, x in pairs(24)),
        [(t, "NUM:date" if x == "good" else "HUM:ind") for t, x in pairs(24)], notes={"no_header", "first_delimiter"},
    ),
    "label, colon and text": RealFile(
        "a.txt", lines(f"{x}: {t}" for t, x in pairs(24)), pairs(24), notes={"no_header"}
    ),
    "fastText": RealFile("a.txt", lines(f"__label__{x} {t}" for t, x in pairs()), pairs()),
    "CoNLL": RealFile(
        "a.conll",
        lines(["-DOCSTART- -X- O O", "", "Ada NNP I-NP B-PER", "Byron NNP I-NP I-PER", "lived VB I-VP O", ""] * 3),
        [("Ada Byron lived", '[{"start": 0, "end": 9, "label": "PER"}]')] * 3,
        kind="spans",
    ),
    # JSON in other shapes
    "JSON by split": RealFile(
        "a.json",
        document({"train": [list(p) for p in pairs()], "val": [["one more", "good"]], "oos_test": [["and another", "bad"]]}),
        [*pairs(), ("one more", "good"), ("and another", "bad")],
        notes={"no_header"},
        splits={"train": 8, "eval": 1, "test": 1},
    ),
    "pandas, by column": RealFile(
        "a.json", document({"text": dict(enumerate(TEXTS[:8])), "label": dict(enumerate(LABELS[:8]))}), pairs()
    ),
    "pandas, by row": RealFile(
        "a.json", document({str(i): {"text": t, "label": x} for i, (t, x) in enumerate(pairs())}), pairs()
    ),
    "pandas, split": RealFile(
        "a.json", document({"columns": ["text", "label"], "index": [*range(8)], "data": [list(p) for p in pairs()]}), pairs()
    ),
    "objects one behind another": RealFile(
        "a.json", b"".join(document({"text": t, "label": x}) for t, x in pairs()), pairs()
    ),
    "objects over several lines": RealFile(
        "a.jsonl", "\n".join(json.dumps({"text": t, "label": x}, indent=2) for t, x in pairs()).encode(), pairs()
    ),
    "JSON lines with commas": RealFile(
        "a.jsonl", b",\n".join(document({"text": t, "label": x}) for t, x in pairs()), pairs()
    ),
    "JSON list in a .jsonl": RealFile("a.jsonl", document([{"text": t, "label": x} for t, x in pairs()]), pairs()),
    "intents of a chat bot": RealFile(
        "intents.json",
        document({"intents": [{"tag": x, "patterns": [t], "responses": ["Yes", "No"]} for t, x in pairs()]}),
        pairs(),
    ),
    "YAML list": RealFile(
        "a.yml", lines(f"- text: {json.dumps(t)}\n  label: {x}" for t, x in pairs()), pairs()
    ),
    "numbers beside names": RealFile(
        "a.jsonl",
        records({"text": t, "label": LABELS.index(x), "label_text": x} for t, x in pairs()),
        pairs(),
        notes={"label_names"},
    ),
    "list of pairs": RealFile("a.json", document([list(p) for p in pairs()]), pairs(), notes={"no_header"}),
    # several files
    "splits in an archive": RealFile(
        "a.zip",
        archive(**{"x/train.csv": lines(["text,label", *QUOTED]), "x/valid.csv": lines(["text,label", "last,bad"])}),
        [*pairs(), ("last", "bad")],
        notes={"split_files"},
        splits={"train": 8, "eval": 1},
    ),
    "folder of the hub": RealFile(
        "a.zip",
        archive(
            **{
                "README.md": b"# about",
                "data/train-00000-of-00001.parquet": hub_parquet(TEXTS[:8], [1, 0] * 4),
                "data/test-00000-of-00001.parquet": hub_parquet(["last"], [0]),
            }
        ),
        [*pairs(), ("last", "bad")],
        notes={"class_names", "split_files"},
        splits={"train": 8, "test": 1},
    ),
    "a file for each label": RealFile(
        "reviews.zip",
        archive(**{"reviews/bad.txt": lines(TEXTS[1:8:2]), "reviews/good.txt": lines(TEXTS[0:8:2])}),
        [*((text, "bad") for text in TEXTS[1:8:2]), *((text, "good") for text in TEXTS[0:8:2])],
        notes={"class_files"},
    ),
    "files for each split and label, in Big5": RealFile(
        "reviews.zip",
        archive(
            **{
                "train/好.txt": "菜很好吃，服務也很好\r\n這家店不錯，我們下次再來\r\n".encode("cp950"),
                "train/差.txt": "等了一個小時，真的很差\r\n".encode("cp950"),
                "test/好.txt": "房間很大很乾淨\r\n".encode("cp950"),
                "test/差.txt": "太吵了，沒有辦法睡\r\n".encode("cp950"),
            }
        ),
        [
            ("房間很大很乾淨", "好"),
            ("太吵了，沒有辦法睡", "差"),
            ("菜很好吃，服務也很好", "好"),
            ("這家店不錯，我們下次再來", "好"),
            ("等了一個小時，真的很差", "差"),
        ],
        notes={"class_files"},
        splits={"train": 3, "test": 2},
    ),
    "a folder for each label, a file for each text": RealFile(
        "imdb.zip",
        archive(
            **{
                "imdb/README": b"about",
                "imdb/train/urls_pos.txt": b"http://example.com/1\n",
                "imdb/test/neg/0_1.txt": b"Dull,\nand long.\n",
                "imdb/test/pos/0_9.txt": b"Warm.",
                "imdb/train/neg/0_2.txt": b"Cold fish",
                "imdb/train/pos/0_8.txt": b"Fresh bread",
                "imdb/train/unsup/0_0.txt": b"Nobody knows",
            }
        ),
        [("Dull,\nand long.", "neg"), ("Warm.", "pos"), ("Cold fish", "neg"), ("Fresh bread", "pos")],
        notes={"class_folders", "other_files"},
        left_out={"no_label": 1},
        splits={"train": 2, "test": 2},
    ),
    "workbook": RealFile(
        "a.xlsx",
        workbook(Notes=[], Answers=[["Review", "Liked"], *([t, i % 2] for i, t in enumerate(TEXTS[:8]))]),
        [(TEXTS[i], str(i % 2)) for i in range(8)],
    ),
    # labels
    "whole numbers with a point": RealFile(
        "a.csv",
        lines(["Review,Liked", *(f'"{TEXTS[i]}",{float(i % 2)}' for i in range(8))]),
        [(TEXTS[i], str(i % 2)) for i in range(8)],
        notes={"whole_numbers"},
    ),
    "scores": RealFile(
        "a.tsv",
        lines(["score\ttext", *(f"{i * 37 % 50 / 10:.3f}\t{TEXTS[i]}" for i in range(24))]),
        [(TEXTS[i], f"{i * 37 % 50 / 10:g}") for i in range(24)],
        kind="scores",
    ),
    # encodings
    "Western letters in Windows' encoding": RealFile(
        "a.csv",
        "\n".join(f'{x},"{t} in Æl, Århus, Ørsted"' for t, x in pairs(24)).encode("cp1252"),
        [(f"{t} in Æl, Århus, Ørsted", x) for t, x in pairs(24)],
        notes={"no_header"},
    ),
    "one wrong byte": RealFile(
        "a.csv",
        "text,label\n早安,good\n晚安,bad\n".encode() + b"caf\xe9,good\n",
        [("早安", "good"), ("晚安", "bad"), ("caf\ufffd", "good")],
        notes={"replaced_characters"},
    ),
}  # fmt: skip
