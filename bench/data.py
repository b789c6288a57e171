"""The validation report beside a plain pandas script that makes the same checks, taking turns, each in a process of its own.

    python bench/data.py                 the sample tweets (38,158 rows) and 100,000 rows
    python bench/data.py --rows 1000000  a million rows of about 30 tokens: six minutes, nearly all of it pandas'
    python bench/data.py --store         only: how long and in how much memory the rows are read, checked, split, stored

The pandas script is what one writes with the usual libraries: pandas, re, ftfy, datasketch's MinHash, transformers'
tokenizer, lingua. Both read the same CSV, look for the same findings, and count tokens of every row. Languages are told
on the same number of rows, because lingua takes most of the time otherwise, here as there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARKUP = re.compile(
    r"(?i)</?(?:a|b|i|p|br|div|img|span|font|strong|script|h[1-6])\b[^<>]{0,300}>|&(?:[a-z]{2,8}|#\d{1,6});"
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
PERSONAL = re.compile(
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
    r"|\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}\b|\(?\b\d{3}\)?[ .-]\d{3}[.-]\d{4}\b"
    r"|\b09\d{2}[ -]?\d{3}[ -]?\d{3}\b|\(?\b0[2-8]\)?[ -]\d{3,4}[ -]?\d{4}\b|\b[A-Z][1289]\d{8}\b"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.worker:
        started = time.perf_counter()
        workers = {"pandas": with_pandas, "lorasite": with_lorasite, "store": stored_by_lorasite}
        figures = workers[options.worker](Path(options.file))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak, "found": figures}))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.store:
            show("store", spawn("store", made_up(Path(folder), options.rows)))
            return
        for file in (sample(Path(folder)), made_up(Path(folder), options.rows)):
            beside(file, options.turns)


def beside(file: Path, turns: int) -> None:
    print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB")
    best: dict[str, float] = {}
    for _turn in range(turns):
        for name in ("lorasite", "pandas"):
            result = spawn(name, file)
            best[name] = min(best.get(name, float("inf")), result["seconds"])
            show(name, result)
    print(f"  pandas / lorasite: {best['pandas'] / best['lorasite']:.1f} times")


def show(name: str, result: dict[str, Any]) -> None:
    findings = ", ".join(f"{code} {count}" for code, count in sorted(result["found"].items()))
    print(f"  {name:8}  {result['seconds']:7.1f} s  {result['peak_mb']:6.0f} MiB  {findings}", flush=True)


def spawn(worker: str, file: Path) -> Any:
    command = [sys.executable, __file__, "--worker", worker, "--file", str(file)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def sample(folder: Path) -> Path:
    from samples import tweets_en

    path = folder / "tweets.csv"
    tweets_en().select("text", "label").write_csv(path)
    return path


def made_up(folder: Path, rows: int) -> Path:
    """Halves of two tweets each; 4 % are exact duplicates and 4 % near ones."""
    import numpy as np
    import polars as pl

    from samples import tweets_en

    tweets, rng = tweets_en(), np.random.default_rng(0)
    words, labels = [text.split() for text in tweets["text"]], tweets["label"].to_list()
    first, second = rng.integers(0, len(words), (2, rows))
    texts = [
        " ".join(words[i][: len(words[i]) // 2 + 1] + words[j][len(words[j]) // 2 :])
        for i, j in zip(first, second, strict=True)
    ]
    for i in range(25, rows, 25):
        texts[i], texts[i + 3 if i + 3 < rows else i] = texts[i - 7], texts[i - 11] + " indeed"
    path = folder / f"{rows}-rows.csv"
    pl.DataFrame({"text": texts, "label": [labels[i] for i in first]}).write_csv(path)
    return path


def with_lorasite(file: Path) -> dict[str, int]:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")
    from datasets_app.checks import findings as checks
    from datasets_app.reading import columns, readers
    from datasets_app.reading.options import ColumnOptions
    from datasets_app.reading.rows import select_rows

    limit = 1 << 40
    head = readers.read(file, file.name, limit=limit, head=True)
    chosen = columns.choose_columns(head, ColumnOptions(text=("text",), label=("label",)))
    table = readers.read(file, file.name, limit=limit, only=["text", "label"])
    rows = select_rows(table, chosen)
    del table
    return {result.code: result.count for result in checks.run_checks(rows).results}


def stored_by_lorasite(file: Path) -> dict[str, int]:
    """All that the data worker does with an upload, in an installation of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DATA_DIR": folder, "DJANGO_SETTINGS_MODULE": "lorasite.settings", "UPLOAD_LIMIT_MB": "2000"}
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        from accounts.models import User
        from datasets_app import services

        user = User.objects.create_superuser("bench", password="unused but needed")
        version = services.create_version(user=user, name="bench", file=file, filename=file.name)
        return {"rows": version.rows} | {found.code: found.count for found in version.findings.all()}


def with_pandas(file: Path) -> dict[str, int]:
    import pandas as pd
    from datasketch import MinHash, MinHashLSH
    from ftfy.badness import is_bad
    from lingua import Language, LanguageDetectorBuilder
    from transformers import AutoTokenizer

    from datasets_app.checks.languages import SAMPLE
    from samples import base_model_path

    frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    frame = frame[(frame["text"].str.strip() != "") & (frame["label"] != "")]
    text = frame["text"]
    same = text.str.lower().str.replace(r"\s+", " ", regex=True).str.strip()
    rows_by_code = {
        "too_short": int((text.str.strip().str.len() < 3).sum()),
        "too_long": int((text.str.len() > 2000).sum()),
        "exact_duplicate": int(frame.duplicated(["text", "label"]).sum()),
        "label_conflict": int((frame.groupby(same)["label"].transform("nunique") > 1).sum()),
        "markup": int(text.str.contains(MARKUP).sum()),
        "control_characters": int(text.str.contains(CONTROL).sum()),
        "encoding": int(text.map(lambda t: "\ufffd" in t or is_bad(t)).sum()),
        "personal_data": int(text.str.contains(PERSONAL).sum()),
    }
    counts = frame["label"].value_counts()
    rows_by_code["label_imbalance"] = int(counts.max()) if counts.max() >= 5 * counts.min() else 0
    rows_by_code["rare_label"] = int((counts < 10).sum())

    names = (
        Language.ENGLISH,
        Language.CHINESE,
        Language.JAPANESE,
        Language.KOREAN,
        Language.SPANISH,
        Language.FRENCH,
        Language.GERMAN,
    )
    detector = LanguageDetectorBuilder.from_languages(*names).with_low_accuracy_mode().build()
    languages = text.sample(min(SAMPLE, len(text)), random_state=0).map(detector.detect_language_of)
    rows_by_code["mixed_language"] = int((languages != languages.mode()[0]).sum())

    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    texts = text.tolist()
    lengths = [
        len(ids)
        for at in range(0, len(texts), 10_000)
        for ids in tokenizer(texts[at : at + 10_000], verbose=False)["input_ids"]
    ]
    rows_by_code["over_token_limit"] = sum(length > 128 for length in lengths)

    lsh, near = MinHashLSH(threshold=0.8, num_perm=64), 0
    for number, words in enumerate(same.drop_duplicates().str.findall(r"\w+")):
        if len(words) < 4:
            continue
        sketch = MinHash(num_perm=64)
        sketch.update_batch([word.encode() for word in words])
        near += bool(lsh.query(sketch))
        lsh.insert(number, sketch)
    rows_by_code["near_duplicate"] = near
    return {code: count for code, count in rows_by_code.items() if count}


if __name__ == "__main__":
    main()
