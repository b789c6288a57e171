"""Requests for predictions and their answers in JSON, and how OpenAPI describes both."""

from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import PolymorphicProxySerializer, inline_serializer
from rest_framework import serializers

from engine.serve.word_importance import METHODS
from engine.task_types import TaskType
from web.errors import InvalidError
from web.requests import StrictCharField, refuse_unknown_fields
from web.schema import ANY_TEXT, SOME_TEXT

from .explanations import ExplanationRequest
from .services import TEXT_LIMIT, TEXTS_LIMIT

WHICH = (
    "A registered model (name, name@3, name@alias) or an experiment; the best that the caller may see when left out."
)


class TextSerializer(serializers.Serializer[Any]):
    """One text, or a pair of texts."""

    # Kept as they are: positions in an answer count from the first character that was sent.
    text = StrictCharField(allow_blank=True, trim_whitespace=False)
    text_pair = StrictCharField(allow_blank=True, trim_whitespace=False, required=False)


class TextField(serializers.Field[Any, Any, Any, Any]):
    """A string, or an object of TextSerializer; becomes such an object."""

    default_error_messages = {"invalid": gettext_lazy("Give a string, or an object with text and text_pair.")}

    def to_internal_value(self, data: object) -> dict[str, str]:
        content = {"text": data} if isinstance(data, str) else data
        if not isinstance(content, dict):
            self.fail("invalid")
        refuse_unknown_fields(content, TextSerializer)
        serializer = TextSerializer(data=content)
        serializer.is_valid(raise_exception=True)
        values: dict[str, str] = serializer.validated_data
        return values


class ExplainSerializer(serializers.Serializer[Any]):
    method = serializers.ChoiceField(METHODS, required=False)
    # DRF's own attribute of that name is gone from the class by then.
    label = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)  # type: ignore[assignment]


class ExplainField(serializers.Field[Any, Any, Any, Any]):
    """True or an object of ExplainSerializer, which becomes an ExplanationRequest; false becomes None."""

    default_error_messages = {"invalid": gettext_lazy("Give true, or an object with method and label.")}

    def to_internal_value(self, data: object) -> ExplanationRequest | None:
        if isinstance(data, bool):
            return ExplanationRequest() if data else None
        if not isinstance(data, dict):
            self.fail("invalid")
        refuse_unknown_fields(data, ExplainSerializer)
        serializer = ExplainSerializer(data=data)
        serializer.is_valid(raise_exception=True)
        return ExplanationRequest(**serializer.validated_data)


class PredictRequest(serializers.Serializer[Any]):
    text = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)
    text_pair = StrictCharField(required=False, allow_blank=True, trim_whitespace=False)
    texts = serializers.ListField(child=TextField(), required=False)
    model = StrictCharField(required=False, allow_blank=True)
    explain = ExplainField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("text" in attrs) == ("texts" in attrs):
            raise InvalidError(_("Give either text or texts."), field="text")
        if "texts" in attrs and "text_pair" in attrs:
            message = _("Give text_pair beside text, or in each object of texts.")
            raise InvalidError(message, field="text_pair")
        if "texts" in attrs and attrs.get("explain"):
            raise InvalidError(_("One text at a time can be explained: give text."), field="explain")
        return attrs


def split_pairs(items: list[dict[str, str]]) -> tuple[list[str], list[str] | None]:
    """Return the texts, and the second texts if each has one; Invalid if only some of them do."""
    texts = [item["text"] for item in items]
    second_texts = [item["text_pair"] for item in items if "text_pair" in item]
    if not second_texts:
        return texts, None
    if len(second_texts) < len(texts):
        message = _("Give a text_pair with every text, or with none: no model reads both single texts and pairs.")
        raise InvalidError(message, field="texts")
    return texts, second_texts


def probabilities_field() -> serializers.DictField:
    return serializers.DictField(child=serializers.FloatField(), help_text="By label name.")


# What the answers of each task type have, beside `common_fields`: the name in the schema, and its fields.
ANSWER_FIELDS: dict[TaskType, tuple[str, Callable[[], dict[str, Any]]]] = {
    "sequence_classification": (
        "PredictAnswer",
        lambda: {
            "label": serializers.IntegerField(),
            "probability": serializers.FloatField(),
            "label_name": serializers.CharField(),
            "probabilities": probabilities_field(),
        },
    ),
    "multi_label_classification": (
        "PredictLabelsAnswer",
        lambda: {
            "labels": serializers.ListField(
                child=serializers.CharField(), help_text="Any number of labels, none of them too."
            ),
            "probabilities": probabilities_field(),
            "thresholds": serializers.DictField(
                child=serializers.FloatField(), help_text="The probability from which on a text has the label."
            ),
        },
    ),
    "regression": (
        "PredictScoreAnswer",
        lambda: {"score": serializers.FloatField(help_text="In the unit of the data.")},
    ),
    "token_classification": ("PredictEntitiesAnswer", lambda: {"entities": EntitySerializer(many=True)}),
}


class EntitySerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    start = serializers.IntegerField(help_text="In Unicode code points, as `end`.")
    end = serializers.IntegerField()
    # DRF's own attribute of that name is gone from the class by then.
    label = serializers.CharField()  # type: ignore[assignment]
    probability = serializers.FloatField(help_text="Of its least certain token.")


class WordSerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    start = serializers.IntegerField(help_text="In Unicode code points, as `end`.")
    end = serializers.IntegerField()
    weight = serializers.FloatField(help_text="What the word adds to `value`.")


class TargetSerializer(serializers.Serializer[Any]):
    label = serializers.CharField(allow_null=True, help_text="Null for a score.")  # type: ignore[assignment]
    value = serializers.FloatField(help_text="The probability of the label, or the score.")
    words = WordSerializer(many=True)
    text_pair_words = WordSerializer(many=True, allow_null=True, help_text="Null for single texts.")
    completeness_error = serializers.FloatField(
        allow_null=True,
        help_text="How far the weights are from summing up to what the text adds; null for leave_one_out.",
    )


class ExplanationSerializer(serializers.Serializer[Any]):
    method = serializers.ChoiceField(METHODS)
    targets = TargetSerializer(many=True)


def common_fields(task: TaskType) -> dict[str, Any]:
    """Return the fields that every answer has."""
    return {
        "task": serializers.ChoiceField([task], help_text="What the model was trained for."),
        "latency_ms": serializers.FloatField(),
        "base_model": serializers.CharField(),
        "language": serializers.CharField(),
        "model": serializers.CharField(),
        "truncated": serializers.BooleanField(),
        "confident": serializers.BooleanField(
            allow_null=True,
            help_text="Whether at least 90 % of the held-out answers with such a probability, or a higher one, were right; "
            "null if not known.",
        ),
        "timing": serializers.DictField(child=serializers.FloatField()),
        "explanation": ExplanationSerializer(required=False, help_text="Only where `explain` was asked for."),
    }


def answers_schema() -> PolymorphicProxySerializer:
    """Return the schema of an answer of any task type, or of a list of answers of one."""
    answers = [
        inline_serializer(name, common_fields(task) | fields()) for task, (name, fields) in ANSWER_FIELDS.items()
    ]
    lists = [type(answer)(many=True) for answer in answers]
    return PolymorphicProxySerializer("PredictAnswers", answers + lists, resource_type_field_name=None, many=False)


def _object(required: list[str], properties: dict[str, Any], title: str | None = None) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return {"title": title, **schema} if title else schema


# Written by hand: no serializer says that a request has exactly one of two fields.
TEXT = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT, "pattern": SOME_TEXT}
TEXT_PAIR = TEXT | {"description": "The second text, for a model that was trained on pairs of texts."}
MODEL = {"type": "string", "pattern": ANY_TEXT, "description": WHICH}
EXPLAIN = {
    "description": "Adds `explanation`: what each word adds to the answer. Of multi-label models for each chosen label.",
    "oneOf": [
        {"type": "boolean"},
        _object(
            [],
            {
                "method": {"type": "string", "enum": list(METHODS), "default": METHODS[0]},
                "label": {"type": "string", "pattern": ANY_TEXT, "description": "The only label to explain."},
            },
        ),
    ],
}
TEXTS = {"type": "array", "minItems": 1, "maxItems": TEXTS_LIMIT}
PREDICT_SCHEMA = {
    "oneOf": [
        _object(
            ["text"],
            {"text": TEXT, "text_pair": TEXT_PAIR, "model": MODEL, "explain": EXPLAIN},
            "One text, or a pair of texts; the answer is an object.",
        ),
        _object(
            ["texts"],
            {
                "texts": {
                    "oneOf": [
                        TEXTS
                        | {"title": "Single texts", "items": {"oneOf": [TEXT, _object(["text"], {"text": TEXT})]}},
                        TEXTS
                        | {
                            "title": "Pairs of texts",
                            "items": _object(["text", "text_pair"], {"text": TEXT, "text_pair": TEXT_PAIR}),
                        },
                    ]
                },
                "model": MODEL,
            },
            "Several; the answer is a list in their order.",
        ),
    ]
}
