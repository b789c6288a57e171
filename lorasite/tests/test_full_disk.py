"""A full disk: people can sign in, refusals explain themselves, and after a deletion everything works again."""

import http.cookiejar
import json
import re
import secrets
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.exception import convert_exception_to_response
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from testing.site import PASSWORD, running_web
from web import disk

ROWS = "text,label\n" + "".join(f"row {i} is {'good' if i % 2 else 'bad'},{i % 2}\n" for i in range(40))
LARGE = """
from pathlib import Path
from django.conf import settings
from experiments.models import Experiment
large = Experiment.objects.create(name="large", owner=root, config={}, base_model="none")
large.folder.mkdir(parents=True)
(large.folder / "model").write_bytes(bytes(30 << 20))
"""


@pytest.fixture
def small_disk(data_root: Path) -> Iterator[Path]:
    """DATA_DIR on a file system of 70 MiB, nine of which the static files take."""
    place = data_root / "data"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root mounts, and not in every container")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill the disk with a file of another program."""
    with (place / "log-of-another-program").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1 << 16))
    return place / "log-of-another-program"


class Person:
    """A browser, and a client of the API with the token of the last `sign_in`."""

    def __init__(self, site: str) -> None:
        self.site, self.token = site, ""
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def request(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, str]:
        headers |= {"Authorization": f"Bearer {self.token}"} if path.startswith("/api/") and self.token else {}
        request = urllib.request.Request(self.site + path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        request.method = method or ("GET" if body is None else "POST")
        try:
            with self.opener.open(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def send(self, path: str, data: Any) -> tuple[int, str]:
        return self.request(path, json.dumps(data).encode(), Content_Type="application/json")

    def form(self, path: str, page: str, **fields: str) -> tuple[int, str]:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.request(page)[1])
        assert token
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        return self.request(path, body, Referer=self.site + page)

    def sign_in(self) -> tuple[int, int]:
        """Sign in by page and API; return both statuses."""
        page, text = self.form("/login/", "/login/", username="root", password=PASSWORD)
        status, answer = self.send("/api/login", {"username": "root", "password": PASSWORD})
        self.token = json.loads(answer).get("access", "")
        return (page if "Sign out" in text else 0), status

    def upload_on_the_page(self) -> tuple[int, str]:
        page = self.request("/datasets/new/")[1]
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token
        body = (
            f'--b\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{token[1]}\r\n'
            f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n{ROWS}\r\n--b--\r\n'
        )
        return self.request("/datasets/new/", body.encode(), Content_Type="multipart/form-data; boundary=b")

    def upload(self, rows: str = ROWS) -> tuple[int, str]:
        name = f"set-{uuid.uuid4().hex[:8]}"
        body = (
            f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
            f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n{rows}\r\n--b--\r\n'
        )
        return self.request("/api/datasets", body.encode(), Content_Type="multipart/form-data; boundary=b")


@pytest.mark.process
def test_on_a_full_disk_people_sign_in_and_delete_until_everything_works_again(
    tmp_path: Path, small_disk: Path
) -> None:
    results = str(small_disk / "results")
    with running_web(tmp_path, more=LARGE, RESULTS_DIR=results, THROTTLE_LOGIN="off", THROTTLE_UPLOAD="off") as (
        site,
        _,
    ):
        before = Person(site)
        assert before.sign_in() == (200, 200) and before.upload()[0] == 201
        dataset = json.loads(before.request("/api/datasets")[1])["results"][0]["name"]
        fill(small_disk)

        person = Person(site)
        assert person.sign_in() == (200, 200)
        for status, answer in (
            person.upload(),
            person.upload("text,label\n" + "a row that is repeated,1\n" * 20_000),
            person.send("/api/train", {"data": {"dataset_name": dataset}}),
        ):
            problem = json.loads(answer)
            assert (status, problem["code"]) == (507, "disk_full") and "disk is full" in problem["detail"]
        status, page = person.upload_on_the_page()
        assert status == 507 and "disk is full" in page
        assert person.request("/")[0] == 200

        assert person.request("/api/experiments/large", method="DELETE")[0] in (200, 204)
        assert person.upload()[0] == 201
        assert person.send("/api/train", {"data": {"dataset_name": dataset}})[0] == 202
        assert Person(site).sign_in() == (200, 200)
        assert (small_disk / "reserve").stat().st_size == 16 * 2**20, "taken again for the next time"


@pytest.mark.process
def test_without_the_reserve_the_refusal_is_explained(tmp_path: Path, small_disk: Path) -> None:
    with running_web(tmp_path, THROTTLE_LOGIN="off") as (site, _):
        person = Person(site)
        for _try in range(3):  # the first request gives the reserve up, and the other program takes that too
            filler = fill(small_disk)
            person.request("/login/")
        assert not (small_disk / "reserve").exists()
        if connection.vendor == "sqlite":  # PostgreSQL's files are on another disk, so signing in needs no room here
            status, page = person.form("/login/", "/login/", username="root", password=PASSWORD)
            assert status == 507 and "disk is full" in page
            status, answer = person.send("/api/login", {"username": "root", "password": PASSWORD})
            assert (status, json.loads(answer)["code"]) == (507, "disk_full")
        else:
            assert person.sign_in() == (200, 200)
            status, answer = person.upload()
            assert (status, json.loads(answer)["code"]) == (507, "disk_full")
        filler.unlink()
        assert person.sign_in() == (200, 200)


@pytest.mark.django_db(transaction=True)
def test_errors_of_a_full_disk_are_recognised_from_every_library(tmp_path: Path) -> None:
    for failing in (_database_that_is_full, _file_that_is_full, _native_file_that_is_full):
        with pytest.raises(Exception) as refused:
            failing()
        assert isinstance(disk.error_to_show(refused.value), disk.InsufficientStorageError), refused.value
    for failing in (_folder_that_is_read_only, _database_that_is_read_only):
        with pytest.raises(Exception) as refused:
            failing()
        explained = disk.error_to_show(refused.value)
        assert isinstance(explained, disk.DiskNotWritableError) and "can't be written to" in str(explained), (
            refused.value
        )
    assert disk.error_to_show(ValueError("no room in this sentence")) is None


@pytest.mark.django_db(transaction=True)
def test_session_that_a_full_disk_does_not_store_is_no_bad_request(rf: RequestFactory) -> None:
    session = SessionStore()
    session.create()
    request = rf.get("/", headers={"cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}"})

    def change_session(request: HttpRequest) -> HttpResponse:
        # random, because sessions are compressed, and more than the pages that other tests left free
        request.session["large"] = secrets.token_urlsafe(_free_bytes() + 1_000_000)
        return HttpResponse()

    with _full_database():
        response = _answer(change_session, request)
    assert response.status_code == 507 and "disk is full" in response.content.decode()


@pytest.mark.django_db
def test_session_that_was_deleted_meanwhile_is_explained(rf: RequestFactory) -> None:
    session = SessionStore()
    session.create()
    request = rf.get("/", headers={"cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}"})

    def sign_out_elsewhere(request: HttpRequest) -> HttpResponse:
        request.session["changed"] = True
        session.delete()
        return HttpResponse()

    response = _answer(sign_out_elsewhere, request)
    assert response.status_code == 400 and "Sign in again" in response.content.decode()


def _free_bytes() -> int:
    """Return the size of SQLite's unused pages."""
    if connection.vendor == "postgresql":
        return 0
    with connection.cursor() as cursor:
        pages = cursor.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages * cursor.execute("PRAGMA page_size").fetchone()[0])


