"""What others notice of a flood: the time of a signed-in person's page while somebody hammers the site.

    python bench/flood.py [--logins 10000] [--uploads 1000]

Starts an installation of its own in an empty folder, asks a page quietly, then again while eight threads guess passwords, and
while they upload. All requests go to this machine. Every answer must be one of the expected ones.
"""

import argparse
import collections
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lorasite.settings")

from testing.site import PASSWORD, running_site

THREADS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logins", type=int, default=10_000)
    parser.add_argument("--uploads", type=int, default=1_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder)) as site:
        token = json.loads(send(site, "/api/login", {"username": "root", "password": PASSWORD})[1])["access"]
        quiet = [page(site, token) for _ in range(100)]
        tell("quiet", quiet, {})
        guess = {"username": "root", "password": "guess"}
        flood("guessing passwords", asked.logins, lambda: send(site, "/api/login", guess)[0], site, token)
        flood("uploading", asked.uploads, lambda: upload(site, token), site, token)


def flood(what: str, number: int, one: Callable[[], int], site: str, token: str) -> None:
    left, answers, took = iter(range(number)), collections.Counter[int](), []

    def hammer() -> None:
        for _n in left:
            answers[one()] += 1

    threads = [threading.Thread(target=hammer) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        took.append(page(site, token))
        time.sleep(0.05)
    tell(f"{number} × {what}", took, dict(answers))


def tell(what: str, took: list[float], answers: dict[int, int]) -> None:
    slow = statistics.quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
    print(f"{what}: a page takes {statistics.median(took):.0f} ms (95th percentile {slow:.0f}); answers {answers}")


def page(site: str, token: str) -> float:
    started = time.perf_counter()
    request = urllib.request.Request(f"{site}/api/datasets", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
    return (time.perf_counter() - started) * 1000


def send(site: str, path: str, body: object) -> tuple[int, bytes]:
    request = urllib.request.Request(site + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(site: str, token: str) -> int:
    rows = "text,label\n" + "".join(f"row {n} is {'good' if n % 2 else 'bad'},{n % 2}\n" for n in range(40))
    body = (
        '--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nflood\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n{rows}\r\n--b--\r\n'
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=b"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{site}/api/datasets", body.encode(), headers), timeout=60
        ) as a:
            return int(a.status)
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    main()
