"""The REST API of predictions and recommendations."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from accounts.models import Scope
from web.errors import InvalidError
from web.requests import StrictCharField, refuse_unknown_fields
from web.schema import ANY_TEXT, SOME_TEXT
from web.throttles import throttle_classes_for

from .recommendation import SAMPLE, data_for, recommend
from .services import TEXT_LIMIT, TEXTS_LIMIT, predict

WHICH = (
    "A registered model (name, name@3, name@alias) or an experiment; the best that the caller may see when left out."
)


class PredictRequest(serializers.Serializer[Any]):
    text = StrictCharField(required=False, allow_blank=True, help_text="One text; the answer is an object.")
    texts = serializers.ListField(
        child=StrictCharField(allow_blank=True), required=False, help_text="Several; the answer is a list."
    )
    model = StrictCharField(required=False, allow_blank=True, help_text=WHICH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("text" in attrs) == ("texts" in attrs):
            raise InvalidError(_("Give either text or texts."), field="text")
        return attrs


PredictAnswer = inline_serializer(
    "PredictAnswer",
    {
        "label": serializers.IntegerField(),
        "probability": serializers.FloatField(),
        "latency_ms": serializers.FloatField(),
        "base_model": serializers.CharField(),
        "language": serializers.CharField(),
        "label_name": serializers.CharField(),
        "probabilities": serializers.DictField(child=serializers.FloatField()),
        "model": serializers.CharField(),
        "truncated": serializers.BooleanField(),
        "confident": serializers.BooleanField(
            allow_null=True,
            help_text="Whether at least 90 % of held-out rows with such a probability were right; null if not known.",
        ),
        "timing": serializers.DictField(child=serializers.FloatField()),
    },
)

PREDICT_RESPONSE = PolymorphicProxySerializer(
    "PredictAnswers", [PredictAnswer, type(PredictAnswer)(many=True)], resource_type_field_name=None, many=False
)
# Written by hand: no serializer says that a request has exactly one of two fields.
TEXT = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT, "pattern": SOME_TEXT}
MODEL = {"type": "string", "pattern": ANY_TEXT, "description": WHICH}
PREDICT_SCHEMA = {
    "oneOf": [
        {
            "title": "One text; the answer is an object.",
            "type": "object",
            "required": ["text"],
            "properties": {"text": TEXT, "model": MODEL},
            "additionalProperties": False,
        },
        {
            "title": "Several; the answer is a list in their order.",
            "type": "object",
            "required": ["texts"],
            "properties": {
                "texts": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": TEXTS_LIMIT},
                "model": MODEL,
            },
            "additionalProperties": False,
        },
    ]
}


class Predict(APIView):
    scope = Scope.PREDICT
    throttle_classes = throttle_classes_for("predict")  # type: ignore[assignment]  # DRF calls each

    @extend_schema(request={"application/json": PREDICT_SCHEMA}, responses=PREDICT_RESPONSE)
    def post(self, request: Request) -> Response:
        """Predict one text, or several, with a trained model."""
        refuse_unknown_fields(request.data, PredictRequest)
        serializer = PredictRequest(data=request.data)
        serializer.is_valid(raise_exception=True)
        values = serializer.validated_data
        texts = values.get("texts") or [values.get("text", "")]
        answers = self.predict(request, texts, values.get("model"))
        return Response(answers if "texts" in values else answers[0])

    def predict(self, request: Request, texts: list[str], model: str | None) -> list[dict[str, Any]]:
        return predict(user=signed_in_user(request), texts=texts, model=model)


class MeasuredSerializer(serializers.Serializer[Any]):
    """A model with matching labels; accuracy, low and high are null if it could not be measured."""

    name = serializers.CharField(source="version.model.name")
    version = serializers.IntegerField(source="version.number")
    accuracy = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(
        allow_null=True, help_text="With high: the 95 % interval of the accuracy on all such rows."
    )
    high = serializers.FloatField(allow_null=True)
    rows = serializers.IntegerField(help_text="Rows that it was measured on.")
    seconds = serializers.FloatField()
    reason = serializers.CharField()


class StartSerializer(serializers.Serializer[Any]):
    experiment = serializers.CharField(source="experiment.name")
    similarity = serializers.FloatField(help_text="Similarity of its data to these, 0 to 1.")
    config = serializers.DictField(help_text="A body for POST /api/train.")
    reason = serializers.CharField()


class RecommendationSerializer(serializers.Serializer[Any]):
    dataset = serializers.CharField(source="data")
    models = MeasuredSerializer(many=True, help_text="The most accurate on these rows first.")
    more = serializers.IntegerField(help_text="Models that match too and were not measured.")
    start = StartSerializer(allow_null=True)


DATASET = {"type": "string", "minLength": 1, "maxLength": 120, "pattern": r"\S"}
ROWS = {"type": "integer", "minimum": 10, "maximum": 2000, "default": SAMPLE}


class Recommend(APIView):
    asks_for_one = True  # the schema says 404: there may be no such dataset

    @extend_schema(
        operation_id="models_recommend",
        parameters=[
            OpenApiParameter("dataset", DATASET, required=True, description="name, or name@version."),
            OpenApiParameter("sample", ROWS, description="Rows to measure on; 200 when left out."),
        ],
        responses=RecommendationSerializer,
    )
    def get(self, request: Request) -> Response:
        """The registered models whose labels match a dataset, measured on a sample of its rows, and a configuration for a new run."""
        serializer = RecommendRequest(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        data = data_for(signed_in_user(request), serializer.validated_data["dataset"])
        recommendation = recommend(user=signed_in_user(request), data=data, sample=serializer.validated_data["sample"])
        return Response(RecommendationSerializer(recommendation).data)


class RecommendRequest(serializers.Serializer[Any]):
    dataset = serializers.CharField(max_length=120)
    sample = serializers.IntegerField(min_value=10, max_value=2000, default=SAMPLE)
