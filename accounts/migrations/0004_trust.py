import django.contrib.auth.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import accounts.usernames


def keep_keys(apps, schema_editor):
    """Of two names that look the same, the older account gets the key; the other one goes on to work without."""
    User, seen = apps.get_model("accounts", "User"), set()
    for pk, name in User.objects.order_by("pk").values_list("pk", "username"):
        key = accounts.usernames.key_of(name)
        if key not in seen:
            seen.add(key)
            User.objects.filter(pk=pk).update(username_key=key)


class Migration(migrations.Migration):

    dependencies = [("accounts", "0003_people")]

    operations = [
        migrations.CreateModel(
            name="Standing",
            fields=[
                ("user", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name="standing", serialize=False, to=settings.AUTH_USER_MODEL)),
                ("role", models.CharField(blank=True, choices=[("admin", "Admin"), ("member", "Member"), ("viewer", "Viewer")], max_length=10)),
                ("since", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="UsedCode",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("code", models.CharField(max_length=64)),
                ("used_at", models.DateTimeField(auto_now_add=True)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL)),
            ],
            options={"constraints": [models.UniqueConstraint(fields=("user", "code"), name="code_works_once")]},
        ),
        migrations.AlterModelManagers(name="user", managers=[]),
        migrations.AlterField(
            model_name="user",
            name="username",
            field=models.CharField(error_messages={"unique": "This name is taken, or looks like one that is. Choose another."}, help_text="Letters of one script, digits and @ . + - _, at most 150; it begins with a letter or a digit.", max_length=150, unique=True, validators=[django.contrib.auth.validators.UnicodeUsernameValidator(), accounts.usernames.validate], verbose_name="username"),
        ),
        migrations.AddField(
            model_name="user",
            name="username_key",
            field=models.CharField(editable=False, max_length=450, null=True, unique=True),
        ),
        migrations.RunPython(keep_keys, migrations.RunPython.noop),
    ]
