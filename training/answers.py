"""What a language model writes to held-out prompts: in each evaluation, and at the end beside its base model."""

import json
from dataclasses import asdict, dataclass, field
from typing import TextIO

from engine.events import LONGEST_SHOWN
from experiments.answers import Writing, compare_answer

from .models import Task


@dataclass(frozen=True, slots=True)
class PromptAnswers:
    """A held-out prompt. base and tuned are None until the run has ended."""

    prompt: str
    expected: str
    base: Writing | None = None
    tuned: Writing | None = None
    course: list[Writing] = field(default_factory=list)


def answers_of(task: Task) -> list[PromptAnswers]:
    """Return the answers to the first held-out prompts: of the result, or while there is none, those of the evaluations."""
    metrics = task.experiment.metrics
    results = metrics.get("answers", [])
    by_step = {point["step"]: point["answers"] for point in metrics.get("history", []) if "answers" in point}
    if not results:
        evaluations = task.points.exclude(answers=[]).values_list("step", "answers")
        by_step = {step: [answer["written"] for answer in answers] for step, answers in evaluations}
        last = task.points.exclude(answers=[]).last()
        results = last.answers if last else []
    return [
        PromptAnswers(
            prompt=result["prompt"],
            expected=result["expected"],
            base=compare_answer(result["base"], result["expected"]) if "base" in result else None,
            tuned=compare_answer(result["tuned"], result["expected"]) if "tuned" in result else None,
            course=[
                compare_answer(texts[place], result["expected"][:LONGEST_SHOWN], step)
                for step, texts in by_step.items()
                if place < len(texts)
            ],
        )
        for place, result in enumerate(results)
    ]


def write_answers(task: Task, file: TextIO) -> None:
    """Write a line of JSON for each prompt."""
    for answers in answers_of(task):
        file.write(json.dumps(asdict(answers), ensure_ascii=False) + "\n")
