"""Count the tokens of a version with a base model, at once or by a task."""

from django.db import transaction

from accounts.models import User
from audit.services import record
from datasets_app import tasks
from datasets_app.checks import text_statistics
from datasets_app.models import DataTask, Version
from engine.models.plain_templates import USUAL, PlainTemplate


def count_tokens(*, user: User, version: Version, model: str, chat_template: PlainTemplate = USUAL) -> DataTask | None:
    """Count the tokens of a small version and return None; of a large one return the task that counts them.

    Raises BaseModelUnavailableError.
    """
    if version.rows > text_statistics.AT_ONCE or version.is_chat:  # a chat template takes longer
        return tasks.submit(
            user=user,
            kind=DataTask.Kind.TOKENS,
            name=version.dataset.name,
            version=version,
            arguments={"base_model": model, "chat_template": chat_template},
        )
    lengths = text_statistics.count_tokens(version, model, chat_template)
    with transaction.atomic():
        text_statistics.save_token_lengths(version, model, lengths, chat_template)
        record("dataset.tokens", user=user, obj=version, base_model=model)
    return None
