"""Build tiny, randomly initialised language models with a chat template, and conversations for them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from samples import orders

from .chat_templates import CHATML, SPECIAL_TOKENS

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
GROUPED: dict[str, Any] = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
GPT_2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.1}
# By model type, as config.json names it.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED | {"tie_word_embeddings": True},
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "mistral": GROUPED | {"sliding_window": 24},
    "gemma": GROUPED,
    "gemma2": GROUPED | {"sliding_window": 24, "query_pre_attn_scalar": 8},
    "gemma3_text": GROUPED | {"sliding_window": 24, "query_pre_attn_scalar": 8},
    "phi": SIZES | {"num_key_value_heads": 4},
    "phi3": GROUPED | {"sliding_window": 24},
    "smollm3": GROUPED | {"no_rope_layers": [1, 0]},
    "gpt2": GPT_2,
}


@cache
def _tokenizer_json() -> str:
    """Return a byte-level tokenizer of a few hundred tokens, as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "</s>", "<pad>", *SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [message["content"] for row in orders()["messages"].to_list()[:200] for message in row]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def chat_tokenizer(template: str | None = CHATML, **options: Any) -> Any:
    """Return a tokenizer with a chat template. options: of the tokenizer."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "model_max_length": 512} | options
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_tokenizer_json()), **settings)
    tokenizer.chat_template = template
    return tokenizer


def piece_tokenizer(adds_space: bool = True, strips: bool = False) -> Any:
    """Return a tokenizer as SentencePiece makes them: pieces, bytes for other characters, and perhaps a space before each text.

    strips: whether spaces behind special tokens are lost, as those of Phi-3 are.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<pad>", *SPECIAL_TOKENS]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    texts = [message["content"] for row in orders()["messages"].to_list()[:200] for message in row]
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    made = list(dict.fromkeys(left + right for left, right in learned["merges"]))
    characters = [token for token in learned["vocab"] if len(token) == 1]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *characters, *made]
    vocab = {token: number for number, token in enumerate(tokens)}
    splits = [(token[:at], token[at:]) for token in made for at in range(1, len(token))]
    merges = [(left, right) for left, right in splits if left in vocab and right in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if adds_space else spaces
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if adds_space else []),
        ]
    )
    kept = ("<unk>", "<s>", "<|endoftext|>")
    tokenizer.add_special_tokens([AddedToken(token, rstrip=strips and token not in kept) for token in special])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)
    fast.chat_template = CHATML
    return fast


def build_language_model(
    folder: Path, model_type: str = "llama", template: str | None = CHATML, tokenizer: Any = None, **settings: Any
) -> Path:
    """Write a tiny language model with random weights and its tokenizer; return the folder. settings: of config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tokenizer or chat_tokenizer(template)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        **FAMILIES[model_type] | settings,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def conversation(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Return a conversation of a user and an assistant, who take turns."""
    turns = [{"role": "system", "content": system}] if system is not None else []
    return turns + [
        {"role": "assistant" if index % 2 else "user", "content": content} for index, content in enumerate(contents)
    ]


def write_conversations(path: Path, conversations: list[list[dict[str, Any]]], splits: list[str] | None = None) -> Path:
    """Write conversations as OpenAI's JSONL; return the path."""
    rows: list[dict[str, Any]] = [{"messages": messages} for messages in conversations]
    if splits is not None:
        rows = [row | {"split": split} for row, split in zip(rows, splits, strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def make_language_adapter(folder: Path, base: Path, seed: int = 1, **lora: Any) -> Path:
    """Fill a final_model folder with a random adapter over the language model in `base`, as a training leaves it.

    lora: arguments of PEFT's LoraConfig.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | lora
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type=TaskType.CAUSAL_LM, **settings)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # PEFT starts B at zero, and the adapter would do nothing
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    info = {"task": "causal_lm", "labels": [], "base_model": base.name, "max_length": 256, "end_of_turn": "<|im_end|>"}
    (folder / "lorasite.json").write_text(json.dumps(info))
    return folder
