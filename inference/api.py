from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.errors import Invalid
from accounts.requests import person

from .services import predict


class PredictRequest(serializers.Serializer[Any]):
    text = serializers.CharField(required=False, allow_blank=True, help_text="One text; the answer is an object.")
    texts = serializers.ListField(
        child=serializers.CharField(allow_blank=True), required=False, help_text="Several; the answer is a list."
    )
    model = serializers.CharField(required=False, allow_blank=True, help_text="An experiment; the best when left out.")

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


class Predict(APIView):
    @extend_schema(request=PredictRequest, responses=PredictAnswer)
    def post(self, request: Request) -> Response:
        """What a trained model says of a text, or of several."""
        asked = PredictRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        texts = values.get("texts") or [values.get("text", "")]
        answers = predict(user=person(request), texts=texts, model=values.get("model"))
        return Response(answers if "texts" in values else answers[0])
