from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import acting_user
from inference.services import predict
from web.commands import JsonOrTextCommand, add_user_and_json_options

BAR = 30  # characters of the bar of a probability of 1


class Command(JsonOrTextCommand):
    help = "Predict one text with a model or a finished experiment; the best one when --model is left out."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--text", required=True)
        parser.add_argument("--model", help="A registered model (name, name@3, name@alias) or an experiment.")
        add_user_and_json_options(parser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        (answer,) = predict(user=acting_user(options["user"]), texts=[options["text"]], model=options["model"])
        source = f"predicted by {answer['model']} on {answer['base_model']}"
        lines = [f"{answer['label_name']}, {source}, {answer['language']}, {answer['latency_ms']} ms"]
        width = max(map(len, answer["probabilities"]))
        for name, probability in answer["probabilities"].items():
            lines.append(f"  {name:{width}}  {probability:.4f}  {'█' * round(BAR * probability)}".rstrip())
        if answer["truncated"]:
            lines.append("The text is longer than the model can read, so its end was ignored.")
        return answer, lines
