"""Time serving: adapters over one base model, asked in turns of chance by many callers at once, one text a request."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.settings import ServingSetting, Settings
from bench.gpu.training import peak_memory_mb, peft_classifier
from bench.gpu.workload import LABELS, make_rows

DIFFERENT = 8  # adapters that are written; further ones are links to them, and still loaded separately
TOKENS, TEXTS = 32, 2000
LOADERS = 4  # threads that load adapters


def make_adapters(base: Path, folder: Path, number: int, rank: int) -> list[Path]:
    """Write adapters with random weights, as final models over the base model in `base`; return their folders."""
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    model = peft_classifier(base, rank, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    info = {"base_model": base.name, "labels": LABELS, "max_length": 2 * TOKENS}
    for index in range(min(number, DIFFERENT)):
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:  # PEFT starts B at zero, which would change nothing
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(folder / str(index))
        tokenizer.save_pretrained(folder / str(index))
        (folder / str(index) / "lorasite.json").write_text(json.dumps(info))
    for index in range(DIFFERENT, number):
        (folder / str(index)).symlink_to(folder / str(index % DIFFERENT))
    return [folder / str(index) for index in range(number)]


def predict_mixed(adapters: list[Path], texts: list[str], bases: Path, device: str) -> np.ndarray:
    """Return the probabilities of texts, each by another adapter in turn, from common batches: (texts, labels)."""
    from engine.serve.predictor import Predictor

    predictor = Predictor(bases, device=device, patience=60)
    with ThreadPoolExecutor(len(texts)) as callers:
        folders = [adapters[index % len(adapters)] for index in range(len(texts))]
        answers = callers.map(lambda folder, text: predictor.predict(folder, [text]), folders, texts)
        return np.array([answer.predictions[0].probabilities for answer in answers])


class Load:
    """Callers that ask one after the other until the time is over."""

    def __init__(self, predictor: Any, adapters: list[Path], texts: list[str], seconds: float) -> None:
        self.predictor = predictor
        self.adapters = adapters
        self.texts = texts
        self.seconds = seconds
        self.latencies: list[float] = []

    def run(self, callers: int) -> dict[str, float]:
        """Return requests a second, and the median and the 95th percentile of their latency in milliseconds."""
        started = time.perf_counter()
        with ThreadPoolExecutor(callers) as threads:
            list(threads.map(lambda seed: self._ask(seed, started), range(callers)))  # raises what a caller has raised
        seconds = time.perf_counter() - started
        return {
            "requests_per_second": len(self.latencies) / seconds,
            "p50_ms": 1000 * float(np.percentile(self.latencies, 50)),
            "p95_ms": 1000 * float(np.percentile(self.latencies, 95)),
        }

    def _ask(self, seed: int, started: float) -> None:
        chance = random.Random(seed)
        while time.perf_counter() - started < self.seconds:
            sent_at = time.perf_counter()
            self.predictor.predict(chance.choice(self.adapters), [chance.choice(self.texts)])
            self.latencies.append(time.perf_counter() - sent_at)


def time_serving(settings: Settings, device: str, bases: Path) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each setting, in their order; adapters stay in memory from one to the next."""
    from engine.serve.predictor import Predictor

    texts = make_rows(settings.served, TOKENS, TEXTS, settings.spread).train.texts
    predictor = Predictor(
        bases, device=device, memory_mb=memory_limit_mb(device), batch_tokens=settings.batch_tokens, patience=600
    )
    with tempfile.TemporaryDirectory() as folder:
        most = max(setting.adapters for setting in settings.serving)
        adapters = make_adapters(bases / settings.served.name, Path(folder), most, settings.rank)
        for setting in settings.serving:
            yield _time_setting(setting, predictor, adapters[: setting.adapters], texts, settings, device)


def memory_limit_mb(device: str) -> int:
    """Return what all models together may take: most of the GPU's memory, or a few GiB of a CPU's."""
    import torch

    return int(0.7 * torch.cuda.mem_get_info()[1] / 2**20) if device == "cuda" else 4096


def _time_setting(
    setting: ServingSetting, predictor: Any, adapters: list[Path], texts: list[str], settings: Settings, device: str
) -> dict[str, Any]:
    started = time.perf_counter()
    with ThreadPoolExecutor(LOADERS) as loaders:
        list(loaders.map(predictor.load_model, adapters))
    load_s = time.perf_counter() - started
    Load(predictor, adapters, texts, settings.seconds / 5).run(setting.callers)  # warms up
    measured = Load(predictor, adapters, texts, settings.seconds).run(setting.callers)
    return {
        "adapters": setting.adapters,
        "callers": setting.callers,
        **measured,
        "load_s": load_s,
        "memory_mb": peak_memory_mb(device),
    }
