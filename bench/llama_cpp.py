"""GGUF files of ours in llama.cpp itself: the same tokens, the same greedy answers, and answers that end by themselves.

    npm install --prefix /tmp/llama node-llama-cpp@3.22.1
    python bench/llama_cpp.py /tmp/llama                                       # a tiny random model of each type
    python bench/llama_cpp.py /tmp/llama results/orders --prompts 20           # a run on conversations

npm brings llama.cpp as prebuilt libraries. Answers are compared with those that this engine serves, in fp32; the tokens of prompts and of
hard texts (spaces, line ends, emoji, Chinese, special tokens) with those of the model's own tokenizer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
LIBRARY = "node_modules/node-llama-cpp/dist/index.js"
FORMATS = ("gguf-f16", "gguf-q8_0")
HARD_TEXTS = (
    "", " ", "  two  spaces ", "a\n\n\nb\r\nc\td", "end \n", " \n x", "x" * 70, "3.14159 and 2,000,000",
    "don't WE'LL", "這是繁體中文，有標點。", "混合 mixed 文字 123", "日本語のテキスト", "한국어", "👩‍👩‍👧 🎉🏽 ✨", "naïve café ﬁ Å",
    "a\u200bb\u00a0c\u3000d", "def f(x):\n    return x ** 2  # ok\n", "<b>html</b> &amp;", '{"a": [1, 2]}',
    "\ud7ff\u0301\u0302", "Ⅷ ½ ² ٣", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|>  two spaces", "Hi <s> there</s>  x",
)  # fmt: skip
# Of tiny models that differ from those of our tests: attention of all earlier tokens, and every fourth layer without positions.
SETTINGS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    "phi3": {"sliding_window": None},
    "smollm3": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
}


@dataclass(frozen=True, slots=True)
class Compared:
    """A final model, prompts as conversations, and the most tokens of an answer."""

    final_model: Path
    bases: Path | None
    conversations: list[Any]
    limit: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("node", type=Path, help="folder with node_modules/node-llama-cpp")
    parser.add_argument(
        "run", type=Path, nargs="?", help="folder of a run of the sample orders; a tiny model of each type without"
    )
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--base-models", type=Path)
    options = parser.parse_args()
    if options.run:
        final_model = options.run / "artifacts/final_model"
        compared = Compared(final_model, options.base_models, held_out_orders(options.prompts), 100)
        compare_formats(options.node, compared, options.run.name)
        return
    from engine.export.gguf_files import ARCHITECTURES
    from testing.language_models import chat_tokenizer, piece_tokenizer

    words = {"byte-level": chat_tokenizer(), "pieces": piece_tokenizer(), "pieces, no space": piece_tokenizer(False)}
    cases: list[tuple[str, str, Any]] = [(family, "byte-level", words["byte-level"]) for family in ARCHITECTURES]
    cases += [("llama", name, words[name]) for name in ("pieces", "pieces, no space")]
    cases += [
        ("gemma", "pieces, no space", words["pieces, no space"]),
        ("phi3", "pieces", piece_tokenizer(strips=True)),
    ]
    for family, name, tokenizer in cases:
        with tempfile.TemporaryDirectory() as folder:
            compared = tiny_model(Path(folder), family, tokenizer, options.prompts)
            compare_formats(options.node, compared, f"{family}, {name}:")


def held_out_orders(count: int) -> list[Any]:
    """Return the first test rows of the sample orders."""
    import polars as pl

    from samples import orders

    return [list(messages) for messages in orders().filter(pl.col("split") == "test")["messages"].to_list()[:count]]


def tiny_model(folder: Path, family: str, tokenizer: Any, prompts: int) -> Compared:
    """Write a random model of a type, with an adapter that changes something."""
    from testing.language_models import build_language_model, make_language_adapter

    base = build_language_model(
        folder / "bases" / ("phi-3" if family == "phi3" else "tiny"),
        family,
        tokenizer=tokenizer,
        **SETTINGS.get(family, {}),
    )
    final_model = folder / "final_model"
    final_model.mkdir()
    make_language_adapter(final_model, base)
    return Compared(final_model, base.parent, held_out_orders(prompts), 24)


def compare_formats(node: Path, compared: Compared, name: str) -> None:
    """Export the model in both formats, let llama.cpp read and answer, and print a line for each."""
    from engine.data.conversations import to_json
    from engine.export import export_model

    texts = [to_json(conversation) for conversation in compared.conversations[:2]]  # the export's own comparison
    for format in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "out"
            export_model(compared.final_model, target, format, base_models_dir=compared.bases, texts=texts)
            print(name, format, compare(node, compared, target / "model.gguf"), flush=True)


def compare(node: Path, compared: Compared, file: Path) -> str:
    """Return how the file in llama.cpp compares with the final model as this engine serves it."""
    from engine.models.chat_template import ChatTemplate
    from engine.models.text_encoding import load_tokenizer
    from engine.serve.answer_grammar import AnswerGrammar

    tokenizer = load_tokenizer(compared.final_model, "the model")
    template = ChatTemplate(tokenizer, "the model")
    prompts = [template.prompt(conversation) for conversation in compared.conversations]
    request = {"model": str(file), "texts": HARD_TEXTS, "prompts": prompts, "limit": compared.limit}
    response = ask_llama_cpp(node, request)
    expected = tokenizer([*HARD_TEXTS, *prompts], add_special_tokens=False)["input_ids"]
    read = [*response["texts"], *(answer["ids"] for answer in response["answers"])]
    for text, ours, theirs in zip([*HARD_TEXTS, *prompts], expected, read, strict=True):
        if ours != theirs:
            print("  other tokens:", *map(tokenizer.convert_ids_to_tokens, (ours, theirs)), repr(text))
    same_tokens = [ours == theirs for ours, theirs in zip(expected, read, strict=True)]
    words = AnswerGrammar(tokenizer, [int(tokenizer.eos_token_id)], len(tokenizer))
    margins = [
        margin(serve(compared, conversation), [words.token_bytes(token) for token in answer["written"]])
        for conversation, answer in zip(compared.conversations, response["answers"], strict=True)
    ]
    differing = [each for each in margins if each is not None and each < float("inf")]
    other_ends = margins.count(float("inf"))
    ended = sum(answer["ended"] for answer in response["answers"])
    release = response["release"]["release"]
    return (
        f"llama.cpp {release}: same tokens of {sum(same_tokens)} of {len(same_tokens)} texts; same answers to "
        f"{margins.count(None)} of {len(margins)} prompts, {other_ends} ended at another token, {ended} by themselves; "
        f"largest margin at the first other token {max(differing, default=0):.3f}"
    )


def margin(served: list[Any], written: list[bytes]) -> float | None:
    """Return None for equal answers, else by how much log-probability our first other token is likelier than llama.cpp's."""
    for ours, token in zip(served, written, strict=False):
        if ours.token != token:
            return float(ours.logprob - dict(ours.top).get(token, float("-inf")))
    return None if len(served) == len(written) else float("inf")  # one of both has ended here


def ask_llama_cpp(node: Path, request: dict[str, Any]) -> Any:
    """Return what llama_cpp.mjs writes."""
    content = json.dumps(request | {"library": str((node / LIBRARY).resolve())})
    script = str(Path(__file__).with_suffix(".mjs"))
    process = subprocess.run(["node", script], input=content, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(process.stderr[-2000:])
    return json.loads(process.stdout)


_generators: dict[Path | None, Any] = {}


def serve(compared: Compared, conversation: list[Any]) -> list[Any]:
    """Return the tokens of this engine's greedy answer to a conversation's last turn, with their log-probabilities."""
    from engine.serve.generator import GenerationRequest, Generator

    generator = _generators.setdefault(compared.bases, Generator(compared.bases, patience=600))
    request = GenerationRequest(
        compared.final_model, conversation[:-1], max_tokens=compared.limit, temperature=0, top_logprobs=20
    )
    return [token for piece in generator.generate(request) for token in piece.logprobs]


if __name__ == "__main__":
    main()
