"""Adapters over shared base models: the answers are those of plain PEFT, whoever else is asked at the same moment."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.serve.batch import Output, Row
from engine.serve.batching_queue import Queue
from engine.serve.errors import Busy, TooLarge, Unreadable
from engine.serve.model_cache import Memory
from engine.serve.predictor import WEIGHTS, Predictor, file_state
from engine.serve.shared_base import Base
from samples import base_model_path

from .adapters import LENGTH, make_adapter, plain_peft

TEXTS = [
    "What a lovely day!",
    "no",
    "I have been waiting for two hours and nobody came to help me. " * 3,
    "It is. 好 ✓",
]
LORAS: dict[str, dict[str, Any]] = {
    "query-value": {},
    "all-linear": {"target_modules": "all-linear", "r": 3, "lora_alpha": 12},
    "rslora": {"use_rslora": True, "r": 8},
    "two-layers": {
        "layers_to_transform": [1, 4],
        "target_modules": ["key", "dense"],
        "exclude_modules": ["classifier"],
    },
    "pooler-saved": {"modules_to_save": ["classifier", "pooler"]},
}
APART: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True}, "biases": {"bias": "all"}, "ranks": {"rank_pattern": {"query": 2}},
    "olora": {"init_lora_weights": "olora"},
}  # fmt: skip


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    found = {}
    for seed, (name, lora) in enumerate((LORAS | APART).items()):
        labels = ["bad", "good"] if seed % 2 else ["negative", "neutral", "positive"]
        found[name] = make_adapter(root / name, labels, seed, **lora)
    return found


def shares(predictor: Predictor, folder: Path, texts: list[str]) -> list[list[float]]:
    return [list(p.probabilities) for p in predictor.ask(folder, texts).predictions]


@pytest.mark.parametrize("name", [*LORAS, *APART])
def test_answers_are_those_of_plain_peft(adapters, name):
    predictor = Predictor()
    for found, expected in zip(
        shares(predictor, adapters[name], TEXTS), plain_peft(adapters[name], TEXTS), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-5)
    assert predictor.ask(adapters[name], TEXTS).predictions[2].truncated


def test_adapters_share_one_base_model_and_what_would_change_it_stands_apart(adapters):
    predictor = Predictor()
    for folder in adapters.values():
        predictor.ask(folder, ["a"])
    computing = {id(model.by) for model in predictor.memory.values() if hasattr(model, "by")}
    assert len(computing) == 1 + len(APART)
    assert sum(isinstance(value, Base) for value in predictor.memory.values()) == 1


def test_tenants_in_one_batch_get_the_answers_that_they_get_alone(adapters):
    """S16: texts of five adapters, of two and three labels, in one forward pass, in any order."""
    predictor = Predictor()
    alone = {name: shares(predictor, adapters[name], TEXTS) for name in LORAS}
    held: Any = {name: predictor.memory.known((adapters[name], file_state(adapters[name] / WEIGHTS))) for name in LORAS}
    models = {name: each.value for name, each in held.items()}
    asked = [(name, i) for i in range(len(TEXTS)) for name in LORAS]
    ids = {name: [ids for ids, _cut in model.tokenizer.encode(TEXTS, LENGTH)] for name, model in models.items()}
    outputs = models["rslora"].by.outputs([Row(ids[name][i], models[name].adapter) for name, i in asked])
    for (name, i), output in zip(asked, outputs, strict=True):
        assert output.logits.softmax(-1).tolist() == pytest.approx(alone[name][i], abs=1e-5)


def test_forty_callers_at_once_get_their_own_answers(adapters):
    predictor, names = Predictor(), list(LORAS)
    expected = {name: plain_peft(adapters[name], TEXTS) for name in names}

    def ask(number: int) -> None:
        name, text = names[number % len(names)], number % len(TEXTS)
        (found,) = shares(predictor, adapters[name], [TEXTS[text]])
        assert found == pytest.approx(expected[name][text], abs=1e-5)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(ask, range(40)))
    assert predictor.queue.waiting_tokens == 0


def test_a_third_base_model_never_takes_more_memory_than_allowed(adapters):
    """The sample base model takes 87 MiB; DoRA's copies are as large. 200 MiB hold two of them."""
    predictor = Predictor(memory_mb=200)
    for name in ("dora", "biases", "query-value", "ranks", "all-linear", "dora"):
        predictor.ask(adapters[name], ["a"])
        assert predictor.memory.used <= predictor.memory.limit
    assert predictor.state()["models"] >= 2


