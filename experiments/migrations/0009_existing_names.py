from django.db import migrations, models
from django.db.models.functions import Lower

from engine.names import name_key


def fill_in(apps, schema_editor):
    """Give existing rows what new ones derive from their names, which are ASCII. Their folders keep their names.

    Of two names that differ in case, the older one gets the key.
    """
    for name in ("Experiment", "RegisteredModel"):
        rows = apps.get_model("experiments", name).objects
        oldest = rows.order_by().values(key=Lower("name")).annotate(oldest=models.Min("pk"))
        rows.filter(pk__in=oldest.values("oldest")).update(name_key=Lower("name"))
    apps.get_model("experiments", "Experiment").objects.update(folder_name=models.F("name"))
    registered = apps.get_model("experiments", "RegisteredModel").objects
    for pk, words in list(registered.values_list("pk", "words")):
        if name_key(words) != words:  # what a search looks in
            registered.filter(pk=pk).update(words=name_key(words)[:4000])


class Migration(migrations.Migration):
    # On its own: PostgreSQL creates no index on a table with rows that the same transaction has changed.
    dependencies = [("experiments", "0008_names")]

    operations = [migrations.RunPython(fill_in, migrations.RunPython.noop)]
