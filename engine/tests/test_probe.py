"""The check before the first step, in whole runs: a model that can't compute batches in its precision falls back or is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DebertaConfig, GPT2Config, LlamaConfig, XLNetConfig

from engine import Notice, StepDone
from engine.data.tokens import Tokens
from engine.errors import BaseModelUnavailableError
from engine.serve.predictor import Predictor
from engine.tests.conftest import metrics_of, run, small
from engine.tests.test_text_encoding import SIZES, WORDS, change_json
from engine.training import probe
from testing.adapters import predict_with_plain_peft
from testing.predictions import predict_labels
from testing.small_models import BERT_SPECIAL, ROBERTA_SPECIAL, save_model, train_bpe, train_wordpiece
from testing.tiny_architectures import build_tiny

XLNET: dict[str, Any] = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "initializer_range": 0.3}
DEBERTA: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 16}
GPT2: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "eos_token_id": 2}


def one_step(name: str, **training: Any) -> Any:
    return small(
        experiment_name="run",
        model={"name": name},
        lora={"layers_to_transform": None},
        training={"max_steps": 1, "precision": "fp32"} | training,
    )


def save_bert_like(folder: Path, config: Any) -> None:
    torch.manual_seed(0)
    save_model(folder, config, train_wordpiece(WORDS), BERT_SPECIAL, "PreTrainedTokenizerFast")


@pytest.mark.slow
def test_model_that_mixes_a_text_with_its_padding_is_refused_before_the_first_step(tweets, tmp_path):
    base = tmp_path / "bases/mobilebert"
    build_tiny(base, "mobilebert")
    # MobileBERT reads the embeddings of a token's neighbours, so the one of padding has to be zero.
    weights = load_file(base / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0] = 3.0
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelUnavailableError, match="mobilebert answers a text in a batch differently") as refused:
        run(one_step("mobilebert"), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    assert refused.value.field == "model.name"


@pytest.mark.slow
def test_model_that_lacks_an_operation_in_bf16_is_trained_in_fp32_with_a_notice(tweets, tmp_path):
    save_bert_like(tmp_path / "bases" / "deberta", DebertaConfig(**SIZES, **DEBERTA))
    fallen, planned = (
        run(one_step("deberta", precision=precision), tweets, tmp_path / precision, base_models_dir=tmp_path / "bases")
        for precision in ("bf16", "fp32")
    )
    (notice,) = [event for event in fallen if isinstance(event, Notice) and event.code == "precision_fallback"]
    assert notice.message.endswith("in bf16, so it is trained in fp32.")
    assert metrics_of(fallen)["system"]["precision"] == "fp32"
    # The same run as one that was configured with fp32, to the last bit.
    losses = [[event.loss for event in events if isinstance(event, StepDone)] for events in (fallen, planned)]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "lora",
    [{}, {"target_modules": "all-linear"}, {"target_modules": "all-linear", "lora_dropout": 0.0}, {"use_dora": True}],
    ids=["query and value", "all linear", "all linear, no dropout", "DoRA"],
)
def test_sample_model_is_trained_in_the_planned_precision(tweets, tmp_path, lora):
    """An error of our own kernels must not be hidden by the fall back to fp32."""
    config = small(lora={"layers_to_transform": None} | lora, training={"max_steps": 1, "eval_strategy": "no"})
    events = run(config, tweets, tmp_path / "run")
    assert "precision_fallback" not in [event.code for event in events if isinstance(event, Notice)]


@pytest.mark.slow
def test_model_that_reads_the_last_position_is_evaluated_and_served_as_its_texts_alone(tweets, tmp_path):
    save_bert_like(tmp_path / "bases" / "xlnet", XLNetConfig(**XLNET))
    events = run(one_step("xlnet"), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    final = tmp_path / "run/artifacts/final_model"
    assert json.loads((final / "lorasite.json").read_text())["padding_side"] == "left"
    texts = [row["text"] for row in metrics_of(events)["worst"]]
    predictor = Predictor(tmp_path / "bases")
    together = [answer.probabilities for answer in predict_labels(predictor, final, texts)]
    alone = [predict_labels(predictor, final, [text])[0].probabilities for text in texts]
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("config", [GPT2Config(**GPT2), LlamaConfig(**SIZES)], ids=["gpt2", "llama"])
def test_decoder_without_a_padding_token_pads_with_the_end_of_text(tweets, tmp_path, config):
    base = tmp_path / "bases" / "decoder"
    torch.manual_seed(0)
    save_model(base, config, train_bpe(WORDS), ROBERTA_SPECIAL, "PreTrainedTokenizerFast")
    change_json(base / "tokenizer_config.json", pad_token=None, sep_token=None, cls_token=None, eos_token="</s>")
    change_json(base / "config.json", pad_token_id=None)
    content = json.loads((base / "tokenizer.json").read_text()) | {"post_processor": None}
    (base / "tokenizer.json").write_text(json.dumps(content))

    run(one_step("decoder"), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    final = tmp_path / "run/artifacts/final_model"
    assert json.loads((final / "lorasite.json").read_text())["padding_id"] == 2
    served = [answer.probabilities for answer in predict_labels(Predictor(tmp_path / "bases"), final, WORDS)]
    assert np.allclose(served, predict_with_plain_peft(final, WORDS, base), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pad_token_id", [3, 0], ids=["unknown-token", "class-default"])
def test_padding_id_of_config_json_that_is_not_the_tokenizers_is_ignored(tweets, tmp_path, pad_token_id):
    base = tmp_path / "bases" / "decoder"
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, initializer_range=0.3)
    save_model(base, config, train_bpe(WORDS), ROBERTA_SPECIAL, "PreTrainedTokenizerFast")
    change_json(base / "config.json", pad_token_id=pad_token_id)

    events = run(one_step("decoder"), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    final = tmp_path / "run/artifacts/final_model"
    assert json.loads((final / "lorasite.json").read_text())["padding_id"] == 1
    worst = metrics_of(events)["worst"]
    predictor = Predictor(tmp_path / "bases")
    together = predict_labels(predictor, final, [row["text"] for row in worst])
    for row, answer in zip(worst, together, strict=True):
        evaluated = row["probability"]
        alone = predict_labels(predictor, final, [row["text"]])[0]
        assert max(answer.probabilities) == pytest.approx(evaluated, abs=1e-5)
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-5)


@pytest.mark.slow
def test_what_the_encoding_does_is_told_by_notices_and_in_metrics_json(tweets, tmp_path):
    save_bert_like(tmp_path / "bases" / "narrow", XLNetConfig(**XLNET))
    change_json(tmp_path / "bases/narrow/tokenizer_config.json", model_max_length=16, truncation_side="left")
    events = run(one_step("narrow"), tweets, tmp_path / "run", base_models_dir=tmp_path / "bases")
    codes = {event.code for event in events if isinstance(event, Notice)}
    assert {"max_length_lowered", "unknown_tokens"} <= codes
    data = json.loads((tmp_path / "run/metrics.json").read_text())["data"]
    assert (data["max_length"], data["truncation_side"], data["padding_side"]) == (16, "left", "left")
    assert 0.2 < data["unknown_token_share"] <= 1


class Bags(nn.Module):
    """Answers a batch by the sum of its texts' embeddings, after dropout, times `factor`; counts padding if `reads_padding`."""

    def __init__(self, factor: float = 1.0, reads_padding: bool = False) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(10, 3)
        self.dropout = nn.Dropout(0.5)
        self.factor = factor
        self.reads_padding = reads_padding

    def logits(self, tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        ids, mask = (torch.from_numpy(array) for array in tokens.padded(rows, 0))
        hidden = self.dropout(self.embeddings(ids)) * self.factor
        return hidden.sum(1) if self.reads_padding else (hidden * mask[:, :, None]).sum(1)


TOKENS = Tokens(np.arange(1, 10, dtype=np.int32), np.array([0, 2, 2, 9]), truncated=0)  # the second text is empty


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (Bags(), None),
        (Bags(reads_padding=True), "answers a text in a batch differently"),
        (Bags(factor=float("nan")), "not finite"),
    ],
    ids=["good", "reads-padding", "nan"],
)
def test_probe_finds_what_is_wrong(model, fault):
    actual = probe.find_fault(model, model.logits, TOKENS, torch.float32)
    assert actual is None if fault is None else fault in str(actual)


