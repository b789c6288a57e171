"""Small files that hold nothing to learn from as they are: for each kind of file, words of the message that leads on."""

import bz2
import io
import tarfile

from datasets_app.tests.real_files import PLAIN, QUOTED, TEXTS, document, lines, pairs


def tar_of(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive_file:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(content)
        archive_file.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


REFUSED = {
    "chats without an answer": (
        document([{"messages": [{"role": "user", "content": t}], "label": True} for t in TEXTS[:8]]),
        "8 without an answer of the assistant",
    ),
    "single answers that are rated": (
        document([{"prompt": t, "completion": t, "label": i % 2 == 0} for i, t in enumerate(TEXTS[:8])]),
        "put a good answer in a column “chosen”",
    ),
    "SNIPS, one intent": (
        document({"AddToPlaylist": [{"data": [{"text": "add "}, {"text": t}]} for t in TEXTS[:8]]}),
        "same label, “AddToPlaylist”",
    ),
    "nothing but objects": (document([{"id": 1, "parts": [{"a": 1}]}] * 8), "No column looks like the"),
    "one column in quotation marks": (
        lines(["text", *(f'"{first} {t}"' for first in ("My", "The", "Our", "This") for t in PLAIN)]),
        "No column looks like the label",
    ),
    "web page": (lines(["<table>", *(f"<tr><td>{t}</td><td>{x}</td></tr>" for t, x in pairs())]), "a web page or XML"),
    "bzip2": (bz2.compress(lines(QUOTED)), "a bzip2 archive"),
    "tar": (tar_of(lines(QUOTED)), "a tar archive"),
    "another header": (lines(["a,b,c,d,e", *(f"{t},{x}" for t, x in pairs(8, PLAIN))]), "The header has 5 names"),
    "more broken than read": (
        lines(
            [
                "text,label",
                *(f"{t},{x}" for t, x in pairs(3, PLAIN)),
                *(f"{t},{i},{i},{i}" for i, t in enumerate(PLAIN[:9])),
            ]
        ),
        "",
    ),
}
