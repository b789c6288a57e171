"""What transformers and PEFT print while they load models."""

import logging
import warnings


def silence_transformers() -> None:
    """Hide warnings and progress bars of transformers and PEFT while models are loaded.

    They warn of a head that the base model's files lack. Here that is always so: the head is trained, or the adapter has it.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)
    # peft 0.21 reads a transformers attribute that is deprecated; our users can't do anything about it.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
