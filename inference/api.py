from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.errors import Invalid
from accounts.models import Scope
from accounts.requests import Text, person, refuse_unknown
from accounts.throttles import throttles

from .services import TEXT_LIMIT, TEXTS_LIMIT, predict


class PredictRequest(serializers.Serializer[Any]):
    text = Text(required=False, allow_blank=True, help_text="One text; the answer is an object.")
    texts = serializers.ListField(
        child=Text(allow_blank=True), required=False, help_text="Several; the answer is a list."
    )
    model = Text(required=False, allow_blank=True, help_text="An experiment; the best when left out.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("text" in attrs) == ("texts" in attrs):
            raise Invalid(_("Give either text or texts."), field="text")
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
    },
)

ANSWERED = PolymorphicProxySerializer(
    "PredictAnswers", [PredictAnswer, type(PredictAnswer)(many=True)], resource_type_field_name=None, many=False
)
TEXT = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT, "pattern": r"\S"}
MODEL = {"type": "string", "description": "An experiment; the best that the caller may see when left out."}
ASKED = {
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
    throttle_classes = throttles("predict")  # type: ignore[assignment]  # DRF calls each

    @extend_schema(request={"application/json": ASKED}, responses=ANSWERED)
    def post(self, request: Request) -> Response:
        """What a trained model says of a text, or of several."""
        refuse_unknown(request.data, PredictRequest)
        asked = PredictRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        texts = values.get("texts") or [values.get("text", "")]
        answers = predict(user=person(request), texts=texts, model=values.get("model"))
        return Response(answers if "texts" in values else answers[0])
