"""Make the data sets of bench/quality.py from what comes with Lorasite: sample tweets, and texts with names from templates."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

# What a tweet is about. The words that name it are cut out, so that only the others tell.
TOPICS = {
    "airline": r"[@#]?\b(united|southwest|jetblue|us ?airways|american ?air|virgin ?america|delta|airlines?|air)\w*",
    "apple": r"[@#$]?\b(apple|aapl)\w*",
    "car": r"[@#]?\b(self[- ]?driving|driver ?less|autonomous|autos?|cars?|google)\w*",
    "festival": r"[@#]?\bcoachella\w*",
    "football": r"[@#]?\b(deflate ?gate|patriots|super ?bowl)\w*",
    "medicine": r"[@#]?\bclaritin\S*",
}
MOODS = ("negative", "positive")
SPLITS = ("train", "eval", "test")


def tweets(sizes: dict[str, int]) -> pl.DataFrame:
    """One of three moods per tweet."""
    frame = usable_tweets().select("text", "label").sample(sum(sizes.values()), shuffle=True, seed=1)
    return with_splits(frame, sizes)


def topics(sizes: dict[str, int]) -> pl.DataFrame:
    """Several labels per tweet: what it is about, and whether it is positive or negative."""
    import polars as pl

    rows = [
        (text, json.dumps([topic] if mood == "neutral" else [topic, mood])) for text, topic, mood in masked_tweets()
    ]
    frame = pl.DataFrame(rows, schema=["text", "label"], orient="row")
    return with_splits(frame.sample(sum(sizes.values()), shuffle=True, seed=1), sizes)


def comparisons(sizes: dict[str, int]) -> pl.DataFrame:
    """Pairs of a positive and a negative tweet, and which of the two is the positive one."""
    import polars as pl

    generator = random.Random(1)
    count = sum(sizes.values())
    moods = {mood: usable_tweets().filter(label=mood)["text"].sample(count, seed=1, shuffle=True) for mood in MOODS}
    rows = []
    for positive, negative in zip(moods["positive"], moods["negative"], strict=True):
        if generator.random() < 0.5:
            rows.append((positive, negative, "first"))
        else:
            rows.append((negative, positive, "second"))
    return with_splits(pl.DataFrame(rows, schema=["text", "text_pair", "label"], orient="row"), sizes)


def entities(sizes: dict[str, int]) -> pl.DataFrame:
    """English sentences with persons, places and others; half of the names in held-out ones are in no training row."""
    from testing.entity_texts import make_entity_frame

    frame = make_entity_frame(sizes["train"], sizes["eval"] + sizes["test"], seed=1, languages=["en"])
    return with_splits(frame.drop("split"), sizes)


MAKERS: dict[str, Callable[[dict[str, int]], pl.DataFrame]] = {
    "tweets": tweets,
    "topics": topics,
    "comparisons": comparisons,
    "entities": entities,
}


def usable_tweets() -> pl.DataFrame:
    """Return the sample tweets on which those who labelled them agreed, each once."""
    import polars as pl

    from samples import tweets_en

    agreed = tweets_en().filter(pl.col("confidence").fill_null(1) >= 0.6)
    return agreed.unique("text", keep="first", maintain_order=True)


def masked_tweets() -> list[tuple[str, str, str]]:
    """Return text, topic and mood of the tweets about one topic, without the words that name it."""
    rows = []
    for text, mood in usable_tweets().select("text", "label").iter_rows():
        matching = [topic for topic, pattern in TOPICS.items() if re.search(pattern, text, re.IGNORECASE)]
        if len(matching) != 1:
            continue
        rest = " ".join(re.sub(TOPICS[matching[0]], " ", text, flags=re.IGNORECASE).split())
        if len(rest) > 20:
            rows.append((rest, matching[0], mood))
    return rows


def with_splits(frame: pl.DataFrame, sizes: dict[str, int]) -> pl.DataFrame:
    """Return the rows with a column `split`: as many of each as `sizes` says, in the order of the rows."""
    import polars as pl

    names = [name for name in SPLITS for _ in range(sizes[name])]
    return frame.with_columns(pl.Series("split", names))