def _answer(view: Callable[[HttpRequest], HttpResponse], request: HttpRequest) -> HttpResponse:
    """Answer a request with a session as Django does, errors included."""
    response = convert_exception_to_response(SessionMiddleware(view))(request)
    assert isinstance(response, HttpResponse)
    return response


@contextmanager
def _full_database() -> Iterator[None]:
    """Limit SQLite's pages; let PostgreSQL refuse to change a session as it does on a full disk."""
    if connection.vendor == "postgresql":
        execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
        )
        execute("CREATE TRIGGER refuse BEFORE UPDATE ON django_session FOR EACH ROW EXECUTE FUNCTION refuse()")
    else:
        execute("PRAGMA max_page_count = 1")  # SQLite makes that the number of pages there are
    try:
        yield
    finally:
        postgresql = connection.vendor == "postgresql"
        execute("DROP FUNCTION refuse() CASCADE" if postgresql else "PRAGMA max_page_count = 4294967294")


def _database_that_is_full() -> None:
    """Limit SQLite's pages, or raise in PostgreSQL what it raises on a full disk."""
    if connection.vendor == "postgresql":
        return execute("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$")
    execute("PRAGMA max_page_count = 1")  # SQLite makes that the number of pages there are
    try:
        execute("CREATE TABLE too_large AS SELECT zeroblob(10000000)")
    finally:
        execute("PRAGMA max_page_count = 4294967294")


def _database_that_is_read_only() -> None:
    postgresql = connection.vendor == "postgresql"
    execute("SET default_transaction_read_only = on" if postgresql else "PRAGMA query_only = 1")
    try:
        execute("DELETE FROM django_session")
    finally:
        execute("SET default_transaction_read_only = off" if postgresql else "PRAGMA query_only = 0")


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _file_that_is_full() -> None:
    Path("/dev/full").write_text("a")


def _native_file_that_is_full() -> None:
    pl.DataFrame({"a": range(100_000)}).write_parquet("/dev/full")


def _folder_that_is_read_only() -> None:
    Path("/sys/kernel/a").write_text("a")