def test_a_model_larger_than_all_memory_is_refused_before_it_is_loaded(adapters):
    with pytest.raises(TooLarge, match="SERVE_MEMORY_MB"):
        Predictor(memory_mb=80).ask(adapters["query-value"], ["a"])


def test_what_was_asked_longest_ago_goes_first_and_what_is_in_use_stays():
    memory = Memory(limit=3, patience=0.05)
    a, b = memory.take("a", 1, lambda _: "A"), memory.take("b", 1, lambda _: "B")
    c = memory.take("c", 1, lambda _: "C")
    for unused in (b, c):
        memory.give(unused)
    memory.give(memory.take("b", 1, lambda _: "not asked"))
    memory.give(memory.take("d", 1, lambda _: "D"))
    assert memory.values() == ["A", "B", "D"]
    with pytest.raises(Busy):
        memory.take("e", 3, lambda _: "E")
    assert a.value == "A" and memory.used == 1
    memory.give(a)
    assert memory.take("e", 3, lambda _: "E").value == "E" and memory.used == 3


def test_one_thing_is_loaded_once_however_many_ask_and_again_after_a_failure():
    memory, loads = Memory(limit=10, patience=5), []

    def load(_held: Any) -> str:
        loads.append(1)
        time.sleep(0.05)
        if len(loads) == 1:
            raise OSError("the disk")
        return "loaded"

    def take(_number: int) -> str | None:
        try:
            return memory.take("it", 1, load).value
        except OSError:
            return None

    with ThreadPoolExecutor(8) as threads:
        assert sorted(map(str, threads.map(take, range(8)))) == ["None"] + ["loaded"] * 7
    assert len(loads) == 2 and memory.used == 1


class Slow:
    """Computes when it is let."""

    def __init__(self) -> None:
        self.go, self.broken = threading.Event(), 0
        self.batches: list[list[int]] = []

    def outputs(self, rows: list[Row]) -> list[Output]:
        self.go.wait(10)
        self.batches.append([row.ids[0] for row in rows])
        if any(row.ids[0] == self.broken for row in rows):
            raise RuntimeError("broken")
        return [Output(torch.tensor([float(row.ids[0])])) for row in rows]


def rows(*numbers: int, length: int = 1) -> list[Row]:
    return [Row([number] * length) for number in numbers]


