from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import acting_user
from engine.serve.word_importance import METHODS
from inference.answers import FORMATS_BY_TASK
from inference.explanations import ExplanationRequest, explain_answer, format_explanations
from inference.selectors import models_for
from inference.services import choose_model, predict
from web.commands import JsonOrTextCommand, add_user_and_json_options

LISTED_WORDS = 10  # of an explanation, those with the largest weights


class Command(JsonOrTextCommand):
    help = "Predict one text, or a pair of texts, with a model or a finished experiment; the best one when --model is left out."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--text", required=True)
        parser.add_argument("--text-pair", help="The second text, for a model that was trained on pairs of texts.")
        parser.add_argument("--model", help="A registered model (name, name@3, name@alias) or an experiment.")
        parser.add_argument("--explain", choices=METHODS, help="Say which words the answer depends on.")
        add_user_and_json_options(parser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        user = acting_user(options["user"])
        text = options["text"]
        text_pair = options["text_pair"]
        text_pairs = None if text_pair is None else [text_pair]
        (answer,) = predict(user=user, texts=[text], text_pairs=text_pairs, model=options["model"])
        first, *lines = FORMATS_BY_TASK[answer["task"]].lines(answer)
        source = f"predicted by {answer['model']} on {answer['base_model']}"
        lines = [f"{first}, {source}, {answer['language']}, {answer['latency_ms']} ms", *lines]
        if answer["truncated"]:
            lines.append("The text is longer than the model can read, so its end was ignored.")
        if answer["confident"] is False:
            lines.append(
                "The model is not sure: at least 90 % of its answers were right only where it was more certain."
            )
        if options["explain"]:
            wanted = ExplanationRequest(options["explain"])
            model = choose_model(models_for(user), answer["model"])
            explanations = explain_answer(model, answer, text, text_pair, wanted)
            answer["explanation"] = format_explanations(wanted.method, explanations)
            lines += explanation_lines(answer["explanation"])
        return answer, lines


def explanation_lines(explanation: dict[str, Any]) -> list[str]:
    """Return the words with the largest weights of each explained label, or of the score."""
    lines = []
    for target in explanation["targets"]:
        words = [*target["words"], *(target["text_pair_words"] or [])]
        words.sort(key=lambda word: -abs(word["weight"]))
        lines.append(f"Words that count for {target['label'] or 'the score'}:")
        lines += [f"  {word['weight']:+.4f}  {word['text']}" for word in words[:LISTED_WORDS]]
    return lines
