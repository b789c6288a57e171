"""What language models answered to held-out prompts, beside the expected answer."""

from dataclasses import dataclass
from typing import Any

from .models import Experiment


@dataclass(frozen=True, slots=True)
class Writing:
    """What a model wrote; `step` is that of an evaluation, None for a base model and for a result."""

    text: str
    is_expected: bool
    step: int | None = None


def compare_answer(text: str, expected: str, step: int | None = None) -> Writing:
    """Return what was written, with whether it is what the data have: by the rule of the metric exact_match."""
    return Writing(text, text.strip() == expected.strip(), step)


def answer_rows(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return a row per prompt that at least two runs answered: prompt, expected, and an answer for each run, None without one."""
    answers = [{each["prompt"]: each for each in run.metrics.get("answers", [])} for run in experiments]
    rows = []
    for prompt in dict.fromkeys(prompt for of_run in answers for prompt in of_run):
        of_prompt = [of_run.get(prompt) for of_run in answers]
        if len(answered := [each for each in of_prompt if each]) < 2:
            continue
        written = [compare_answer(each["tuned"], each["expected"]) if each else None for each in of_prompt]
        rows.append({"prompt": prompt, "expected": answered[0]["expected"], "answers": written})
    return rows
