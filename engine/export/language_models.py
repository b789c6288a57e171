"""Write a language model to a new folder in another format, load it again and compare it, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.devices import DevicePlan
from engine.export.adapter_files import require_loadable, write_adapter
from engine.export.compared_prompts import ComparedConversations, choose_conversations
from engine.export.gguf_files import GGUF_FILE, require_exact, write_gguf
from engine.export.gguf_reading import READ_HERE, load_written_gguf
from engine.export.gguf_tokenizer import (
    PIECES,
    READ_BY_TRANSFORMERS,
    GgufTokenizer,
    is_called_phi3,
    name_of_words,
    read_tokenizer_json,
)
from engine.export.language_comparison import (
    LIMITS,
    LanguageModelCheck,
    compare_measured,
    measure,
    require_close,
)
from engine.export.modelfile import modelfile
from engine.export.readme import describe_export
from engine.models.base_models import resolve
from engine.models.chat_template import ChatTemplate
from engine.models.loading import attach_adapter, load_language_model
from engine.models.text_encoding import load_config, load_gguf_tokenizer, load_tokenizer
from engine.serve.model_files import SETTINGS, WEIGHTS, ModelInfo, read_settings, require_base_weights
from engine.storage import MANIFEST, write_folder, write_json

if TYPE_CHECKING:
    from engine.export import Format, ReportProgress

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "sdpa", fused_encoder=False, threads=1)
NOT_COPIED = {WEIGHTS, SETTINGS, MANIFEST, "README.md"}
THIS_MODEL = "the model"


def write_language_model(
    final_model: Path,
    target: Path,
    format: Format,
    base_models_dir: Path | None,
    info: ModelInfo,
    texts: Sequence[str] | None,
    training_texts: Sequence[str],
    report_progress: ReportProgress,
) -> LanguageModelCheck:
    """See engine.export.export_model; info: of the final model."""
    base = resolve(info.base_model, base_models_dir, info.revision)
    require_base_weights(info, base)
    tokenizer = load_tokenizer(final_model, THIS_MODEL)
    config: Any = load_config(base, info.base_model)
    template = ChatTemplate(tokenizer, THIS_MODEL)
    compared = choose_conversations(template, info, texts, training_texts)
    settings = read_settings(final_model)
    if format == "peft":
        require_loadable(settings, config.model_type)
    if format.startswith("gguf"):
        require_exact(config)
        GgufTokenizer.describe(tokenizer, final_model, info.base_model, config.vocab_size, compared.end_id)

    tuned = attach_adapter(load_language_model(base, info.base_model, PLAN), final_model).eval()
    expected = measure(tuned, compared, lambda done, total: report_progress("comparing", done, 2 * total))
    merged: Any = tuned.merge_and_unload()
    merged.generation_config.eos_token_id = compared.end_id
    checks: list[LanguageModelCheck] = []

    def fill(draft: Path) -> None:
        report_progress("writing")
        write_files(merged, final_model, draft, format, compared, info)
        merged.to("meta")  # loading the files again must not need more memory
        exported, equal_tokens = load_written(draft, final_model, format, base, info, compared)
        actual = measure(exported, compared, lambda done, total: report_progress("comparing", total + done, 2 * total))
        check = compare_measured(expected, actual, format, equal_tokens, compared.counts)
        require_close(check)
        packages = ["torch", "transformers", "peft", *(["gguf"] if format.startswith("gguf") else [])]
        limits = LIMITS[format]._asdict()
        write_json(draft / "export.json", describe_export(final_model, info, check, packages, limits))
        (draft / "README.md").write_text(readme(info, check, int(settings["r"])), encoding="utf-8")
        checks.append(check)

    write_folder(target, fill)
    return checks[0]


def write_files(
    merged: Any, final_model: Path, folder: Path, format: Format, compared: ComparedConversations, info: ModelInfo
) -> None:
    """Write the weights in a format; tokenizer and lorasite.json are copied, but for GGUF, which has the tokenizer inside."""
    if format.startswith("gguf"):
        config = merged.config
        tokenizer = GgufTokenizer.describe(
            compared.template.tokenizer, final_model, info.base_model, config.vocab_size, compared.end_id
        )
        # Of what is called Phi-3, llama.cpp expects the special tokens of Phi-3, which byte-level tokenizers lack.
        hides_name = is_called_phi3(info.base_model) and tokenizer.words != PIECES
        write_gguf(merged, folder / GGUF_FILE, "model" if hides_name else info.base_model, tokenizer, format)
        end_token = tokenizer.tokens[compared.end_id]
        (folder / "Modelfile").write_text(modelfile(compared.template, end_token, GGUF_FILE), encoding="utf-8")
        return
    for path in final_model.iterdir():
        if path.is_file() and path.name not in NOT_COPIED and not path.name.startswith("."):
            shutil.copyfile(path, folder / path.name)
    if format == "peft":
        write_adapter(final_model, folder)
    else:
        merged.save_pretrained(folder)


def load_written(
    folder: Path, final_model: Path, format: Format, base: Path, info: ModelInfo, compared: ComparedConversations
) -> tuple[Any, float | None]:
    """Return the model in an exported folder, and the share of conversations that its tokenizer reads as before, if that is known."""
    if format.startswith("gguf"):
        words = name_of_words(read_tokenizer_json(final_model), info.base_model)
        config = load_config(base, info.base_model)
        is_read = words in READ_BY_TRANSFORMERS and config.model_type not in READ_HERE
        equal = share_of_equal_tokens(load_gguf_tokenizer(folder, GGUF_FILE), compared) if is_read else None
        return load_written_gguf(folder, config).eval(), equal
    loaders: dict[str, Callable[[], Any]] = {
        "peft": lambda: attach_adapter(load_language_model(base, info.base_model, PLAN), folder),
        "safetensors": lambda: load_language_model(folder, "the exported model", PLAN),
    }
    return loaders[format]().eval(), share_of_equal_tokens(load_tokenizer(folder, "the exported model"), compared)


def share_of_equal_tokens(tokenizer: Any, compared: ComparedConversations) -> float:
    """Return the share of conversations that a tokenizer reads as the tokens of the model."""
    texts = [compared.template.render_answers(each).text for each in compared.conversations]
    expected = compared.template.tokenizer(texts, add_special_tokens=False)["input_ids"]
    actual = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return sum(one == other for one, other in zip(expected, actual, strict=True)) / len(texts)


PROGRAMS = {
    "safetensors": """```python
from transformers import pipeline

answer = pipeline("text-generation", model=".")
print(answer([{"role": "user", "content": "…"}], max_new_tokens=200)[0]["generated_text"][-1]["content"])
```
""",
    "gguf": """```sh
ollama create my-model -f Modelfile && ollama run my-model
llama-server -m model.gguf --jinja  # llama.cpp
```
""",
    "peft": """```sh
vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules my-model=.
```
""",
}


def readme(info: ModelInfo, check: LanguageModelCheck, rank: int) -> str:
    """Return the README.md of an export: what it is, how it was compared, and how to use it."""
    merged = "" if check.format == "peft" else ", which is merged into the weights"
    program = PROGRAMS[check.format.partition("-")[0]].replace("{base}", info.base_model).replace("{rank}", str(rank))
    return (
        f"# Language model, {check.format}\n\nExported from an adapter over `{info.base_model}`{merged}. {check.sentence} "
        f"export.json has these figures.\n\n{program}"
    )
