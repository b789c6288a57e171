"""What the page of a result draws beside the curves: calibration of a classifier, and true against predicted scores."""

from typing import Any

from django.utils.translation import gettext as _

from web.charts import scatter_chart


def describe_calibration(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Return sentences and charts about what the probabilities are worth: {sentences, charts}; None if nobody measured it."""
    calibration = metrics.get("calibration")
    if not calibration or not calibration.get("rows"):
        return None
    return {
        "sentences": [
            describe_errors(calibration),
            describe_temperature(calibration),
            describe_threshold(calibration),
        ],
        "charts": [reliability_chart(calibration), coverage_chart(calibration)],
    }


def describe_errors(calibration: dict[str, Any]) -> str:
    """Return by how much the probabilities are off, before and after."""
    sentence = _(
        "Probabilities differ from how often they come true by %(after).1f points on average (expected calibration error); "
        "before calibration by %(before).1f points."
    )
    return sentence % {"before": 100 * calibration["ece_before"], "after": 100 * calibration["ece_after"]}


def describe_temperature(calibration: dict[str, Any]) -> str:
    """Return what the model's outputs are divided by, and on which rows that was fitted."""
    facts = {"rows": f"{calibration['rows']:,}"}
    temperature = calibration["temperature"]
    if isinstance(temperature, list):
        sentence = _(
            "A temperature per label, from %(low).2f to %(high).2f, was fitted on %(rows)s evaluation rows; the reported "
            "errors are cross-fitted: no row is judged by temperatures that were fitted on it."
        )
        return sentence % {**facts, "low": min(temperature), "high": max(temperature)}
    sentence = _(
        "The temperature %(temperature).2f was fitted on %(rows)s evaluation rows; the reported errors are cross-fitted: no "
        "row is judged by a temperature that was fitted on it."
    )
    return sentence % {**facts, "temperature": temperature}


def describe_threshold(calibration: dict[str, Any]) -> str:
    """Return from which probability on answers are called confident, and what that means."""
    threshold = calibration.get("confident_from")
    if threshold is None:
        return _(
            "No probability is high enough to call an answer confident: too few of the most certain ones are right."
        )
    # The curve has at most 100 points, so the last one above the threshold is near it.
    covered = [point for point in calibration["coverage"] if point["threshold"] >= threshold]
    sentence = _("Answers with a probability of at least %(threshold).1f%% are called confident.")
    if covered:
        sentence = _(
            "Answers with a probability of at least %(threshold).1f%% are called confident: those are %(coverage).0f%% of "
            "the held-out rows, and %(right).1f%% of them are right."
        )
    facts = {"threshold": 100 * threshold}
    if covered:
        facts |= {"coverage": 100 * covered[-1]["coverage"], "right": 100 * covered[-1]["accuracy"]}
    if isinstance(calibration["temperature"], list):
        sentence += " " + _("The probability of an answer is that of its least certain label being decided rightly.")
    if "entities" in calibration:
        sentence += " " + _("The probability of an answer is that of the least certain token of its text.")
    return sentence % facts


def reliability_chart(calibration: dict[str, Any]) -> dict[str, Any]:
    """Return the reliability diagram: how often predictions of a probability came true, before and after."""
    series = {
        title: [(bin_["confidence"], bin_["accuracy"]) for bin_ in calibration[name] if bin_["rows"]]
        for name, title in (("after", _("calibrated")), ("before", _("before")))
    }
    return scatter_chart(
        _("Reliability diagram"),
        _("The nearer to the dashed line, the more the probabilities mean what they say."),
        series,
        x_label=_("probability"),
        y_label=_("share that came true"),
        key="reliability",
        lines=True,
        diagonal=(_("perfect"), 0.0, 1.0),
    )


def coverage_chart(calibration: dict[str, Any]) -> dict[str, Any]:
    """Return the curve of how many answers are right if only the most certain ones are given."""
    points = calibration["coverage"]
    half = min(points, key=lambda point: abs(point["coverage"] - 0.5))
    sentence = _(
        "%(all).1f%% of all answers are right, and %(half).1f%% of the %(coverage).0f%% that are the most certain."
    )
    shares = {"all": points[-1]["accuracy"], "half": half["accuracy"], "coverage": half["coverage"]}
    return scatter_chart(
        _("Coverage and accuracy"),
        sentence % {name: 100 * share for name, share in shares.items()},
        {_("accuracy"): [(point["coverage"], point["accuracy"]) for point in points]},
        x_label=_("share of rows answered"),
        y_label=_("share of right answers"),
        key="coverage",
        lines=True,
    )


def scores_chart(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Return the plot of true and predicted scores; None for a run without them."""
    points = [(true, predicted) for true, predicted in metrics.get("scatter", [])]
    if not points:
        return None
    values = [value for point in points for value in point]
    sentence = _(
        "Each point is a held-out row. On the dashed line the prediction is right; the mean error is %(mae).4g."
    )
    return scatter_chart(
        _("True and predicted scores"),
        sentence % {"mae": metrics["eval"]["mae"]},
        {_("held-out rows"): points},
        x_label=_("true score"),
        y_label=_("predicted score"),
        key="scores",
        diagonal=(_("exact"), min(values), max(values)),
    )
