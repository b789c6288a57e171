"""What is measured: base model shapes, text lengths, batch sizes and numbers of adapters."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a base model. Its weights are random: they change neither speed nor memory."""

    name: str
    model_type: str  # of transformers
    width: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    longest: int = 512  # tokens


BERT_BASE = Shape("bert-base", "bert", 768, 12, 12, 3072, 30_522)
ROBERTA_LARGE = Shape("roberta-large", "roberta", 1024, 24, 16, 4096, 50_265)
SMALL_BERT = Shape("small-bert", "bert", 64, 2, 4, 128, 1000)
SMALL_ROBERTA = Shape("small-roberta", "roberta", 64, 2, 4, 128, 1000)
CHECKED = (
    Shape("checked-bert", "bert", 128, 3, 4, 512, 1000),
    Shape("checked-roberta", "roberta", 128, 3, 4, 512, 1000),
)


@dataclass(frozen=True, slots=True)
class TrainingSetting:
    """One comparison: a base model, the mean length of its texts in tokens, and the rows of a step."""

    shape: Shape
    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class ServingSetting:
    """One measurement: so many adapters are asked in turns of chance by so many callers at once."""

    adapters: int
    callers: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a whole run.

    warm_up: steps before time is taken. seconds: how long each measurement lasts. epoch_steps: steps in one pass over
    the rows. batch_tokens: tokens of a batch in serving. scarce_rows: rows of the step that does not fit into memory.
    """

    training: list[TrainingSetting]
    serving: list[ServingSetting]
    served: Shape
    rank: int = 16
    spread: float = 0.4  # standard deviation of the logarithm of a text's length
    warm_up: int = 20
    seconds: float = 5.0
    epoch_steps: int = 64
    batch_tokens: int = 4096
    scarce_rows: int = 512
    threads: int | None = None  # of the CPU; by default, all cores
    shapes: list[Shape] = field(init=False)

    def __post_init__(self) -> None:
        shapes = [setting.shape for setting in self.training]
        object.__setattr__(self, "shapes", list(dict.fromkeys([*shapes, self.served])))


FULL = Settings(
    # 8,192 tokens a step fill the GPU. The last setting is a step of 32 short texts, where starting kernels takes longest.
    training=[
        TrainingSetting(BERT_BASE, 32, 256),
        TrainingSetting(BERT_BASE, 256, 32),
        TrainingSetting(ROBERTA_LARGE, 32, 256),
        TrainingSetting(ROBERTA_LARGE, 256, 32),
        TrainingSetting(BERT_BASE, 32, 32),
    ],
    serving=[ServingSetting(1, 1), ServingSetting(1, 64), ServingSetting(64, 64), ServingSetting(1024, 64)],
    served=BERT_BASE,
)
SMALL = Settings(
    training=[TrainingSetting(SMALL_BERT, 8, 16), TrainingSetting(SMALL_ROBERTA, 32, 4)],
    serving=[ServingSetting(1, 1), ServingSetting(4, 4), ServingSetting(16, 4)],
    served=SMALL_BERT,
    warm_up=2,
    seconds=0.5,
    epoch_steps=16,
    scarce_rows=96,
    threads=1,  # small products gain nothing from two, and lose much where another process is busy
)
