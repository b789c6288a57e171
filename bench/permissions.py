"""What permissions cost: milliseconds that they add to a request, with 10,000 objects and 100 shares.

    python bench/permissions.py [--rounds 200]

In an empty database of its own (SQLite; set DATABASE_URL for another). Each figure is the median of rounds in which
the peer and the measured take turns. Bar: 2 ms a request.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
FOLDER = tempfile.mkdtemp()
os.environ |= {"DJANGO_SETTINGS_MODULE": "lorasite.settings", "DATA_DIR": FOLDER, "RESULTS_DIR": f"{FOLDER}/results"}

import django

django.setup()

from django.contrib.auth.models import Group
from django.core.management import call_command
from rest_framework.authentication import BasicAuthentication
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.tokens import RefreshToken

from accounts.authentication import TokenAuthentication
from accounts.models import Role, User
from accounts.permissions import get_visible, grant_access, visible
from accounts.services import make_token
from datasets_app.models import Dataset, Version

OBJECTS, SHARES, PASSWORD = 10_000, 100, "correct-horse-9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    call_command("migrate", verbosity=0)
    person, admin = filled()
    shared = Dataset.objects.order_by("pk")[7].name
    every = Dataset.objects.all()
    print(
        f"{OBJECTS} objects of 50 people, {SHARES} shared with the person, half of them through groups; medians in ms"
    )
    compare(
        "a list's first page, the rows alone",
        lambda: list(every.order_by("name")[:50]),
        "with permissions",
        lambda: list(visible(person, every).order_by("name")[:50]),
        rounds,
    )
    compare(
        "one object by name",
        lambda: every.get(name=shared),
        "with permissions",
        lambda: get_visible(person, every, name=shared),
        rounds,
    )
    path, as_admin, as_person = f"/api/datasets/{shared}", client(admin), client(person)
    compare(
        "GET of one object, as an admin, who needs no share",
        lambda: as_admin.get(path),
        "as the person",
        lambda: as_person.get(path),
        rounds,
    )
    authentication(person, rounds)


def filled() -> tuple[User, User]:
    owners = [User.objects.create_user(f"owner-{n}") for n in range(50)]
    person, admin = User.objects.create_user("person", None, PASSWORD), User.objects.create_user("admin")
    person.set_role(Role.MEMBER)
    admin.set_role(Role.ADMIN)
    groups = [Group.objects.create(name=f"team-{n}") for n in range(5)]
    person.groups.add(*groups)
    Dataset.objects.bulk_create(Dataset(name=f"data-{n}", owner=owners[n % 50]) for n in range(OBJECTS))
    for n, dataset in enumerate(Dataset.objects.order_by("pk")[:SHARES]):
        grant_access(dataset, to=person if n % 2 else groups[n % 5], manage=n % 4 == 0)
        Version.objects.create(dataset=dataset, number=1, hash="0" * 64, author=owners[0], rows=0)
    return User.objects.get(pk=person.pk), User.objects.get(pk=admin.pk)


def client(user: User) -> Any:
    found = APIClient(HTTP_HOST="127.0.0.1")
    found.credentials(HTTP_AUTHORIZATION=f"Bearer {RefreshToken.for_user(user).access_token}")
    return found


def authentication(person: User, rounds: int) -> None:
    """Finding out who asks: our two ways, and a password with each request, as basic authentication does it."""
    _token, secret = make_token(user=person, name="bench", scopes=["read"], days=1)
    ways: dict[str, tuple[Any, str]] = {
        "personal token": (TokenAuthentication(), f"Bearer {secret}"),
        "JSON Web Token": (JWTAuthentication(), f"Bearer {RefreshToken.for_user(person).access_token}"),
        "basic authentication": (BasicAuthentication(), "Basic " + b64encode(f"person:{PASSWORD}".encode()).decode()),
    }
    for name, (way, header) in ways.items():
        request = Request(APIRequestFactory().get("/", HTTP_AUTHORIZATION=header))
        few = rounds if name != "basic authentication" else max(5, rounds // 40)
        print(
            f"  who asks, by {name:<22} {median(lambda way=way, request=request: way.authenticate(request), few):8.2f}"
        )


def compare(peer: str, one: Callable[[], Any], name: str, other: Callable[[], Any], rounds: int) -> None:
    took: tuple[list[float], list[float]] = ([], [])
    for _round in range(rounds):
        for call, times in ((one, took[0]), (other, took[1])):
            times.append(timed(call))
    before, after = (statistics.median(times) for times in took)
    verdict = "within 2 ms" if after - before < 2 else "MISSES 2 ms"
    print(f"  {peer}: {before:.2f}; {name}: {after:.2f}; permissions add {after - before:.2f} ({verdict})")


def median(call: Callable[[], Any], rounds: int) -> float:
    return statistics.median(timed(call) for _round in range(rounds))


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    answer = call()
    took = (time.perf_counter() - started) * 1000
    assert getattr(answer, "status_code", 200) == 200, answer.content
    return took


if __name__ == "__main__":
    main()
