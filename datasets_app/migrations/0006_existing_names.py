from django.db import migrations, models
from django.db.models.functions import Lower


def fill_keys(apps, schema_editor):
    """Give existing datasets the keys of their names, which are ASCII. Of two that differ in case, the older one gets it."""
    datasets = apps.get_model("datasets_app", "Dataset").objects
    oldest = datasets.order_by().values(key=Lower("name")).annotate(oldest=models.Min("pk"))
    datasets.filter(pk__in=oldest.values("oldest")).update(name_key=Lower("name"))


class Migration(migrations.Migration):
    # On its own: PostgreSQL creates no index on a table with rows that the same transaction has changed.
    dependencies = [("datasets_app", "0005_names")]

    operations = [migrations.RunPython(fill_keys, migrations.RunPython.noop)]
