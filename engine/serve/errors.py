"""What can keep a model from answering.

EngineError
├── ModelUnreadableError      model_unreadable
│   └── ModelTooLargeError    model_too_large
├── PredictionFailedError     prediction_failed
├── WrongInputError           wrong_input
├── PromptRefusedError        prompt_refused
│   └── PromptTooLongError    prompt_too_long
├── ToolsRefusedError         tools_refused
└── BusyError                 busy
"""

from __future__ import annotations

from engine.errors import EngineError


class ModelUnreadableError(EngineError):
    """The folder holds no model that can be loaded. The message says why and names no path of this machine."""

    code = "model_unreadable"


class ModelTooLargeError(ModelUnreadableError):
    """The model alone needs more memory than all models together may take."""

    code = "model_too_large"


class PredictionFailedError(EngineError):
    """The model is loaded, but has no answer to these texts. The message says why, in words for a person."""

    code = "prediction_failed"


class WrongInputError(EngineError):
    """The model takes pairs of texts and got single ones, or the other way round."""

    code = "wrong_input"

    def __init__(self, wants_pairs: bool) -> None:
        super().__init__(f"it was trained on {'pairs of texts' if wants_pairs else 'single texts'}")
        self.wants_pairs = wants_pairs


class PromptRefusedError(EngineError):
    """A language model can't continue this prompt. The message says why, in words for a person."""

    code = "prompt_refused"


class ToolsRefusedError(EngineError):
    """A language model can't be offered these tools. The message says why, in words for a person."""

    code = "tools_refused"


class PromptTooLongError(PromptRefusedError):
    """The prompt leaves the model no room for an answer."""

    code = "prompt_too_long"

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"The prompt has {tokens:,} tokens, and prompt and answer together may have {limit:,}. Shorten the prompt.",
            tokens=tokens,
            limit=limit,
        )


class BusyError(EngineError):
    """There is more to do than can be done soon; `wait` is the number of seconds after which a retry is worthwhile."""

    code = "busy"

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = max(1.0, wait)
