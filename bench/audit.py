"""What the audit log costs: milliseconds that an entry adds to a request, alone and with two processes writing at once.

    python bench/audit.py [--entries 1000]

In an empty database of its own (SQLite; set DATABASE_URL for another). A request here is a transaction that writes a row;
with and without an entry take turns. Then the chain is verified: no entry may be missing. Bar: 2 ms a request.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if "LORASITE_BENCH" not in os.environ:
    FOLDER = tempfile.mkdtemp()
    os.environ |= {"LORASITE_BENCH": FOLDER, "DATA_DIR": FOLDER, "DJANGO_SETTINGS_MODULE": "lorasite.settings"}

import django

django.setup()

from django.core.management import call_command
from django.db import connection, transaction

from accounts.models import BaseModelRule
from audit.models import Entry
from audit.services import record, verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000)
    entries = parser.parse_args().entries
    call_command("migrate", verbosity=0)
    before = Entry.objects.count()
    print(f"{connection.vendor}; medians and 95th percentiles in ms")
    tell("one process", [work("alone", entries)])
    start = multiprocessing.get_context("spawn").Pool(2)
    with start as pool:
        tell("two processes at once", pool.starmap(work, [("first", entries), ("second", entries)]))
    verdict, wanted = verify(), before + 3 * entries
    print(f"  {verdict.entries} entries of {wanted}, chain {'holds' if verdict.holds else 'BROKEN'}")
    sys.exit(not verdict.holds or verdict.entries != wanted)


def work(who: str, entries: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {"without": [], "with": []}
    for n in range(entries):
        for way, times in took.items():
            started = time.perf_counter()
            request(f"{who}-{n}-{way}", audited=way == "with")
            times.append((time.perf_counter() - started) * 1000)
    return took


def request(name: str, *, audited: bool) -> None:
    with transaction.atomic():
        rule = BaseModelRule.objects.create(pattern=name)
        if audited:
            record("bench.write", obj=rule, number=1)


def tell(what: str, found: list[dict[str, list[float]]]) -> None:
    without, with_ = ([ms for one in found for ms in one[way]] for way in ("without", "with"))
    added = statistics.median(with_) - statistics.median(without)
    verdict = "within 2 ms" if added < 2 else "MISSES 2 ms"
    print(f"  {what}: {shape(without)} without, {shape(with_)} with an entry; an entry adds {added:.2f} ({verdict})")


def shape(times: list[Any]) -> str:
    return f"{statistics.median(times):.2f} ({statistics.quantiles(times, n=20)[-1]:.2f})"


if __name__ == "__main__":
    main()
