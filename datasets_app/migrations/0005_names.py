from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("datasets_app", "0004_kinds")]

    operations = [
        migrations.AddField(
            model_name="dataset",
            name="name_key",
            field=models.CharField(editable=False, max_length=320, null=True, unique=True),
        ),
    ]
