"""The words of the training form: what each setting is called, and when to change it. What it does is in `engine.config`."""

from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from web.errors import LorasiteError


class FieldWords(NamedTuple):
    """The label of a setting, and what stands after the sentence that says what it does."""

    title: str | Promise
    advice: str | Promise = ""


FIELD_WORDS = {
    "experiment_name": FieldWords(_("Experiment")),
    "task": FieldWords(_("Task type")),
    "model.name": FieldWords(_("Base model")),
    "model.num_labels": FieldWords(
        _("Number of labels"), _("Leave it empty; a number that differs from the data is refused.")
    ),
    "model.revision": FieldWords(_("Revision"), _("Set it to get exactly the same base model again later.")),
    "model.load_in_8bit": FieldWords(_("Load in 8 bits"), _("Turn it on if the base model does not fit into memory.")),
    "model.load_in_4bit": FieldWords(_("Load in 4 bits"), _("Turn it on if 8 bits do not fit either.")),
    "model.chat_template": FieldWords(
        _("Chat template"), _("Choose the one that the programs expect in which the model will be used.")
    ),
    "lora.r": FieldWords(
        _("LoRA rank (r)"), _("A higher rank can learn more, and takes more memory. 4 to 64 are usual.")
    ),
    "lora.lora_alpha": FieldWords(_("LoRA alpha"), _("Usually once or twice the rank; change both together.")),
    "lora.lora_dropout": FieldWords(
        _("LoRA dropout"), _("Raise it to 0.05 or 0.1 if the evaluation loss rises while the training loss falls.")
    ),
    "lora.target_modules": FieldWords(
        _("Layers to adapt"), _("all-linear often scores higher and takes longer. Separate names with commas.")
    ),
    "lora.layers_to_transform": FieldWords(
        _("Layer indexes"), _("Fewer layers train faster; the last ones matter most. Separate numbers with commas.")
    ),
    "lora.modules_to_save": FieldWords(_("Modules to train in full"), _("Rarely needed, and the model gets larger.")),
    "lora.bias": FieldWords(_("Bias"), _("none is usual.")),
    "lora.use_rslora": FieldWords(_("Rank-stabilized LoRA"), _("Turn it on for ranks of 64 and more.")),
    "lora.use_dora": FieldWords(_("DoRA"), _("Can score higher at low ranks.")),
    "lora.init_lora_weights": FieldWords(
        _("Initialization"), _("default is usual; pissa and olora can learn in fewer steps.")
    ),
    "lora.loraplus_lr_ratio": FieldWords(_("LoRA+ ratio"), _("4 to 16 are usual. Empty: one rate for both.")),
    "data.dataset_name": FieldWords(_("Dataset")),
    "data.dataset_config": FieldWords(_("Subset of the hub dataset"), _("Only for a dataset on the hub.")),
    "data.text_column": FieldWords(_("Text column"), _("Only for a dataset on the hub.")),
    "data.text_pair_column": FieldWords(_("Second text column"), _("Only for a dataset on the hub.")),
    "data.label_column": FieldWords(_("Label column"), _("Only for a dataset on the hub.")),
    "data.split_column": FieldWords(_("Split column"), _("Only for a dataset on the hub.")),
    "data.train_samples": FieldWords(_("Training rows at most"), _("Set it for a quick try; 2,000 rows show a trend.")),
    "data.eval_samples": FieldWords(
        _("Evaluation rows at most"), _("Set it if evaluations take long; below 500 rows scores are coarse.")
    ),
    "data.eval_fraction": FieldWords(_("Held-out fraction"), _("0.1 to 0.2 are usual; more for small datasets.")),
    "data.max_length": FieldWords(
        _("Longest text (tokens)"),
        _(
            "Longer texts are truncated. 128 tokens are roughly 90 English words or 100 Chinese characters; "
            "twice the length takes twice the time or more."
        ),
    ),
    "data.truncation": FieldWords(_("Texts that are too long"), _("Refuse if the end of a text decides its label.")),
    "data.validation_rules": FieldWords(_("Rules for findings"), _("Example: {exact_duplicate: error}.")),
    "training.learning_rate": FieldWords(
        _("Learning rate"),
        _(
            "0.0001 to 0.001 are usual with LoRA. Lower it if the loss rises or jumps, raise it if the loss hardly falls."
        ),
    ),
    "training.per_device_train_batch_size": FieldWords(
        _("Batch size"), _("8 to 64 are usual. Lower it if memory runs out.")
    ),
    "training.per_device_eval_batch_size": FieldWords(
        _("Batch size of evaluations"), _("Does not change the result. Lower it if memory runs out.")
    ),
    "training.gradient_accumulation_steps": FieldWords(
        _("Gradient accumulation"), _("Raise it to get a large batch with little memory; 1 is fastest.")
    ),
    "training.num_train_epochs": FieldWords(
        _("Epochs"), _("2 to 5 are usual; small datasets need more. Lower it if the evaluation loss rises at the end.")
    ),
    "training.max_steps": FieldWords(_("Steps at most"), _("Empty: as many as the epochs take.")),
    "training.warmup_ratio": FieldWords(_("Warm-up fraction"), _("0 to 0.1 are usual; raise it if the loss jumps.")),
    "training.lr_scheduler_type": FieldWords(_("Learning rate schedule"), _("linear and cosine are usual.")),
    "training.weight_decay": FieldWords(_("Weight decay"), _("0 to 0.1 are usual; raise it against overfitting.")),
    "training.max_grad_norm": FieldWords(_("Gradient clipping"), _("1 is usual.")),
    "training.label_smoothing_factor": FieldWords(
        _("Label smoothing"), _("0.05 to 0.1 help if some labels are wrong; probabilities become less extreme.")
    ),
    "training.class_weights": FieldWords(
        _("Label weights"), _("Use balanced if a rare label matters as much as a frequent one.")
    ),
    "training.loss": FieldWords(_("Loss")),
    "training.focal_gamma": FieldWords(_("Focal loss: gamma"), _("1 to 3 are usual.")),
    "training.huber_delta": FieldWords(_("Huber loss: delta"), _("1 is usual.")),
    "training.dpo_beta": FieldWords(_("Preferences: beta"), _("0.05 to 0.5 are usual.")),
    "training.label_smoothing": FieldWords(
        _("Preferences: label smoothing"), _("0.1 helps if some choices are wrong; 0 is usual.")
    ),
    "training.rpo_alpha": FieldWords(
        _("Preferences: weight of the chosen answer"), _("1 helps if answers get worse although their margin grows.")
    ),
    "training.eval_strategy": FieldWords(_("Evaluate"), _("Choose steps if an epoch takes very long.")),
    "training.eval_steps": FieldWords(_("Steps between evaluations"), _("50 to 500 are usual.")),
    "training.save_strategy": FieldWords(_("Save checkpoints"), _("no saves time and disk space.")),
    "training.save_steps": FieldWords(_("Steps between checkpoints"), _("50 to 500 are usual.")),
    "training.logging_steps": FieldWords(_("Steps between points of the curves"), _("1 to 50 are usual.")),
    "training.metric_for_best_model": FieldWords(
        _("Metric of the best checkpoint"), _("Use macro_f1 if the labels are imbalanced.")
    ),
    "training.early_stopping_patience": FieldWords(_("Early stopping"), _("2 or 3 end a run that no longer improves.")),
    "training.device": FieldWords(_("Device")),
    "training.precision": FieldWords(_("Precision"), _("Use fp32 to compare runs across machines.")),
    "training.seed": FieldWords(_("Seed"), _("Train with several seeds to see how much of a difference is chance.")),
    "training.deterministic": FieldWords(_("Deterministic"), _("Turn it on to get the same numbers on the same GPU.")),
    "system.num_threads": FieldWords(_("CPU threads"), _("Lower it to leave cores for other programs.")),
    "system.baseline": FieldWords(_("Train a baseline"), _("Takes seconds, and shows what the model adds.")),
    "system.forgetting_check": FieldWords(
        _("Check what is forgotten"), _("Takes seconds, and shows whether the model still writes ordinary sentences.")
    ),
}
# Settings of language models that are called otherwise than those of classifiers.
OF_CONVERSATIONS = {
    "data.max_length": FieldWords(
        _("Longest conversation (tokens)"),
        _(
            "Longer conversations are left out, so that no answer is cut; plain texts are read in windows of this length. "
            "1,024 tokens are roughly 750 English words."
        ),
    ),
    "data.truncation": FieldWords(
        _("Conversations that are too long"), _("truncate leaves them out; refuse ends the run.")
    ),
}
# By task type, the settings that are called otherwise there.
WORDS_BY_TASK = {
    "causal_lm": OF_CONVERSATIONS
    | {
        "training.per_device_train_batch_size": FieldWords(
            _("Batch size"), _("Conversations of a step. 8 to 32 are usual. Lower it if memory runs out.")
        ),
        "training.metric_for_best_model": FieldWords(
            _("Metric of the best checkpoint"), _("Use exact_match if only the exact answer is of use.")
        ),
    },
    "preference": OF_CONVERSATIONS
    | {
        "training.per_device_train_batch_size": FieldWords(
            _("Batch size"), _("Pairs of a step. 4 to 16 are usual. Lower it if memory runs out.")
        ),
    },
}


def with_labels(error: LorasiteError) -> LorasiteError:
    """Give each problem the label of its field as `title`, in place of the key that the engine's sentence begins with."""
    for problem in error.problems:
        sentence, key = str(problem["message"]), f"{problem['field']}: "
        if problem["field"] in FIELD_WORDS and sentence.startswith(key):
            rest = sentence.removeprefix(key)
            problem |= {"title": FIELD_WORDS[problem["field"]].title, "message": rest[:1].upper() + rest[1:]}
    return error
