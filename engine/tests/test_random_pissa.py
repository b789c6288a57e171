"""An adapter that starts from a randomised SVD is saved as plain LoRA, which answers equally each time it is loaded."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from engine.models.loading import attach_adapter
from engine.models.random_pissa import convert_to_plain_lora, initial_pairs
from engine.tests.conftest import metrics_of
from engine.tests.test_module_names import adapted, trained
from engine.training.checkpoint import save_adapter
from samples import base_model_path


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True])
def test_randomised_pissa_is_saved_as_plain_lora_that_answers_as_it_was_trained(
    bases, tweets, tmp_path, rslora
) -> None:
    """The trained model is compared by verify(); here plain PEFT loads twice and has to give the reported loss."""
    events, folder = trained(
        bases, tweets, tmp_path / "run", init_lora_weights="pissa_niter_16", use_rslora=rslora, r=4
    )
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["r"] == 8 and settings["init_lora_weights"] is True
    inputs = AutoTokenizer.from_pretrained(base_model_path())("what a lovely day", return_tensors="pt")
    logits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(
            bases / "tiny", num_labels=3, ignore_mismatched_sizes=True
        )
        with torch.inference_mode():
            logits.append(attach_adapter(base, folder).eval()(**inputs).logits)
    assert torch.equal(*logits) and metrics_of(events)["train"]["steps"] == 2


@pytest.mark.medium
def test_converted_pissa_is_the_trained_model(bases: Path, tmp_path: Path) -> None:
    model = adapted(bases / "tiny", init_lora_weights="pissa_niter_16", r=4).eval()
    initial = initial_pairs(model)
    assert initial and not initial_pairs(adapted(bases / "tiny", init_lora_weights="pissa"))
    with torch.no_grad():  # as if trained
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    (tmp_path / "model").mkdir()
    save_adapter(model, tmp_path / "model")
    convert_to_plain_lora(tmp_path / "model", initial)
    base = AutoModelForSequenceClassification.from_pretrained(bases / "tiny", num_labels=2)
    inputs = {"input_ids": torch.arange(12)[None] + 1000}
    with torch.inference_mode():
        torch.testing.assert_close(
            attach_adapter(base, tmp_path / "model").eval()(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=0
        )
