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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")

import httpx2 as httpx  # comes with huggingface_hub

from lorasite.tests.site import PASSWORD, running_site
from samples import tweets_en

LIMIT = 120.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder)) as address:
        client = signed_in(address)
        upload(client, Path(folder) / "tweets.csv")
        cold, *warm = [first_step(client) for _ in range(runs)]
    print(f"POST /api/train to the first optimiser step: {cold:.2f} s at first, with the tokens to be made;")
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
        client.post("/api/datasets", data=columns, files={"file": content}).raise_for_status()


def first_step(client: httpx.Client) -> float:
    """Seconds until the task's row holds a first step's loss; the run is then cancelled, and its end awaited."""
    config = {"data": {"dataset_name": "tweets"}, "training": {"device": "cpu", "logging_steps": 1}}
    started = time.perf_counter()
    task = client.post("/api/train", json=config).raise_for_status().json()["task_id"]
    await_(client, task, lambda answer: answer["progress"]["step"] > 0)
    seconds = time.perf_counter() - started
    client.post(f"/api/task/{task}/cancel").raise_for_status()
    await_(client, task, lambda answer: answer["status"] == "CANCELLED")
    return seconds


def await_(client: httpx.Client, task: str, reached) -> None:
    end = time.monotonic() + LIMIT
    while not reached(answer := client.get(f"/api/task/{task}").raise_for_status().json()):
        if answer["status"] == "FAILURE" or time.monotonic() > end:
            sys.exit(f"The run did not get there: {answer}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
