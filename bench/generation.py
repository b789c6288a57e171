"""Answers of language models: this engine beside transformers' own `generate`, taking turns.

    python bench/generation.py [--turns 3] [--threads 2] [--tokens 64]

The sample language model writes answers of equal length to short questions, greedily. One caller asks the base model; eight callers
ask four adapters of rank 16 on all linear layers, two each. transformers answers the eight one after another, or the two of an adapter
as one padded batch, with PEFT changing adapters in between. Each run is a process of its own; loading and a first answer do not count.
Speed is by the wall clock and by CPU time: the latter is that of an idle machine even where others compute, if --threads is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CONTENDERS = ("transformers-fp32", "transformers-bf16", "transformers-batched", "engine")
ADAPTERS, CALLERS = 4, 8
QUESTIONS = [f"Write a long story about {number} foxes in a forest." for number in range(CALLERS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--worker", choices=CONTENDERS)
    parser.add_argument("--adapters", type=Path)
    options = parser.parse_args()
    if options.worker:
        measure = measure_engine if options.worker == "engine" else measure_transformers
        print(json.dumps(measure(options.worker, options.adapters, options.tokens, options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_adapters(Path(folder))
        results: dict[str, list[dict[str, float]]] = {name: [] for name in options.contenders}
        for _turn in range(options.turns):
            for name in options.contenders:
                results[name].append(run_worker(name, Path(folder), options))
    print(f"{'tokens/s':22}{'one':>8}{'by CPU':>8}{'eight':>8}{'by CPU':>8}{'MiB':>7}")
    for name, measured in results.items():
        middle = {key: median(each[key] for each in measured) for key in measured[0]}
        print(f"{name:22}" + "".join(f"{middle[key]:8.1f}" for key in ("one", "one_cpu", "eight", "eight_cpu")), end="")
        print(f"{middle['mib']:7.0f}")


def run_worker(name: str, adapters: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure one contender in a process of its own."""
    arguments = ["--worker", name, "--adapters", adapters, "--tokens", options.tokens, "--threads", options.threads]
    command = [sys.executable, __file__, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def make_adapters(folder: Path) -> None:
    """Write random adapters over the sample language model."""
    from samples import language_model_path
    from testing.language_models import make_language_adapter

    shutil.copytree(language_model_path(), folder / "base")
    for number in range(ADAPTERS):
        make_language_adapter(folder / str(number), folder / "base", number, r=16)


def speeds(answer_one: Any, answer_eight: Any, tokens: int) -> dict[str, float]:
    """Return tokens per second of one caller and of eight. The functions return how many tokens were written."""
    import torch

    from engine.devices import peak_memory_mb

    results = {}
    for name, answer in (("one", answer_one), ("eight", answer_eight)):
        answer(4)
        wall, cpu = time.perf_counter(), time.process_time()
        written = answer(tokens)
        results[name] = written / (time.perf_counter() - wall)
        results[f"{name}_cpu"] = written / (time.process_time() - cpu)
    return results | {"mib": peak_memory_mb(torch.device("cpu"))}


def measure_engine(_name: str, adapters: Path, tokens: int, threads: int) -> dict[str, float]:
    """Let our engine answer, each caller in a thread of its own."""
    import torch

    from engine.serve.generator import GenerationRequest, Generator

    torch.set_num_threads(threads)
    generator = Generator(adapters, patience=600)
    generator.batching.before_step = lambda: torch.set_num_threads(threads)

    def answer(folder: Path, question: str, limit: int) -> int:
        prompt: Any = [{"role": "user", "content": question}]
        request = GenerationRequest(folder, prompt, max_tokens=limit, temperature=0.0)
        return sum(piece.tokens for piece in generator.generate(request))

    def answer_eight(limit: int) -> int:
        folders = [adapters / str(number % ADAPTERS) for number in range(CALLERS)]
        with ThreadPoolExecutor(CALLERS) as callers:
            return sum(callers.map(answer, folders, QUESTIONS, [limit] * CALLERS))

    return speeds(lambda limit: answer(adapters / "base", QUESTIONS[0], limit), answer_eight, tokens)


def measure_transformers(name: str, adapters: Path, tokens: int, threads: int) -> dict[str, float]:
    """Let transformers and PEFT answer: one after another or, of each adapter, together."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    base: Any = AutoModelForCausalLM.from_pretrained(adapters / "base", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(adapters / "base", padding_side="left")

    def answer(model: Any, questions: list[str], limit: int) -> int:
        chats = [[{"role": "user", "content": question}] for question in questions]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True, padding=True, return_tensors="pt"
        )
        written = model.generate(**inputs, max_new_tokens=limit, min_new_tokens=limit, do_sample=False)
        return int((written.shape[1] - inputs["input_ids"].shape[1]) * len(questions))

    one = speeds(lambda limit: answer(base, QUESTIONS[:1], limit), lambda _limit: 1, tokens)
    model = PeftModel.from_pretrained(base, str(adapters / "0"), adapter_name="0")
    for number in range(1, ADAPTERS):
        model.load_adapter(str(adapters / str(number)), adapter_name=str(number))
    size = CALLERS // ADAPTERS if name.endswith("batched") else 1

    def answer_eight(limit: int) -> int:
        written = 0
        for number in range(ADAPTERS):
            model.set_adapter(str(number))
            own = QUESTIONS[number::ADAPTERS]
            written += sum(answer(model, own[start : start + size], limit) for start in range(0, len(own), size))
        return written

    return speeds(lambda _limit: 1, answer_eight, tokens) | {key: one[key] for key in ("one", "one_cpu")}


if __name__ == "__main__":
    main()
