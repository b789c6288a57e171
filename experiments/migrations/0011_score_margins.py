from django.db import migrations, models

from experiments.margins import margin_in
from experiments.task_types import TASK_TYPES


def fill_in(apps, schema_editor):
    """Give existing results their margins, which new ones store with their scores."""
    experiments = apps.get_model("experiments", "Experiment").objects
    for row in experiments.exclude(score=None).only("task_type", "metrics").iterator(chunk_size=50):
        experiments.filter(pk=row.pk).update(score_margin=margin_in(row.metrics, TASK_TYPES[row.task_type].score))
    registered = apps.get_model("experiments", "RegisteredModel").objects
    for row in registered.exclude(score=None).exclude(latest=None).select_related("latest").iterator(chunk_size=50):
        margin = margin_in(row.latest.metrics, TASK_TYPES[row.task_type].score)
        registered.filter(pk=row.pk).update(score_margin=margin)


class Migration(migrations.Migration):
    dependencies = [("experiments", "0010_notes")]

    operations = [
        migrations.AddField("experiment", "score_margin", models.FloatField(null=True)),
        migrations.AddField("registeredmodel", "score_margin", models.FloatField(null=True)),
        migrations.RunPython(fill_in, migrations.RunPython.noop),
    ]
