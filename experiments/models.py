import uuid
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import Removal
from engine.names import folder_name
from engine.storage import sweep_drafts_of
from lists.models import Annotated
from web.name_fields import FolderNameField, NameField, NameKeyField
from work import paths
from work.models import PREPARING, QUEUED, Status, Work

from .export_messages import MESSAGES
from .states import State, state_of
from .task_types import METRIC_TITLES, TASK_TYPES, USUAL, WRITING

# With a worker of its own: an export takes minutes. Checks of data should not wait for it, and it should not wait for a run.
EXPORT_QUEUE = "exports"


class ScoreNames:
    """What follows from the `task_type` of a row: the metric that is its `score`, and whether it is a language model."""

    task_type: str

    @property
    def score_name(self) -> str:
        """Return the name of the metric that is the score."""
        return TASK_TYPES[self.task_type].score

    @property
    def is_language_model(self) -> bool:
        """Return whether it answers in words, so that people chat with it."""
        return self.task_type in WRITING

    @property
    def score_title(self) -> Promise:
        """Return what pages call the score."""
        return METRIC_TITLES[self.score_name]


class Experiment(ScoreNames, Annotated):
    """The named record of one training. Its status is that of `experiment.task`, a one-to-one of training.Task."""

    name = NameField(_("name"), unique=True)
    name_key = NameKeyField()
    folder_name = FolderNameField()  # below RESULTS_DIR
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="experiments")
    version = models.ForeignKey("datasets_app.Version", models.PROTECT, null=True, related_name="experiments")
    # as the configuration names it: name@version, or the id of a hub dataset
    dataset_name = models.CharField(_("dataset"), max_length=120, db_index=True)
    dataset_hash = models.CharField(max_length=64, blank=True)
    base_model = models.CharField(_("base model"), max_length=120, db_index=True)
    config = models.JSONField(default=dict)
    cloned_from = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="+")
    metrics = models.JSONField(default=dict)  # metrics.json; empty until the run has succeeded
    # what the run learns (`task` in the YAML), and the metric of that type that lists show: `task_types.TASK_TYPES`
    task_type = models.CharField(_("task type"), max_length=40, default=USUAL, db_default=USUAL, db_index=True)
    score = models.FloatField(_("score"), null=True, db_index=True)
    score_margin = models.FloatField(null=True)  # see `margins.margin_in`
    # of the best checkpoint; each is indexed, so that a list of 100,000 is sorted by it; null where a type has no such metric
    accuracy = models.FloatField(_("accuracy"), null=True, db_index=True)
    macro_f1 = models.FloatField(_("macro F1"), null=True, db_index=True)
    eval_loss = models.FloatField(_("evaluation loss"), null=True, db_index=True)
    tokens_per_second = models.FloatField(null=True, db_index=True)
    runtime_s = models.FloatField(null=True, db_index=True)
    # `result.learned` of the metrics: whether the model is better than the majority class; null for older runs
    learned = models.BooleanField(_("learned"), null=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    list_page = "experiments:list"
    removed_by = "experiments.services.carry_out_removal"

    class Meta:
        ordering = ["-created_at"]
        # What the list is searched by: without it SQLite reads the metrics of all rows, too.
        indexes = [
            models.Index(fields=["name_key", "name", "dataset_name", "base_model"], name="experiment_search"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("experiments:detail", args=[self.name])

    @property
    def folder(self) -> Path:
        return paths.results_dir() / (self.folder_name or folder_name(self.name))

    @property
    def final_model(self) -> Path:
        return self.folder / "artifacts" / "final_model"

    @property
    def is_ready(self) -> bool:
        """Return whether the run has succeeded, so that its model can be loaded."""
        return self.eval_loss is not None or self.accuracy is not None  # runs of an early release have the latter only

    @property
    def labels(self) -> list[str]:
        return list(self.metrics.get("labels", []))

    @property
    def state(self) -> State:
        return state_of(self.task.status, self.learned)


class RegisteredModel(ScoreNames, Annotated):
    """A name under which versions of a model are found, shared and used for predictions."""

    name = NameField(_("name"), unique=True)
    name_key = NameKeyField()
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="models")
    summary = models.CharField(_("what it does"), max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # copied from the newest version and indexed, so that a list of 100,000 is filtered and sorted by them
    latest = models.ForeignKey("ModelVersion", models.SET_NULL, null=True, related_name="+")
    language = models.CharField(_("language"), max_length=20, blank=True, db_index=True)
    base_model = models.CharField(_("base model"), max_length=120, db_index=True)
    label_set = models.CharField(max_length=64, db_index=True)  # see labels.label_set
    words = models.TextField(blank=True)  # the text that a search looks in, in lower case
    task_type = models.CharField(_("task type"), max_length=40, default=USUAL, db_default=USUAL, db_index=True)
    score = models.FloatField(_("score"), null=True, db_index=True)
    score_margin = models.FloatField(null=True)
    accuracy = models.FloatField(_("accuracy"), null=True, db_index=True)
    macro_f1 = models.FloatField(_("macro F1"), null=True, db_index=True)
    updated_at = models.DateTimeField(_("newest version"), db_index=True)

    shared_as = "model"
    list_page = "experiments:models"
    removed_by = "experiments.registry.services.carry_out_removal"

    class Meta:
        ordering = ["-updated_at"]
        verbose_name = _("model")
        verbose_name_plural = _("models")

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("experiments:model", args=[self.name])


class KeptVersions(models.Manager["ModelVersion"]):
    """Leaves out the versions that somebody has deleted a moment ago (see accounts/removals.py)."""

    def get_queryset(self) -> models.QuerySet["ModelVersion"]:
        removed = Removal.objects.filter(content_type__app_label="experiments", content_type__model="modelversion")
        return super().get_queryset().exclude(pk__in=removed.values("object_id"))


class ModelVersion(ScoreNames, models.Model):
    """The model of one run, with files of its own: deleting the run or its data does not change it."""

    shared_as = "model"
    shared_through = "model"
    removed_by = "experiments.registry.services.carry_out_version_removal"
    restored_by = "experiments.registry.services.restore_version"

    model = models.ForeignKey(RegisteredModel, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    note = models.CharField(_("note"), max_length=300, blank=True)
    card = models.TextField(_("card"), blank=True)  # Markdown, editable; the facts beside it are not
    key = models.UUIDField(default=uuid.uuid4, editable=False, unique=True)  # the folder's name

    # where it comes from: foreign keys until the run or the data are deleted, texts for ever
    experiment = models.ForeignKey(Experiment, models.SET_NULL, null=True, related_name="model_versions")
    experiment_name = models.CharField(max_length=80)
    dataset_version = models.ForeignKey("datasets_app.Version", models.SET_NULL, null=True, related_name="+")
    dataset_name = models.CharField(_("dataset"), max_length=120)
    dataset_hash = models.CharField(max_length=64, blank=True)
    base_model = models.CharField(_("base model"), max_length=120)
    licence = models.JSONField(default=dict)  # {"base_model": "apache-2.0", "dataset": ""}; empty where it is not known
    language = models.CharField(_("language"), max_length=20, blank=True)
    labels = models.JSONField(default=list)
    config = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)  # of metrics.json: eval, test, baseline, train, system
    limits = models.JSONField(default=list)  # the data's findings: [{code, severity, count, message}]
    machine = models.JSONField(default=dict)
    trained_at = models.DateTimeField(null=True)
    checkpoint = models.CharField(max_length=10, default="best")  # best, last or fastest
    size = models.PositiveBigIntegerField(default=0)  # bytes of the files
    task_type = models.CharField(_("task type"), max_length=40, default=USUAL, db_default=USUAL)
    score = models.FloatField(_("score"), null=True)
    accuracy = models.FloatField(_("accuracy"), null=True)
    macro_f1 = models.FloatField(_("macro F1"), null=True)

    objects = KeptVersions()
    with_removed: ClassVar[models.Manager["ModelVersion"]] = models.Manager()

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="one_number_per_model")]
        verbose_name = _("model version")
        verbose_name_plural = _("model versions")

    def __str__(self) -> str:
        return f"{self.model.name}@{self.number}"

    @property
    def folder(self) -> Path:
        return paths.models_dir() / self.key.hex


class ModelExport(Work):
    """A model version in another format, kept as a .zip file. A version has at most one of each format."""

    class Format(models.TextChoices):
        SAFETENSORS = "safetensors", _("Merged safetensors")
        ONNX = "onnx", _("ONNX")
        ONNX_INT8 = "onnx-int8", _("ONNX with weights in 8 bits")
        GGUF_F16 = "gguf-f16", _("GGUF in 16 bits, for Ollama and llama.cpp")
        GGUF_Q8_0 = "gguf-q8_0", _("GGUF with weights in 8 bits, for Ollama and llama.cpp")
        PEFT = "peft", _("Adapter for vLLM")

    class Stage(models.TextChoices):
        QUEUED = QUEUED, _("queued")
        PREPARING = PREPARING, _("preparing")
        WRITING = "writing", _("writing the files")
        COMPARING = "comparing", _("comparing answers")
        PACKING = "packing", _("packing")
        DONE = "done", _("done")

    version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="exports")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")  # whose storage it takes
    format = models.CharField(_("format"), max_length=20, choices=Format.choices)
    stage = models.CharField(max_length=10, choices=Stage.choices, default=Stage.QUEUED)
    size = models.PositiveBigIntegerField(default=0)  # bytes of the .zip file

    queue = models.Value(EXPORT_QUEUE)
    job = "experiments.registry.export_jobs.run"  # waits in Redis by this name, also across releases
    messages = MESSAGES

    class Meta(Work.Meta):
        abstract = False
        constraints = [models.UniqueConstraint(fields=["version", "format"], name="one_export_per_format")]
        verbose_name = _("model export")
        verbose_name_plural = _("model exports")

    def __str__(self) -> str:
        return f"{self.version} ({self.format}, {self.status})"

    @property
    def folder(self) -> Path:
        """Return where a worker writes the files before it packs them."""
        return paths.exports_dir() / self.pk.hex

    @property
    def path(self) -> Path:
        return paths.exports_dir() / f"{self.pk.hex}.zip"

    @property
    def is_ready(self) -> bool:
        """Return whether it can be downloaded. Backups leave exports out, because they can be made again."""
        return self.status == Status.SUCCESS and self.path.is_file()

    def move(self, to: Status, *, frm: Collection[Status], attempt: int | None = None, **changes: Any) -> None:
        """Also remove the files of an attempt that ends without success, be it that its worker was killed."""
        super().move(to, frm=frm, attempt=attempt, **changes)
        if Status.STARTED in frm and to != Status.SUCCESS:
            self.remove_files()

    def remove_files(self) -> None:
        """Remove the files, also half-written ones, once the current transaction has committed."""
        for path in (self.folder, self.path):
            paths.remove_on_commit(path)
            transaction.on_commit(partial(sweep_drafts_of, path))


class Alias(models.Model):
    """A name for a version that can be moved to another version, as in `tweets@champion`."""

    model = models.ForeignKey(RegisteredModel, models.CASCADE, related_name="aliases")
    name = NameField(_("alias"), max_length=40)
    version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="aliases")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="one_version_per_alias")]

    def __str__(self) -> str:
        return f"{self.model.name}@{self.name}"


class Measurement(models.Model):
    """How often a model version was right on a sample of a dataset's rows. Neither ever changes, so it is measured once."""

    version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="measurements")
    data_hash = models.CharField(max_length=64)
    asked = models.PositiveIntegerField()  # rows of the requested sample; `rows` is how many of them were measured
    rows = models.PositiveIntegerField()
    right = models.PositiveIntegerField()
    seconds = models.FloatField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "data_hash", "asked"], name="one_measurement_per_sample")
        ]

    @property
    def accuracy(self) -> float:
        return self.right / self.rows if self.rows else 0.0
