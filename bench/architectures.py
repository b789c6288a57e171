"""Train a tiny random model of every type that transformers can classify texts with, and say what comes of it.

    python bench/architectures.py                        every type, sequence and token classification
    python bench/architectures.py qwen3 t5 --task token_classification
    python bench/architectures.py --markdown             the table of docs/models.md

Each run trains for 60 steps in fp32, on 178 texts in which a few words decide, and is scored on 62 others. If it learns nothing,
it is tried again with 200 steps and an adapter on every linear layer. It "trains" if the engine's own check passes (evaluated =
served = plain PEFT), if texts get the same answers together as alone, and if it is better than chance. Outcomes are stored in a
file, and a type that has one is not trained again without --again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TASKS = ("sequence_classification", "token_classification")
OTHER_TASKS = ("pairs", "multi_label_classification", "regression")
SECONDS = 120  # that a run may take
SAME_LOGITS = 1e-4
ATTEMPTS: tuple[dict[str, dict[str, Any]], ...] = (
    {"training": {"max_steps": 60, "learning_rate": 0.005}},
    {"training": {"max_steps": 200, "learning_rate": 0.01}, "lora": {"target_modules": "all-linear"}},
)
CHANCE = {"accuracy": 0.5, "entity_f1": 0.5, "micro_f1": 0.5, "r2": 0.1}


@dataclass
class Outcome:
    """What came of a type and a task. kind: trains, refused, fails or not built. reason: a sentence for all but the first."""

    model_type: str
    task: str
    kind: str
    reason: str = ""
    score: float = 0.0
    difference: float = 0.0  # of logits, between a text in a batch and alone
    targets: list[str] = field(default_factory=list)
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types, such as qwen3; all if there is none")
    parser.add_argument("--task", action="append", choices=[*TASKS, *OTHER_TASKS])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--again", action="store_true", help="also what has an outcome")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which no further run begins")
    parser.add_argument("--outcomes", type=Path, default=ROOT / "var/architectures.json")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if options.markdown:
        return print(markdown())
    outcomes = read_outcomes(options.outcomes)
    from engine import warm_up
    from engine.models.transformers_output import silence_transformers

    started = time.perf_counter()
    warm_up()
    silence_transformers()
    for task in options.task or TASKS:
        for model_type in options.types or types_with_head(task):
            key = f"{model_type} {task} {options.precision}"
            if key in outcomes and not options.again:
                continue
            if time.perf_counter() - started > options.limit:
                return print("There is more to do: run the same command again.")
            outcomes[key] = in_own_process(model_type, task, options.precision)
            print(line(outcomes[key]), flush=True)
            options.outcomes.parent.mkdir(parents=True, exist_ok=True)
            options.outcomes.write_text(json.dumps({name: asdict(each) for name, each in outcomes.items()}, indent=1))


def read_outcomes(path: Path) -> dict[str, Outcome]:
    if not path.exists():
        return {}
    return {name: Outcome(**values) for name, values in json.loads(path.read_text()).items()}


def types_with_head(task: str) -> list[str]:
    from transformers.models.auto import modeling_auto

    if task == "token_classification":
        return sorted(modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)
    return sorted(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)


def line(outcome: Outcome) -> str:
    numbers = f"{outcome.score:6.3f} {outcome.difference:8.1e} {outcome.seconds:5.1f} s"
    return f"{outcome.model_type:22} {outcome.task:24} {outcome.kind:10} {numbers}  {outcome.reason or outcome.targets}"


def in_own_process(model_type: str, task: str, precision: str) -> Outcome:
    """Return the outcome of a run in a process of its own, which may crash or hang."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_outcome, args=(sender, model_type, task, precision))
    process.start()
    sender.close()
    try:
        if not receiver.poll(SECONDS):
            return Outcome(model_type, task, "fails", f"takes more than {SECONDS} s")
        return receiver.recv()
    except EOFError:
        process.join()
        return Outcome(model_type, task, "fails", f"the process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def send_outcome(sender: Connection, model_type: str, task: str, precision: str) -> None:
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = outcome_of(Path(folder), model_type, task, precision)
    outcome.seconds = time.perf_counter() - started
    sender.send(outcome)


def outcome_of(folder: Path, model_type: str, task: str, precision: str) -> Outcome:
    from engine import EngineError
    from testing.tiny_architectures import build_tiny

    try:
        build_tiny(folder / "bases/tiny", model_type)
    except Exception as error:
        return Outcome(model_type, task, "not built", one_line(error))
    outcome = Outcome(model_type, task, "fails")
    for number, settings in enumerate(ATTEMPTS):
        try:
            outcome = train_and_compare(folder / str(number), folder / "bases", model_type, task, precision, settings)
        except EngineError as error:
            return Outcome(model_type, task, "refused", str(error))
        except Exception as error:
            return Outcome(model_type, task, "fails", f"{one_line(error)} at {place(error)}")
        if outcome.difference > SAME_LOGITS:
            outcome.kind, outcome.reason = "fails", "answers a text in a batch differently than alone"
            return outcome
        if outcome.score >= CHANCE[score_name(task)]:
            return outcome
    outcome.kind, outcome.reason = "fails", "learns nothing"
    return outcome


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def train_and_compare(
    results: Path, bases: Path, model_type: str, task: str, precision: str, settings: dict[str, dict[str, Any]]
) -> Outcome:
    from engine import Finished, RunConfig, train
    from testing.telling_texts import write_rows

    config = RunConfig.parse(configuration(task, precision, settings))
    data_file = write_rows(bases, task)
    events = train(config, data_file=data_file, results=results, base_models_dir=bases)
    metrics = next(event.metrics for event in events if isinstance(event, Finished))
    final = results / "artifacts/final_model"
    targets = json.loads((final / "adapter_config.json").read_text())["target_modules"]
    targets = sorted({name.rpartition(".")[2] for name in targets})
    return Outcome(
        model_type,
        task,
        "trains",
        score=metrics["eval"][score_name(task)],
        difference=largest_difference(final, bases, data_file),
        targets=targets,
    )


def score_name(task: str) -> str:
    return {"token_classification": "entity_f1", "multi_label_classification": "micro_f1", "regression": "r2"}.get(
        task, "accuracy"
    )


def configuration(task: str, precision: str, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "experiment_name": "run",
        "task": "sequence_classification" if task == "pairs" else task,
        "model": {"name": "tiny"},
        "data": {"max_length": 256},
        "training": {
            "per_device_train_batch_size": 16,
            "precision": precision,
            "eval_strategy": "no",
            "save_strategy": "no",
            "device": "cpu",
            **settings["training"],
        },
        "lora": settings.get("lora", {}),
        "system": {"baseline": False, "num_threads": 1},
    }
    if task == "pairs":
        config["data"]["text_pair_column"] = "second"
    return config


def largest_difference(final: Path, bases: Path, data_file: Path) -> float:
    """Return how far the logits of held-out texts are apart between one batch and each text alone."""
    import polars as pl

    from engine.serve.predictor import Predictor

    rows = pl.read_parquet(data_file).filter(pl.col("split") == "eval").head(24)
    texts = rows["text"].to_list()
    seconds = rows["second"].to_list() if "second" in rows.columns else None
    predictor = Predictor(bases)
    together = predictor.logits(final, texts, seconds)
    first, largest = 0, 0.0
    for number, text in enumerate(texts):
        alone = predictor.logits(final, [text], [seconds[number]] if seconds else None)
        largest = max(largest, float((together[first : first + len(alone)] - alone).abs().max()))
        first += len(alone)
    return largest


def markdown() -> str:
    """Return the table of docs/models.md, which a test compares with the lists of types."""
    from engine.models.supported_types import REFUSED, TRAINABLE

    texts, entities = TRAINABLE["sequence"], TRAINABLE["token"]
    rows = [("texts and entities", texts & entities), ("texts", texts - entities), ("entities", entities - texts)]
    for reason in dict.fromkeys(REFUSED.values()):
        rows.append((f"nothing: {reason}", {name for name in REFUSED if REFUSED[name] == reason}))
    lines = [f"| {learns} | {', '.join(f'`{name}`' for name in sorted(types))} |" for learns, types in rows]
    return "\n".join(["| learns | types |", "|---|---|", *lines])


if __name__ == "__main__":
    main()
