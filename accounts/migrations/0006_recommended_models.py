from django.db import migrations

SEEDED = {"albert-base-v2", "bert-base-chinese", "distilbert-base-uncased", "roberta-base"}
RECOMMENDED = (
    "distilbert/distilbert-base-uncased",
    "google-bert/bert-base-uncased",
    "bert-base-uncased",
    "FacebookAI/roberta-base",
    "albert/albert-base-v2",
    "google/electra-base-discriminator",
    "microsoft/mpnet-base",
    "microsoft/deberta-v3-base",
    "answerdotai/ModernBERT-base",
    "jhu-clsp/ettin-encoder-32m",
    "jhu-clsp/ettin-encoder-150m",
    "google-bert/bert-base-chinese",
    "hfl/chinese-macbert-base",
    "nghuyong/ernie-3.0-base-zh",
    "FacebookAI/xlm-roberta-base",
    "xlm-roberta-base",
    "jhu-clsp/mmBERT-small",
    "jhu-clsp/mmBERT-base",
    "Qwen/Qwen3-0.6B",
)


def allow_recommended_models(apps, schema_editor):
    """Allow the recommended base models, unless an administrator has changed the list: then it says what is wanted."""
    rules = apps.get_model("accounts", "BaseModelRule").objects
    if set(rules.values_list("pattern", flat=True)) != SEEDED:
        return
    for name in RECOMMENDED:
        rules.create(pattern=name, note="recommended")


class Migration(migrations.Migration):

    dependencies = [("accounts", "0005_shared_cache")]

    operations = [migrations.RunPython(allow_recommended_models, migrations.RunPython.noop)]
