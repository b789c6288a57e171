from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("training", "0006_task_types"),
    ]

    operations = [
        migrations.AddField(
            model_name="point",
            name="grad_norm",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="point",
            name="runtime_s",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="point",
            name="tokens",
            field=models.PositiveBigIntegerField(null=True),
        ),
    ]
