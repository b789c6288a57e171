"""The chat template of a run's base model: whether it has one, and the choice of the form if it has none."""

from dataclasses import dataclass
from pathlib import Path

from django.utils.translation import gettext as _

from engine.config_sections import ModelSection
from engine.data.conversations import Message
from engine.models.base_models import find_cached
from engine.models.chat_template import has_template
from engine.models.plain_templates import OWN_TEMPLATE, TEMPLATES, USUAL, preview
from engine.models.recommended import find_recommended
from engine.sentences import Sentence
from engine.task_types import is_language_model
from web.errors import InvalidError
from web.sentences import translate

from .base_models import base_models_dir
from .forms import RunForm

FIELD = "model.chat_template"


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """The field of the form, and an example of what the chosen template makes of a conversation.

    preview: empty while the files of the base model are not on this machine.
    """

    is_certain: bool  # whether the base model is known to have no template
    preview: str


def find_folder(name: str, revision: str | None) -> Path | None:
    """Return the folder of a base model on this machine; None if it is not here."""
    root = base_models_dir()
    if root and name and (root / name).is_dir():
        return root / name
    return find_cached(name, revision)


def has_own_template(name: str, revision: str | None) -> bool | None:
    """Return whether a base model has a chat template; None if it is not on this machine."""
    folder = find_folder(name, revision)
    if folder is not None:
        return has_template(folder)
    return True if find_recommended(name) else None  # language models of that table are tuned to chat


def require_effect(model: ModelSection) -> None:
    """Raise Invalid if a plain template was chosen for a base model that has one of its own."""
    if model.chat_template != USUAL and has_own_template(model.name, model.revision):
        raise InvalidError(translate(Sentence(OWN_TEMPLATE, model=model.name)), field=FIELD, reason="chat_template")


def offer_templates(form: RunForm) -> TemplateChoice | None:
    """Return the choice that the form offers; None if there is none, because the base model has a template of its own."""
    if not is_language_model(form.task):
        return None
    name, revision = (str(form[path].value() or "") for path in ("model.name", "model.revision"))
    chosen = str(form[FIELD].value() or USUAL)
    has_own = has_own_template(name, revision or None)
    if has_own and chosen == USUAL and not form[FIELD].errors:
        return None
    folder = find_folder(name, revision or None)
    shown = preview(chosen, folder, example()) if folder and not has_own and chosen in TEMPLATES else ""
    return TemplateChoice(has_own is False, shown)


def example() -> list[Message]:
    """Return a conversation that shows what a template writes before, between and after messages."""
    return [
        {"role": "system", "content": _("Answer in one word.")},
        {"role": "user", "content": _("What is the capital of France?")},
        {"role": "assistant", "content": _("Paris")},
        {"role": "user", "content": _("And of Italy?")},
        {"role": "assistant", "content": _("Rome")},
    ]
