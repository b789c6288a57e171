"""The cache of models: what stays in memory, what is evicted, and that everything is loaded once."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.serve.errors import BusyError
from engine.serve.model_cache import CacheEntry, ModelCache


def test_least_recently_used_entry_is_evicted_first_and_entries_in_use_stay():
    cache = ModelCache(limit=3, patience=0.05)
    a = cache.acquire("a", 1, lambda _: "A")
    b = cache.acquire("b", 1, lambda _: "B")
    c = cache.acquire("c", 1, lambda _: "C")
    cache.release(b)
    cache.release(c)
    cache.release(cache.acquire("b", 1, lambda _: "not loaded again"))
    cache.release(cache.acquire("d", 1, lambda _: "D"))
    assert cache.values() == ["A", "B", "D"]
    with pytest.raises(BusyError):
        cache.acquire("e", 3, lambda _: "E")
    assert a.value == "A" and cache.used == 1
    cache.release(a)
    assert cache.acquire("e", 3, lambda _: "E").value == "E" and cache.used == 3


def test_entry_is_loaded_once_for_all_threads_and_again_after_a_failure():
    cache = ModelCache(limit=10, patience=5)
    loads = []

    def load(_entry: CacheEntry) -> str:
        loads.append(1)
        time.sleep(0.05)
        if len(loads) == 1:
            raise OSError("the disk")
        return "loaded"

    def acquire(_number: int) -> str | None:
        try:
            return cache.acquire("key", 1, load).value
        except OSError:
            return None

    with ThreadPoolExecutor(8) as threads:
        assert sorted(map(str, threads.map(acquire, range(8)))) == ["None"] + ["loaded"] * 7
    assert len(loads) == 2 and cache.used == 1
