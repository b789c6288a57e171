"""Predictions in tests, with their type narrowed to that of single-label models."""

from pathlib import Path

from engine.serve.answers import Prediction
from engine.serve.predictor import Predictor


def predict_labels(predictor: Predictor, folder: Path, texts: list[str]) -> list[Prediction]:
    """Return the predictions of a model that gives each text one label."""
    predictions = predictor.predict(folder, texts).predictions
    return [prediction for prediction in predictions if isinstance(prediction, Prediction)]
