"""Does training in int8 end where plain fp32 ends? Compares evaluation losses of this engine and of transformers with PEFT.

    python bench/equal_losses.py [--seeds 3] [--steps 12] [--rows 50] [--rate 0.002] [--data orders|tweets-en]

Both train the sample language model, from the same adapter, with the same batches, rates and AdamW: on the sample orders, of which nearly
nothing is left to learn after a dozen steps, or on the texts of the sample tweets, which stay hard to foresee. The plain side pads
batches, computes all in fp32 and has none of our code in its steps. It trains twice, the second time with the rows of each batch
reversed, so that sums are rounded otherwise: what that changes is chance. All adapters are evaluated by the plain side in fp32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine import RunConfig
from engine.data.conversation_tokens import ConversationTokens
from engine.data.rows_ahead import read_rows
from engine.devices import DevicePlan
from engine.models.base_model_head import Head
from engine.models.loading import add_adapter, load_language_model
from engine.training.learning_rate import learning_rate
from engine.training.run import Run
from samples import SAMPLE_LANGUAGE_MODEL, language_model_path

PLAN = DevicePlan(torch.device("cpu"), torch.float32, "sdpa", fused_encoder=False, threads=1)
EVALUATED_AT_ONCE = 10
DATA: dict[str, dict[str, str]] = {"orders": {}, "tweets-en": {"text_column": "text"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate; 0.001 is the default of a run")
    parser.add_argument("--data", choices=DATA, default="orders")
    options = parser.parse_args()
    differences = []
    for seed in range(1, options.seeds + 1):
        losses = compare(seed, options)
        plain = losses["plain fp32"]
        differences.append([losses["int8"] / plain - 1, losses["reversed fp32"] / plain - 1])
        print(f"seed {seed}: " + ", ".join(f"{loss:.5f} in {name}" for name, loss in losses.items()), flush=True)
        print("        {:+.2%} in int8, {:+.2%} by chance".format(*differences[-1]), flush=True)
    print("mean: {:+.2%} in int8, {:+.2%} by chance".format(*np.mean(differences, axis=0)))


def compare(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the evaluation losses after the same steps: in int8, in plain fp32, and in that with the rows of batches reversed."""
    config = RunConfig.parse(
        {
            "task": "causal_lm",
            "model": {"name": SAMPLE_LANGUAGE_MODEL},
            "data": {"dataset_name": options.data} | DATA[options.data],
            "lora": {"lora_dropout": 0.0},
            "training": {
                "per_device_train_batch_size": 8, "max_steps": options.steps, "learning_rate": options.rate, "precision": "int8",
                "device": "cpu", "seed": seed,
            },
            "system": {"num_threads": 1},
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = read_rows(options.data, config.data, config.task, seed, Path(folder))
        prepared = Run(config, data, Path(folder) / "run").prepare()
    task: Any = prepared.task
    first = {name: value.clone() for name, value in get_peft_model_state_dict(task.model).items()}
    batches = prepared.loop.schedule.epoch(0)[: options.steps]
    task.model.train()  # evaluations use the model's own layers, in bf16
    for batch in batches:
        prepared.loop.train_step(batch)
    last = get_peft_model_state_dict(task.model)

    model: Any = load_language_model(language_model_path(), SAMPLE_LANGUAGE_MODEL, PLAN)
    model = add_adapter(model, config.lora, Head([], "kept", []), SAMPLE_LANGUAGE_MODEL, seed, "causal")
    held_out = np.arange(min(options.rows, len(task.eval_tokens.rows)))
    set_peft_model_state_dict(model, last)
    losses = {"int8": evaluate(model, task.eval_tokens, held_out)}
    for name, ordered in (("plain fp32", batches), ("reversed fp32", [batch[::-1] for batch in batches])):
        set_peft_model_state_dict(model, first)
        train_plainly(model, task.train_tokens, ordered, config)
        losses[name] = evaluate(model, task.eval_tokens, held_out)
    return losses


def train_plainly(model: Any, tokens: ConversationTokens, batches: list[np.ndarray], config: RunConfig) -> None:
    """Take the same steps in fp32, as a few lines of PyTorch do."""
    training = config.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=training.weight_decay)
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batches), training)
        loss, count = sum_of_losses(model, tokens, batch)
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(trained, training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def evaluate(model: Any, tokens: ConversationTokens, rows: np.ndarray) -> float:
    """Return the mean loss of the answers' tokens."""
    model.eval()
    parts = [sum_of_losses(model, tokens, batch) for batch in np.array_split(rows, -(-len(rows) // EVALUATED_AT_ONCE))]
    return sum(float(loss) for loss, _ in parts) / sum(count for _, count in parts)


def sum_of_losses(model: Any, tokens: ConversationTokens, rows: np.ndarray) -> tuple[Tensor, int]:
    """Return the summed loss of some conversations, padded to the longest one, and the number of their targets."""
    longest = int(tokens.lengths[rows].max())
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    targets = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows.tolist()):
        own = slice(tokens.offsets[row], tokens.offsets[row + 1])
        length = int(tokens.lengths[row])
        ids[index, :length] = torch.from_numpy(tokens.ids[own].astype(np.int64))
        mask[index, :length] = 1
        is_target = torch.from_numpy(tokens.is_target[own])
        targets[index, :length][is_target] = ids[index, :length][is_target]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    loss = cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100, reduction="sum")
    return loss, int((targets[:, 1:] != -100).sum())


if __name__ == "__main__":
    main()
