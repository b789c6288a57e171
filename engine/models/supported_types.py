"""Say by its config.json alone whether a base model can be trained, before anything is queued or loaded.

Imports neither torch nor transformers. bench/architectures.py trains a tiny model of every type that is listed here;
engine/tests/test_supported_types.py keeps the lists equal to those of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import BaseModelUnavailableError
from engine.sentences import Sentence, gettext_noop
from engine.task_types import HeadKind

# Model types, as config.json names them: those that can be trained with both kinds of heads, and with one of them only.
WITH_BOTH_HEADS = """
    albert arcee axk1 bert big_bird biogpt bloom camembert data2vec-text deberta deberta-v2 deepseek_v3 diffllama distilbert
    electra ernie esm esmc eurobert exaone4 falcon flaubert gemma gemma2 glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox
    gpt_oss gte helium jina_embeddings_v3 layoutlm layoutlmv3 lilt llama longformer luke markuplm megatron-bert minimax ministral
    ministral3 mistral mistral4 mixtral mobilebert modernbert modernvbert mpnet mpt mt5 nemotron nomic_bert persimmon phi phi3
    qwen2 qwen2_moe qwen3 qwen3_5 qwen3_moe qwen3_next rembert roberta roberta-prelayernorm roc_bert roformer seed_oss smollm3
    squeezebert stablelm starcoder2 t5 ultrabert ultravbert umt5 xlm xlm-roberta xlm-roberta-xl xlnet xmod
"""
WITH_SEQUENCE_HEAD = """
    bart bigbird_pegasus cohere_compass_text ctrl deepseek_v2 doge gemma3 gemma3_text gptj hunyuan_v1_dense hunyuan_v1_moe jamba
    jetmoe mbart minicpm3 modernbert-decoder mvp olmo olmo2 olmo3 openai-gpt opt phimoe plbart qwen3_5_text
