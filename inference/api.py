"""The REST API of predictions and recommendations."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.http import signed_in_user
from accounts.models import Scope
from web.requests import refuse_unknown_fields
from web.throttles import throttle_classes_for

from .explanations import explain_answer, format_explanations
from .recommendation import SAMPLE, data_for, recommend
from .selectors import Model, models_for
from .serializers import PREDICT_SCHEMA, PredictRequest, answers_schema, split_pairs
from .services import choose_model, predict

TEXT_FIELDS = ("text", "text_pair")


class Predict(APIView):
    scope = Scope.PREDICT
    throttle_classes = throttle_classes_for("predict")  # type: ignore[assignment]  # DRF calls each

    @extend_schema(request={"application/json": PREDICT_SCHEMA}, responses=answers_schema())
    def post(self, request: Request) -> Response:
        """Predict one text or pair of texts, or several, with a trained model."""
        refuse_unknown_fields(request.data, PredictRequest)
        serializer = PredictRequest(data=request.data)
        serializer.is_valid(raise_exception=True)
        values = serializer.validated_data
        is_list = "texts" in values
        items = values["texts"] if is_list else [{name: values[name] for name in TEXT_FIELDS if name in values}]
        texts, text_pairs = split_pairs(items)
        answers = self.predict(request, texts, text_pairs, values.get("model"))
        if wanted := values.get("explain"):
            # By name: if none was given, another model may have become the best one meanwhile.
            model = self.find_model(request, answers[0]["model"])
            explanations = explain_answer(model, answers[0], texts[0], text_pairs[0] if text_pairs else None, wanted)
            answers[0]["explanation"] = format_explanations(wanted.method, explanations)
        return Response(answers if is_list else answers[0])

    def predict(
        self, request: Request, texts: list[str], text_pairs: list[str] | None, model: str | None
    ) -> list[dict[str, Any]]:
        return predict(user=signed_in_user(request), texts=texts, text_pairs=text_pairs, model=model)

    def find_model(self, request: Request, name: str) -> Model:
        return choose_model(models_for(signed_in_user(request)), name)


class MeasuredSerializer(serializers.Serializer[Any]):
    """A model of the data's task type with matching labels; what could not be measured is null."""

    name = serializers.CharField(source="version.model.name")
    version = serializers.IntegerField(source="version.number")
    accuracy = serializers.FloatField(allow_null=True, help_text="Of several labels, the share of rows with all right.")
    mae = serializers.FloatField(allow_null=True, help_text="Mean absolute error, of models of scores only.")
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
