"""How long each page takes on the server, with 10,000 experiments.

    python bench/pages.py [--rounds 10]

In an empty database of its own (SQLite; set DATABASE_URL for another). Prints milliseconds by the clock (the median) and of
the CPU (the least, which other work changes least) and the number of queries, for an administrator, who sees all runs, for a
member who owns a hundredth of them, and for a viewer with whom the hundred oldest are shared. Aim: 100 ms.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
FOLDER = tempfile.mkdtemp()
os.environ |= {"DJANGO_SETTINGS_MODULE": "lorasite.settings", "DATA_DIR": FOLDER, "RESULTS_DIR": f"{FOLDER}/results"}

import django

django.setup()

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import Role, User
from accounts.permissions import grant_access
from datasets_app.models import Dataset, Finding, Version
from experiments.models import Alias, Experiment, ModelVersion, RegisteredModel
from testing.experiments import METRICS
from training.models import Point, Status, Task

EXPERIMENTS, PEOPLE, SHARED = 10_000, 100, 100
AIM = 100  # ms
POLL = {"HX-Request": "true"}
PAGES: dict[str, dict[str, str]] = {  # address: headers
    "/": {},
    "/ (poll)": POLL,
    "/experiments/": {},
    "/experiments/?q=run-99": {},
    "/experiments/?sort=-score": {},
    "/experiments/?learned=false": {},
    "/experiments/?page=50": {},
    "/experiments/compare?name=run-0&name=run-100": {},
    "/runs/{task}/": {},
    "/runs/{task}/ (poll)": POLL,
    "/runs/{task}/?tab=errors": {},
    "/runs/{task}/?tab=config": {},
    "/runs/states/?task={task}": POLL,
    "/datasets/": {},
    "/datasets/?q=person-9": {},
    "/datasets/{data}/": {},
    "/models/": {},
    "/find/?q=run-99": POLL,
    "/find/?q=new": POLL,
    "/train/": {},
    "/predict/": {},
    "/chat/": {},
    "/account/": {},
    "/account/notifications/": {},
    "/people/": {},
    "/people/member/": {},
    "/audit/": {},
    "/system/": {},
    "/admin/experiments/experiment/": {},
}
FORBIDDEN = {
    "viewer": ("/train/", "/experiments/compare", "/people/", "/audit/", "/system/", "/admin/"),
    "member": ("/people/", "/audit/", "/system/", "/admin/"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    settings.ALLOWED_HOSTS = ["testserver"]
    call_command("migrate", verbosity=0)
    people = fill_database()
    print(f"{EXPERIMENTS} experiments of {PEOPLE} members; milliseconds: clock, CPU; queries")
    places = {"task": str(Task.objects.get(experiment__name="run-0").pk), "data": "data-member"}
    for name, person in people.items():
        client = Client()
        client.force_login(person)
        for page, headers in PAGES.items():
            if page.startswith(FORBIDDEN.get(name, ())):
                continue
            clock, cpu, queries = measure(client, page.removesuffix(" (poll)").format(**places), headers, rounds)
            print(f"{name:8} {page:44} {clock:7.1f} {cpu:7.1f} {queries:4}{'  slow' if cpu > AIM else ''}", flush=True)


def measure(client: Client, path: str, headers: dict[str, str], rounds: int) -> tuple[float, float, int]:
    statements: list[str] = []

    def count(execute: Callable[..., Any], statement: str, *arguments: Any) -> Any:
        statements.append(statement)
        return execute(statement, *arguments)

    client.get(path, headers=headers)
    with connection.execute_wrapper(count):
        client.get(path, headers=headers)
    clock, cpu = [], []
    for _ in range(rounds):
        started, started_cpu = time.perf_counter(), time.process_time()
        answer = client.get(path, headers=headers)
        clock.append((time.perf_counter() - started) * 1000)
        cpu.append((time.process_time() - started_cpu) * 1000)
        assert answer.status_code in (200, 286), f"{path}: {answer.status_code}"
    return statistics.median(clock), min(cpu), len(statements)


def fill_database() -> dict[str, User]:
    """Create the people with their experiments, most of them ended, and return an administrator, a member and a viewer."""
    people = {role: User.objects.create_user(role) for role in ("admin", "member", "viewer")}
    for role, person in people.items():
        person.set_role(Role(role))
    owners = [people["member"], *(User.objects.create_user(f"person-{n}") for n in range(PEOPLE - 1))]
    versions = [data_of(owner) for owner in owners]
    metrics: dict[str, Any] = METRICS | {"worst": [{"text": "a text " * 30, "label": "bad", "predicted": "good"}] * 30}
    experiments = Experiment.objects.bulk_create(
        [
            Experiment(
                name=f"run-{n}",
                owner=owners[n % PEOPLE],
                version=versions[n % PEOPLE],
                dataset_name=str(versions[n % PEOPLE]),
                base_model="some/model",
                metrics=metrics,
                score=0.8,
                accuracy=0.8,
                learned=n % 50 > 0,
            )
            for n in range(EXPERIMENTS)
        ],
        batch_size=500,
    )
    statuses = [Status.SUCCESS] * 97 + [Status.FAILURE, Status.PENDING, Status.STARTED]
    tasks = [
        Task(owner=experiment.owner, experiment=experiment, status=statuses[n // PEOPLE % 100], ended_at=timezone.now())
        for n, experiment in enumerate(experiments)
    ]
    Task.objects.bulk_create(tasks, batch_size=500)
    Point.objects.bulk_create(
        [Point(task=tasks[0], step=step, epoch=step / 1000, loss=1 / step) for step in range(1, 1001)]
    )
    for experiment in experiments[:SHARED]:
        grant_access(experiment, to=people["viewer"])
    grant_access(versions[0].dataset, to=people["viewer"])
    register_models(owners)
    return people


def data_of(owner: User) -> Version:
    dataset = Dataset.objects.create(name=f"data-{owner.username}", owner=owner)
    version = Version.objects.create(dataset=dataset, number=1, author=owner, hash="0" * 64, rows=2, labels={})
    Finding.objects.create(version=version, code="exact_duplicate", severity="warning", count=2, message="Twice.")
    return version


def register_models(owners: list[User]) -> None:
    for owner in owners:
        facts = {"base_model": "some/model", "updated_at": timezone.now(), "words": ""}
        model = RegisteredModel.objects.create(name=f"model-{owner.username}", owner=owner, **facts)
        model.latest = ModelVersion.objects.create(
            model=model, number=1, author=owner, experiment_name="run", dataset_name="d@1", base_model="some/model"
        )
        model.save()
        Alias.objects.create(model=model, version=model.latest, name="champion")


if __name__ == "__main__":
    main()