def test_probe_leaves_random_numbers_gradients_and_mode_as_they_were():
    model = Bags().eval()
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    probe.find_fault(model, model.logits, TOKENS, torch.float32)
    assert torch.equal(torch.rand(4), expected)
    assert model.embeddings.weight.grad is None and not model.training


def test_probe_passes_on_that_memory_ran_out():
    def logits(tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        probe.find_fault(Bags(), logits, TOKENS, torch.float32)


def test_probe_texts_are_short_and_keep_both_ends():
    long = np.arange(200, dtype=np.int32)
    tokens = Tokens(np.concatenate([long, long]), np.array([0, 200, 400]), truncated=0)
    short, whole, both = probe.probe_texts(tokens)
    assert (short.longest, whole.longest, both.lengths.tolist()) == (32, 64, [32, 64])
    assert whole.ids[[0, 31, 32, 63]].tolist() == [0, 31, 168, 199]


def test_probe_texts_keep_every_special_token():
    pair = np.array([0, *range(10, 50), 2, 2, *range(60, 110), 2], dtype=np.int32)
    short, long, _both = probe.probe_texts(Tokens(np.concatenate([pair, pair]), np.array([0, 94, 188]), 0), [0, 2])
    for text, length in ((short, 32), (long, 64)):
        assert text.ids[[0, -1]].tolist() == [0, 2] and (text.ids == 2).sum() == 3 and text.longest == length
    only_special, _long, _both = probe.probe_texts(Tokens(np.array([0, 7, 2, 2, 2]), np.array([0, 5]), 0), [0, 2])
    assert only_special.ids.tolist() == [0, 2, 2, 2]
