"""The base model and the data sets that come with Lorasite, read from packages of PyPI, so that no hub is needed."""

from samples.base_model import SAMPLE_BASE_MODEL, base_model_path
from samples.data import SAMPLES, reviews_zh, tweets_en

__all__ = ["SAMPLES", "SAMPLE_BASE_MODEL", "base_model_path", "reviews_zh", "tweets_en"]
