from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import person
from inference.services import predict
from web.commands import Answering, who_and_how

BAR = 30  # characters of a probability of 1


class Command(Answering):
    help = "Predict one text with a model or a finished experiment; the best one when --model is left out."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--text", required=True)
        parser.add_argument("--model", help="A registered model (name, name@3, name@alias) or an experiment.")
        who_and_how(parser)

    def answer(self, options: dict[str, Any]) -> tuple[Any, list[str]]:
        (found,) = predict(user=person(options["user"]), texts=[options["text"]], model=options["model"])
        shares = found["probabilities"]
        width = max(map(len, shares))
        bars = [f"  {name:{width}}  {share:.4f}  {'█' * round(BAR * share)}".rstrip() for name, share in shares.items()]
        cut = ["The text is longer than the model reads; its end was left out."] if found["truncated"] else []
        said = f"says {found['model']} over {found['base_model']}, {found['language']}, {found['latency_ms']} ms"
        return found, [f"{found['label_name']}, {said}", *bars, *cut]
