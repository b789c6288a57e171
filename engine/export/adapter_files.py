"""Copy an adapter as vLLM loads it, or say why vLLM would refuse it or answer otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ExportRefusedError
from engine.models.untrained import SUBTRACTED
from engine.sentences import Sentence, gettext_noop
from engine.serve.model_files import SETTINGS, WEIGHTS

WITHOUT_ADAPTERS = ("gpt2",)  # types whose adapters vLLM does not load


def require_loadable(settings: Mapping[str, Any], model_type: str) -> None:
    """Raise ExportRefusedError for an adapter that vLLM does not load. settings: of PEFT."""
    faults = {
        gettext_noop("it loads no adapters for models of the type {model_type}"): model_type in WITHOUT_ADAPTERS,
        gettext_noop("it does not load DoRA (lora.use_dora)"): bool(settings.get("use_dora")),
        gettext_noop("it does not load modules that were trained in full (lora.modules_to_save)"): bool(
            settings.get("modules_to_save")
        ),
        gettext_noop("it does not load trained biases (lora.bias)"): settings.get("bias", "none") != "none",
        gettext_noop("its initial adapter was subtracted from the base model's weights (lora.init_lora_weights)"): str(
            settings.get("init_lora_weights")
        ).startswith(SUBTRACTED),
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ExportRefusedError(
                Sentence(
                    gettext_noop("vLLM can't serve this adapter: {fault}. Export to safetensors instead."),
                    fault=Sentence(fault, model_type=model_type),
                )
            )


def write_adapter(final_model: Path, folder: Path) -> None:
    """Copy the weights, and write the settings with the keys that vLLM reads, where none is null."""
    shutil.copyfile(final_model / WEIGHTS, folder / WEIGHTS)
    settings: dict[str, Any] = json.loads((final_model / SETTINGS).read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if value not in (None, {}, [])}
    (folder / SETTINGS).write_text(json.dumps(kept, indent=2), encoding="utf-8")
