"""The conversation of the chat page. It lives in the page alone: nothing of it is stored."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from django.http import QueryDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from pydantic import Field, TypeAdapter, ValidationError

from accounts.models import User
from web.errors import InvalidError, LorasiteError

from .completion_requests import MOST_MESSAGES, ChatRequest, Strict, parse
from .generation import Pieces, write
from .language_models import choose_language_model, template_beside
from .selectors import models_for

FIELDS = ("model", "second", "system", "message", "max_tokens", "temperature", "top_p", "seed", "json")
NUMBERS = {"max_tokens": int, "temperature": float, "top_p": float, "seed": int}
TITLES = {
    "max_tokens": _("Longest answer (tokens)"),
    "temperature": _("Temperature"),
    "top_p": _("Top p"),
    "seed": _("Seed"),
}


class ChatAnswer(Strict):
    model: str
    text: str


class Exchange(Strict):
    """A question, and the answer of each model that was asked."""

    question: str
    answers: Annotated[list[ChatAnswer], Field(max_length=2)]


EXCHANGES = TypeAdapter(Annotated[list[Exchange], Field(max_length=MOST_MESSAGES // 2)])


@dataclass
class Chat:
    """What the page's form holds. errors: by model, why it gave no answer to the last question."""

    values: dict[str, str]
    exchanges: list[Exchange]
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, form: QueryDict) -> "Chat":
        """Read the form. Raises Invalid if somebody else has written the earlier conversation."""
        try:
            exchanges = EXCHANGES.validate_json(form.get("exchanges") or "[]")
        except ValidationError:
            raise InvalidError(
                gettext("The conversation in this page can't be read. Start a new one."), field="exchanges"
            ) from None
        return cls({name: form.get(name, "") for name in FIELDS}, exchanges)

    @classmethod
    def blank(cls) -> "Chat":
        return cls(dict.fromkeys(FIELDS, ""), [])

    @property
    def names(self) -> list[str]:
        """Return the names of the models that are asked."""
        return [self.values[name] for name in ("model", "second") if self.values[name]]

    @property
    def exchanges_json(self) -> str:
        return EXCHANGES.dump_json(self.exchanges).decode()

    def open_question(self, action: str) -> None:
        """Add the new question to the conversation; with "again", take back the answers to the last one."""
        if action == "again" and self.exchanges:
            self.exchanges[-1].answers = []
            return
        question = self.values["message"].strip()
        if not question:
            raise InvalidError(gettext("Write a message first."), field="message")
        self.exchanges.append(Exchange(question=question, answers=[]))
        self.values["message"] = ""

    def take_back_question(self) -> None:
        """Put the last question back into the field for messages, without its answers."""
        if self.exchanges:
            self.values["message"] = self.exchanges.pop().question

    def body(self, user: User, column: int) -> dict[str, Any]:
        """Return the request to /v1/chat/completions for the next answer of a column's model.

        Earlier questions that it has not answered are left out, because many chat templates want turns to alternate.
        """
        messages = self.answered_messages(column, self.exchanges[:-1])
        messages += [{"role": "user", "content": exchange.question} for exchange in self.exchanges[-1:]]
        body: dict[str, Any] = {"model": self.names[column], "messages": messages, **self.numbers()}
        if self.values["json"]:
            body["response_format"] = {"type": "json_object"}
        template = self.template_beside(user, column)
        return body | ({"chat_template": template} if template else {})

    def template_beside(self, user: User, column: int) -> str | None:
        """Return the chat template of the tuned model in the other column, if this one has its base model, else None.

        Both then read the same question, so that their answers differ by the training alone.
        """
        if len(self.names) == 2:
            with suppress(LorasiteError):  # its own column says what is wrong with a model
                models = models_for(user)
                asked, other = (choose_language_model(models, self.names[place]) for place in (column, 1 - column))
                return template_beside(asked, other)
        return None

    def answered_messages(self, column: int, exchanges: list[Exchange]) -> list[dict[str, str]]:
        """Return the system prompt, and the exchanges that a column's model has answered, as messages."""
        messages = [{"role": "system", "content": self.values["system"]}] if self.values["system"].strip() else []
        for exchange in exchanges:
            if column < len(exchange.answers) and exchange.answers[column].text.strip():
                messages.append({"role": "user", "content": exchange.question})
                messages.append({"role": "assistant", "content": exchange.answers[column].text})
        return messages

    def transcript(self) -> str:
        """Return the conversation with each model that has answered as a line of JSON: rows of a dataset of conversations."""
        columns = max((len(exchange.answers) for exchange in self.exchanges), default=0)
        conversations = [self.answered_messages(column, self.exchanges) for column in range(columns)]
        answered = [messages for messages in conversations if messages[-1:] and messages[-1]["role"] == "assistant"]
        return "".join(json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in answered)

    def numbers(self) -> dict[str, int | float]:
        """Return the settings that were filled in; Invalid names one that is no number."""
        numbers = {}
        for name, number_type in NUMBERS.items():
            if text := self.values[name].strip()[:40]:
                try:
                    numbers[name] = number_type(text)
                except ValueError:
                    raise InvalidError(
                        gettext("%(field)s must be a number.") % {"field": TITLES[name]}, field=name
                    ) from None
        return numbers

    def open_answer(self, user: User, column: int) -> Pieces:
        """Return the pieces of the answer of a column's model to the last question."""
        if column >= len(self.names):
            raise InvalidError(gettext("Choose a model."), field="model")
        options = parse(ChatRequest, self.body(user, column))
        return write(user, choose_language_model(models_for(user), options.model), options, options.conversation())

    def answer(self, user: User) -> None:
        """Answer the last question with each model. If none can, the question goes back to its field."""
        answers = []
        for column, name in enumerate(self.names):
            try:
                text = "".join(piece.text for piece in self.open_answer(user, column))
            except LorasiteError as error:
                text = ""
                self.errors[name] = str(error.message)
            answers.append(ChatAnswer(model=name, text=text))
        self.exchanges[-1].answers = answers
        if not any(answer.text for answer in answers) and self.errors:
            self.take_back_question()
