"""Time training: the engine, and beside it the Hugging Face Trainer with PEFT on the same rows, adapter and batch size."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.flops import flops_per_token, synchronize
from bench.gpu.settings import Settings, TrainingSetting
from bench.gpu.workload import training_rows

WITHOUT_END = 1_000_000  # steps; the clock ends the training


class StepClock:
    """Counts real tokens a second after the warm-up, and the seconds from the start of the process to its first step."""

    def __init__(self, device: str, warm_up: int, seconds: float) -> None:
        self.device = device
        self.warm_up = warm_up
        self.seconds = seconds
        self.steps = 0
        self.tokens = 0
        self.first_step_s = 0.0
        self.started = 0.0

    def count(self, tokens: int) -> bool:
        """Count a step; return whether the time is over. Waits for the device only at the first step and the warm-up."""
        self.steps += 1
        if self.steps == 1:
            self._record_first_step()
        if self.steps == self.warm_up:
            synchronize(self.device)
            self.started = time.perf_counter()
        elif self.steps > self.warm_up:
            self.tokens += tokens
            return time.perf_counter() - self.started > self.seconds
        return False

    def result(self) -> dict[str, float]:
        """Return speed, memory in MiB and seconds to the first step. Call it right after the last step."""
        synchronize(self.device)
        seconds = time.perf_counter() - self.started
        return {
            "tokens_per_second": self.tokens / seconds,
            "step_ms": 1000 * seconds / max(1, self.steps - self.warm_up),
            "memory_mb": peak_memory_mb(self.device),
            "first_step_s": self.first_step_s,
        }

    def _record_first_step(self) -> None:
        import psutil

        synchronize(self.device)
        self.first_step_s = time.time() - psutil.Process().create_time()


def peak_memory_mb(device: str) -> float:
    """Return the highest memory use in MiB: of the GPU, or of this process on a CPU."""
    import torch

    from engine.devices import peak_memory_mb as engines

    return engines(torch.device(device))


def time_engine(setting: TrainingSetting, settings: Settings, device: str, folder: Path) -> dict[str, Any]:
    """Train with the engine as anybody does, until the clock says stop."""
    from engine import Prepared, RunConfig, StepDone, train

    config = RunConfig.parse(
        {
            "model": {"name": setting.shape.name},
            "lora": {"r": settings.rank, "lora_alpha": 2 * settings.rank, "target_modules": "all-linear"},
            "data": {"max_length": setting.shape.longest},
            "training": {
                "per_device_train_batch_size": setting.rows,
                "max_steps": WITHOUT_END,
                "eval_strategy": "no",
                "save_strategy": "no",
                "device": device,
            },
            "system": {"num_threads": settings.threads},
        }
    )
    clock = StepClock(device, settings.warm_up, settings.seconds)
    facts: dict[str, Any] = {}
    rows = training_rows(setting, settings)
    with tempfile.TemporaryDirectory() as results:
        events = train(config, data_file=rows, results=Path(results), base_models_dir=folder)
        with closing(events):
            for event in events:
                if isinstance(event, Prepared):
                    facts = {"precision": event.precision, "trained": event.trainable_parameters}
                if isinstance(event, StepDone) and clock.count(event.tokens):
                    break
            measured = clock.result()
    return measured | facts | {"flops_per_token": _flops(setting, rows)}


def time_trainer(setting: TrainingSetting, settings: Settings, device: str, folder: Path) -> dict[str, Any]:
    """Train with the Trainer: frozen weights in bf16 under bf16 autocast on a GPU, sdpa, dynamic padding."""
    import torch
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    rows = training_rows(setting, settings)
    tokenizer = AutoTokenizer.from_pretrained(folder / setting.shape.name)
    encoded = tokenizer(rows.train.texts, truncation=True, max_length=setting.shape.longest)
    pairs = zip(encoded["input_ids"], encoded["attention_mask"], rows.train.labels.tolist(), strict=True)
    examples = [{"input_ids": ids, "attention_mask": mask, "labels": label} for ids, mask, label in pairs]

    on_gpu = device == "cuda"
    model = peft_classifier(folder / setting.shape.name, settings.rank, torch.bfloat16 if on_gpu else torch.float32)
    clock = StepClock(device, settings.warm_up, settings.seconds)
    tokens_of_step: list[int] = []
    pad = DataCollatorWithPadding(tokenizer)

    def collate(batch: list[dict[str, Any]]) -> Any:
        tokens_of_step.append(sum(len(row["input_ids"]) for row in batch))
        return pad(batch)

    class Watch(TrainerCallback):
        def on_step_end(self, _arguments: Any, _state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.count(tokens_of_step[clock.steps])
            if control.should_training_stop:
                measured.update(clock.result())

    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, max_steps=WITHOUT_END, per_device_train_batch_size=setting.rows, learning_rate=5e-4,
            bf16=on_gpu, use_cpu=not on_gpu, report_to=[], save_strategy="no", logging_steps=WITHOUT_END, disable_tqdm=True,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=examples, data_collator=collate, callbacks=[Watch()]).train()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    facts = {"precision": "bf16" if on_gpu else "fp32", "trained": trained}
    return measured | facts | {"flops_per_token": _flops(setting, rows)}


def peft_classifier(base: Path, rank: int, dtype: Any) -> Any:
    """Return a classifier of transformers with an adapter of PEFT on all linear layers of its encoder."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=3, dtype=dtype, attn_implementation="sdpa"
    )
    lora = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules="all-linear", exclude_modules=["classifier"]
    )
    return get_peft_model(model, lora)


def _flops(setting: TrainingSetting, rows: Any) -> float:
    lengths = np.array([text.count(" ") + 3 for text in rows.train.texts])  # words and two special tokens
    return flops_per_token(setting.shape, lengths)


CONTENDERS = {"Trainer + PEFT": time_trainer, "Lorasite": time_engine}
