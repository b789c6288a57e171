"""The chain shows any change of the past, and loses nothing when many write at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from audit.middleware import client_address
from audit.models import Entry
from audit.services import GENESIS, digest, record, verify


@pytest.fixture
def chain(member: Any) -> list[Entry]:
    return [record("task.submit", user=member, obj=member, number=n, note="已送出") for n in range(5)]


def remove(entry: Entry) -> None:
    Entry._base_manager.filter(pk=entry.pk).delete()


def swap(chain: list[Entry]) -> None:
    contents = {e.pk: {f: getattr(e, f) for f in ("details", "at", "previous", "hash")} for e in chain[2:4]}
    Entry._base_manager.filter(pk=chain[2].pk).update(hash="")
    Entry._base_manager.filter(pk=chain[3].pk).update(**contents[chain[2].pk])
    Entry._base_manager.filter(pk=chain[2].pk).update(**contents[chain[3].pk])


def put_in(chain: list[Entry]) -> None:
    """An entry with a hash of its own, linked to the one before it, under a key between the third and the fourth."""
    for entry in reversed(chain[3:]):
        Entry._base_manager.filter(pk=entry.pk).update(id=entry.pk + 1)
    forged = Entry(pk=chain[3].pk, at=chain[2].at, action="task.cancel", previous=chain[2].hash)
    forged.hash = digest(forged)
    forged.save(force_insert=True)


CRIMES: dict[str, tuple[Callable[[list[Entry]], Any], int]] = {  # and how many entries still hold
    "changed": (lambda chain: Entry._base_manager.filter(pk=chain[2].pk).update(username="somebody-else"), 2),
    "changed details": (lambda chain: Entry._base_manager.filter(pk=chain[1].pk).update(details={"number": 7}), 1),
    "deleted": (lambda chain: remove(chain[1]), 1),
    "deleted first": (lambda chain: remove(chain[0]), 0),
    "put in": (put_in, 4),
    "reordered": (swap, 2),
}


def test_untouched_chain_holds(chain: list[Entry]) -> None:
    verdict = verify()
    assert verdict.holds and (verdict.entries, verdict.head) == (5, chain[-1].hash)
    assert chain[0].previous == GENESIS


def test_empty_chain_holds(db: None) -> None:
    assert verify().holds and verify().entries == 0


@pytest.mark.parametrize("crime", CRIMES)
def test_tampering_is_detected_at_its_entry(chain: list[Entry], crime: str) -> None:
    commit, holding = CRIMES[crime]
    commit(chain)
    verdict = verify()
    assert not verdict.holds and verdict.broken and verdict.entries == holding
    with pytest.raises(CommandError, match=f"Broken at entry {verdict.broken.pk} "):
        call_command("audit", "verify")


def test_cut_tail_shows_only_against_a_published_head(chain: list[Entry]) -> None:
    assert verify(chain[-1].hash).holds and verify(chain[2].hash).holds
    remove(chain[-1])
    assert verify().holds and verify(chain[2].hash).holds
    assert not verify(chain[-1].hash).holds
    with pytest.raises(CommandError, match="is not in the chain"):
        call_command("audit", "verify", head=chain[-1].hash)


def test_chain_written_anew_shows_against_a_published_head(chain: list[Entry]) -> None:
    previous = GENESIS
    for entry in chain:
        entry.username, entry.previous = "somebody-else", previous
        previous = digest(entry)
        Entry._base_manager.filter(pk=entry.pk).update(username="somebody-else", previous=entry.previous, hash=previous)
    assert verify().holds
    assert not verify(chain[-1].hash).holds


def test_command_prints_the_head(chain: list[Entry]) -> None:
    out = StringIO()
    call_command("audit", "verify", stdout=out)
    assert out.getvalue().splitlines() == ["The chain is intact: 5 entries.", f"head {chain[-1].hash}"]


def test_many_writers_at_once_lose_nothing(transactional_db: None) -> None:
    def write(writer: int) -> None:
        for n in range(10):
            record("task.submit", writer=writer, n=n)
        connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    verdict = verify()
    assert verdict.holds and verdict.entries == 60
    for writer in range(6):
        own = [e.details["n"] for e in Entry.objects.order_by("pk") if e.details["writer"] == writer]
        assert own == list(range(10))


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unix:", None),
    ],
)
def test_any_caller_address_leaves_a_chain_that_holds(
    client: Any, member: Any, rf: Any, sent: str, stored: str | None
) -> None:
    assert client_address(rf.get("/", REMOTE_ADDR=sent)) == stored
    client.post("/login/", {"username": "member", "password": "correct-horse-9"}, REMOTE_ADDR=sent)
    assert Entry.objects.get().address == stored
    assert verify().holds
