"""From click to first step: seconds from POST /api/train to the first optimiser step, on a whole running site.

    python bench/click.py [--runs 5]

Starts an installation of its own in an empty folder, uploads the sample tweets, and submits the default preset several
times: the first run tokenises, the others find the tokens in the cache. Bar: 1.5 s.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")

import httpx2 as httpx  # comes with huggingface_hub

from samples import tweets_en
from testing.site import PASSWORD, running_site

LIMIT = 120.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder)) as address:
        client = signed_in(address)
        upload(client, Path(folder) / "tweets.csv")
        cold, *warm = [first_step(client) for _ in range(runs)]
    print(
        f"POST /api/train to the first optimiser step: {cold:.2f} s right after the start: the worker still imports, the tokens are made;"
    )
    print(f"then {statistics.median(warm):.2f} s (median of {len(warm)}; {min(warm):.2f} to {max(warm):.2f} s).")


def signed_in(address: str) -> httpx.Client:
    client = httpx.Client(base_url=address, timeout=120)
    tokens = client.post("/api/login", json={"username": "root", "password": PASSWORD}).raise_for_status().json()
    client.headers["Authorization"] = f"Bearer {tokens['access']}"
    return client


def upload(client: httpx.Client, file: Path) -> None:
    tweets_en().select("text", "label").write_csv(file)
    with file.open("rb") as content:
        columns = {"name": "tweets", "text_column": "text", "label_column": "label"}
        task = client.post("/api/datasets", data=columns, files={"file": content}).raise_for_status().json()
    while client.get(task["url"]).raise_for_status().json()["status"] != "SUCCESS":  # the data worker reads it
        time.sleep(0.25)


def first_step(client: httpx.Client) -> float:
    """Seconds until the log's line of the first step; the run is then cancelled, and its end awaited."""
    config = {"data": {"dataset_name": "tweets"}, "training": {"device": "cpu", "logging_steps": 1}}
    submitted = datetime.now(UTC)
    task = client.post("/api/train", json=config).raise_for_status().json()["task_id"]
    await_(client, task, lambda answer: answer["progress"]["step"] > 0)
    lines = client.get(f"/api/task/{task}/logs").raise_for_status().json()["lines"]
    stepped = next(datetime.fromisoformat(line["at"]) for line in lines if line["text"].startswith("Step 1/"))
    client.post(f"/api/task/{task}/cancel").raise_for_status()
    await_(client, task, lambda answer: answer["status"] == "CANCELLED")
    return (stepped - submitted).total_seconds()


def await_(client: httpx.Client, task: str, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Asks four times a second only: the same cores train."""
    end = time.monotonic() + LIMIT
    while not reached(answer := client.get(f"/api/task/{task}").raise_for_status().json()):
        if answer["status"] == "FAILURE" or time.monotonic() > end:
            sys.exit(f"The run did not get there: {answer}")
        time.sleep(0.25)


if __name__ == "__main__":
    main()