def later(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run in a thread; the list gets what it gives or raises."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.05)
    return thread, found


def test_too_much_work_is_refused_at_once_with_a_time_to_come_back():
    queue, slow = Queue(budget=100, patience=0.01), Slow()
    first, _found = later(lambda: queue.compute(slow, rows(1, length=90), 10))
    began = time.monotonic()
    with pytest.raises(Busy) as refused:
        queue.compute(slow, rows(2), 10)
    assert refused.value.wait >= 1 and time.monotonic() - began < 1
    slow.go.set()
    first.join()
    assert queue.compute(slow, rows(3), 10).outputs[0].logits.item() == 3


def test_batches_fill_to_the_budget_in_order_and_never_mix_base_models():
    queue, slow, other = Queue(budget=3, patience=60), Slow(), Slow()
    waiting = [later(lambda: queue.compute(slow, rows(0), 10))[0]]
    for by, numbers in ((slow, (1, 2)), (other, (7,)), (slow, (3, 4))):
        waiting.append(later(partial(queue.compute, by, rows(*numbers), 10))[0])
    slow.go.set()
    other.go.set()
    for thread in waiting:
        thread.join()
    assert slow.batches == [[0], [1, 2, 3], [4]] and other.batches == [[7]]
    assert queue.waiting_tokens == 0


def test_who_left_is_skipped_and_counts_no_more():
    queue, slow = Queue(budget=10, patience=60), Slow()
    first, _found = later(lambda: queue.compute(slow, rows(1), 10))
    with pytest.raises(Busy, match="too long"):
        queue.compute(slow, rows(2), 0.01)
    slow.go.set()
    first.join()
    assert queue.compute(slow, rows(3), 10).outputs[0].logits.item() == 3
    assert slow.batches == [[1], [3]] and queue.waiting_tokens == 0


def test_a_model_that_breaks_takes_no_other_caller_with_it():
    queue, slow = Queue(budget=10, patience=60), Slow()
    slow.broken = 2
    threads = [later(partial(queue.compute, slow, rows(n), 10)) for n in (5, 1, 2, 3)]
    slow.go.set()
    for thread, _found in threads:
        thread.join()
    assert [isinstance(found[0], RuntimeError) for _thread, found in threads] == [False, False, True, False]
    assert queue.waiting_tokens == 0


def damaged(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, target / "adapter_model.safetensors")
    return target


def first_pair(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in tensors if name.endswith("lora_A.weight"))


HARMFUL: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "not-finite": (lambda t: t[first_pair(t)].fill_(float("nan")), "not finite"),
    "wrong-shape": (lambda t: t.update({first_pair(t): torch.zeros(4, 7)}), "does not fit"),
    "half-a-pair": (lambda t: t.pop(first_pair(t).replace("lora_A", "lora_B")), "does not fit"),
    "other-labels": (
        lambda t: t.update(
            {n: torch.zeros(9, *v.shape[1:]) for n, v in t.items() if ".classifier." in n}
        ),
        "9 labels",
    ),
    "other-layer": (lambda t: t.update({first_pair(t).replace("layer.0", "layer.99"): torch.zeros(4, 384)}), "does not fit"),
    "too-many": (lambda t: t.update({f"x{i}.lora_A.weight": torch.zeros(1) for i in range(100_000)}), "100,0|no safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_adapter_is_refused_with_the_reason(adapters, tmp_path, name):
    change, said = HARMFUL[name]
    folder = damaged(adapters["query-value"], tmp_path / name, change)
    with pytest.raises(Unreadable, match=said):
        Predictor().ask(folder, ["a"])


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{}"])
def test_what_is_no_safetensors_file_is_refused_and_never_unpickled(adapters, tmp_path, content):
    folder = damaged(adapters["query-value"], tmp_path / "broken", lambda tensors: None)
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(Unreadable):
        Predictor().ask(folder, ["a"])


def test_base_model_of_a_card_that_names_a_path_is_refused(adapters, tmp_path):
    folder = damaged(adapters["query-value"], tmp_path / "escape", lambda tensors: None)
    card = json.loads((folder / "lorasite.json").read_text())
    for name in ("../../etc", "/etc", "no/such-model"):
        (folder / "lorasite.json").write_text(json.dumps(card | {"base_model": name}))
        with pytest.raises(Unreadable):
            Predictor(tmp_path).ask(folder, ["a"])


EVIL_BASES: dict[str, dict[str, Any]] = {
    "auto-map": {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}},
    "nested": {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}, "trust_remote_code": True}},
    "unknown-kind": {"model_type": "no-such-architecture"},
}


@pytest.mark.parametrize("name", EVIL_BASES)
def test_adapter_over_a_base_model_that_brings_code_is_refused_and_nothing_of_it_runs(
    adapters, tmp_path, monkeypatch, name
):
    """S5, where serving loads: no file of it is run, no connection is made."""
    ran, connected = tmp_path / "it-ran", []
    monkeypatch.setattr(socket.socket, "connect", lambda *address: connected.append(address))
    base = shutil.copytree(base_model_path(), tmp_path / "bases" / "own")
    (base / "config.json").write_text(json.dumps(json.loads((base / "config.json").read_text()) | EVIL_BASES[name]))
    (base / "evil.py").write_text(f"open({str(ran)!r}, 'w')")
    folder = damaged(adapters["query-value"], tmp_path / "over-it", lambda tensors: None)
    card = json.loads((folder / "lorasite.json").read_text())
    (folder / "lorasite.json").write_text(json.dumps(card | {"base_model": "own"}))
    with pytest.raises(Unreadable):
        Predictor(tmp_path / "bases").ask(folder, ["a"])
    assert not ran.exists() and not connected


@pytest.mark.parametrize("weights", ["adapter_model.bin", "adapter_model.pt"])
def test_adapter_in_a_pickle_is_refused_and_never_opened(adapters, tmp_path, weights):
    folder = damaged(adapters["query-value"], tmp_path / "pickled", lambda tensors: None)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / weights)
    with pytest.raises(Unreadable, match=r"adapter_model\.safetensors is not there"):
        Predictor().ask(folder, ["a"])
