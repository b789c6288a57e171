from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("experiments", "0007_model_exports")]

    operations = [
        migrations.AddField(
            model_name="experiment",
            name="folder_name",
            field=models.CharField(editable=False, max_length=80, null=True, unique=True),
        ),
        migrations.AddField(
            model_name="experiment",
            name="name_key",
            field=models.CharField(editable=False, max_length=320, null=True, unique=True),
        ),
        migrations.AddField(
            model_name="registeredmodel",
            name="name_key",
            field=models.CharField(editable=False, max_length=320, null=True, unique=True),
        ),
    ]
