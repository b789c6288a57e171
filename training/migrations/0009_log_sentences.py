from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0008_answers")]

    operations = [
        migrations.AddField(model_name="logline", name="sentence", field=models.JSONField(null=True)),
    ]
