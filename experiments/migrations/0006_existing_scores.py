from django.db import migrations, models


def copy_accuracy(apps, schema_editor):
    """Fill the score of existing rows: all of them classify, and their score is the accuracy."""
    for name in ("Experiment", "RegisteredModel", "ModelVersion"):
        apps.get_model("experiments", name).objects.update(score=models.F("accuracy"))


class Migration(migrations.Migration):
    dependencies = [("experiments", "0005_task_types")]

    operations = [migrations.RunPython(copy_accuracy, migrations.RunPython.noop)]