"""
WITH_ENTITY_HEAD = "apertus openai_privacy_filter"
# Language models whose packed conversations were compared with single ones (engine/tests/test_causal.py).
GENERATING = "gemma gemma2 gemma3_text gpt2 llama mistral phi phi3 qwen2 qwen3 smollm3"
TRAINABLE: dict[HeadKind, frozenset[str]] = {
    "sequence": frozenset(WITH_BOTH_HEADS.split()) | frozenset(WITH_SEQUENCE_HEAD.split()),
    "token": frozenset(WITH_BOTH_HEADS.split()) | frozenset(WITH_ENTITY_HEAD.split()),
    "causal": frozenset(GENERATING.split()),
}

READS_PADDING = gettext_noop("it mixes a text with its padding, so a text would get other answers beside longer ones")
SHARES_LAYERS = gettext_noop(
    "several of its layers share their weights, so an adapter for each can't be merged into them"
)
READS_ONE_LATE = gettext_noop("transformers takes its answers from a decoder that is one token late")
# Types that have a head, and why they can't be trained with it.
REFUSED: dict[str, str] = {
    "axk2": gettext_noop(
        "the tokens that its attention selects depend on the padding, so a text would get other answers beside longer ones"
    ),
    "bros": gettext_noop("it needs the place of each word on a page, which texts alone don't have"),
    "canine": gettext_noop("it reads characters in groups and fails on short texts"),
    "convbert": READS_PADDING,
    "fnet": READS_PADDING,
    "funnel": READS_PADDING,
    "ibert": gettext_noop("its linear layers are of a kind that LoRA can't adapt"),
    "layoutlmv2": gettext_noop("it needs the image of a page, which texts alone don't have"),
    "mra": gettext_noop("its attention needs a CUDA kernel that transformers does not bring along"),
    "nystromformer": READS_PADDING,
    "perceiver": gettext_noop("transformers makes part of its decoder anew, which LoRA would leave random"),
    "qwen3_asr": gettext_noop("it needs speech, which texts don't have"),
    "reformer": gettext_noop("it trains on texts of one fixed length only"),
    "t5gemma": READS_ONE_LATE,
    "t5gemma2": READS_ONE_LATE,
    "tapas": gettext_noop("it needs tables, which texts alone don't have"),
    "yoso": READS_PADDING,
    "zamba": SHARES_LAYERS,
    "zamba2": SHARES_LAYERS,
}
HEAD_NAMES: dict[HeadKind, str] = {
    "sequence": gettext_noop("sequence classification"),
    "token": gettext_noop("token classification"),
}
ABILITIES: dict[HeadKind, str] = {
    "sequence": gettext_noop("classify texts"),
    "token": gettext_noop("find entities"),
    "causal": gettext_noop("be trained as a language model"),
}
ADVICE: dict[HeadKind, str] = {
    "sequence": gettext_noop("Choose a text model such as BERT, RoBERTa or Qwen."),
    "token": gettext_noop("Choose a text model such as BERT, RoBERTa or Qwen."),
    "causal": gettext_noop("Choose a language model such as SmolLM2, Qwen or Llama."),
}
# Frozen weights that are stored so are trained and served like any others.
KNOWN_QUANTIZATIONS = {"bitsandbytes", "mxfp4"}


def check_type(config: Mapping[str, Any], name: str, head: HeadKind, is_complete: bool = True) -> None:
    """Raise BaseModelUnavailableError unless a model can be trained with this kind of head.

    config: the content of its config.json, or if not `is_complete`, what the hub tells of it. name: what the error calls it.
    """
    reason = find_reason(config, head, is_complete)
    if reason is not None:
        raise BaseModelUnavailableError(
            Sentence(
                gettext_noop("The base model {name} can't {ability}: {reason}. {advice}"),
                name=name,
                ability=Sentence(ABILITIES[head]),
                reason=reason,
                advice=Sentence(ADVICE[head]),
            ),
            field="model.name",
        )


def find_reason(config: Mapping[str, Any], head: HeadKind, is_complete: bool = True) -> str | None:
    """Return why a model can't be trained with this kind of head, as a part of a sentence; None if it can."""
    model_type = str(config.get("model_type"))
    if model_type in REFUSED:
        return Sentence(
            gettext_noop("its type is {model_type}, and {fault}"),
            model_type=model_type,
            fault=Sentence(REFUSED[model_type]),
        )
    if head == "causal" and model_type not in TRAINABLE[head]:
        return Sentence(
            gettext_noop("its type is {model_type}, and those that are covered are {types}"),
            model_type=model_type,
            types=", ".join(sorted(TRAINABLE[head])),
        )
    if model_type not in TRAINABLE[head]:
        return Sentence(
            gettext_noop("transformers has no {head} for its type, {model_type}"),
            head=Sentence(HEAD_NAMES[head]),
            model_type=model_type,
        )
    return _reason_of_settings(model_type, config, is_complete)


def heads_of(config: Mapping[str, Any], is_complete: bool = True) -> tuple[HeadKind, ...]:
    """Return the kinds of heads that a model can be trained with; none without a type. The arguments are those of `check_type`."""
    if "model_type" not in config:
        return ()
    return tuple(head for head in TRAINABLE if find_reason(config, head, is_complete) is None)


def _reason_of_settings(model_type: str, config: Mapping[str, Any], is_complete: bool) -> str | None:
    """Return why a model of a type that can be trained can't; None if it can."""
    if model_type == "xmod" and is_complete and config.get("default_language") is None:
        return Sentence(
            gettext_noop("its config.json has no default_language, by which it chooses the language of texts")
        )
    if model_type == "falcon" and config.get("alibi"):
        return Sentence(
            gettext_noop(
                "transformers computes its attention (alibi) in two ways, so its answers would change when it is served"
            )
        )
    if model_type == "flaubert" and config.get("pre_norm"):
        return Sentence(gettext_noop("transformers fails to compute it with pre_norm"))
    quantization = config.get("quantization_config")
    if isinstance(quantization, Mapping):
        method = str(quantization.get("quant_method", "unknown"))
        if method not in KNOWN_QUANTIZATIONS:
            return Sentence(
                gettext_noop("its weights are stored quantized ({method}); use the model that they were made from"),
                method=method,
            )
    return None
