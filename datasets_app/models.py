from math import isfinite
from pathlib import Path

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override

from engine.task_types import TaskType
from lists.models import Annotated
from web.name_fields import NameField, NameKeyField
from work import paths
from work.models import Work
from work.states import State, state_of_status

from .descriptions import MESSAGES, describe_change
from .reading.options import CHAT_KINDS

# settings of a run (`data` in the YAML) for rows that the platform stores
STORED_COLUMNS = {"text_column": "text", "label_column": "label", "split_column": "split"}

# By kind of data (`Version.Kind`), what a run learns from it unless its configuration says otherwise.
USUAL_TASK_TYPES: dict[str, TaskType] = {
    "labels": "sequence_classification",
    "multi_label": "multi_label_classification",
    "scores": "regression",
    "spans": "token_classification",
    "conversations": "causal_lm",
    "preferences": "preference",
    "text": "causal_lm",
}

QUEUE = "data"  # has a worker of its own, so that short work on data never waits behind a long training run


class Dataset(Annotated):
    """A named series of versions."""

    name = NameField(_("name"), unique=True)
    name_key = NameKeyField()
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="datasets")
    description = models.CharField(_("description"), max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    list_page = "datasets:list"
    removed_by = "datasets_app.versions.deletion.carry_out_removal"

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("datasets:detail", args=[self.name])

    @property
    def latest(self) -> "Version":
        return self.versions.all()[0]  # ordered newest first; respects prefetch_related("versions")


class Version(models.Model):
    """An immutable state of a dataset. Its rows are Parquet files named by their content's hash."""

    shared_through = "dataset"

    class Kind(models.TextChoices):
        """What the labels are."""

        LABELS = "labels", _("one label per text")
        MULTI_LABEL = "multi_label", _("any number of labels per text")
        SCORES = "scores", _("a number per text")
        SPANS = "spans", _("labelled spans of text")
        CONVERSATIONS = "conversations", _("conversations")
        PREFERENCES = "preferences", _("preferences")
        TEXT = "text", _("plain text")

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    hash = models.CharField(max_length=64, db_index=True)  # sha256 of the canonical rows
    parent = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="children")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    note = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    rows = models.PositiveIntegerField()
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.LABELS, db_default=Kind.LABELS)
    labels = models.JSONField(default=dict)  # {label: rows}
    splits = models.JSONField(default=dict)  # {"train": rows, "eval": rows, …}; empty if there is no split
    lengths = models.JSONField(default=list)  # histogram of text length in characters: [{"from", "to", "rows"}, …]
    tokens = models.JSONField(default=dict, db_default={})  # {base model: {tokens of a text: rows}}
    languages = models.JSONField(default=dict, db_default={})  # {language: rows} of a sample
    words = models.JSONField(default=dict, db_default={})  # {label: [[word, rows], …]}: words typical of the label
    change = models.JSONField(
        default=dict, db_default={}
    )  # {did, count, …}: how it was made from its parent; empty if from a file
    source = models.JSONField(default=dict)  # how the file was read: see `versions.creation.describe_source`

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["dataset", "number"], name="one_number_per_dataset")]

    def __str__(self) -> str:
        return f"{self.dataset.name}@{self.number}"

    @property
    def described(self) -> str:
        """What made this version, in the language of the reader; a note that a person wrote stays as it is."""
        with override("en"):
            is_written = bool(self.note) and self.note != describe_change(self.change)[: len(self.note)]
        return self.note if is_written or not self.change else describe_change(self.change)

    @property
    def has_pairs(self) -> bool:
        """Whether each row has a second text."""
        return bool((self.source.get("columns") or {}).get("text_pair"))

    @property
    def has_single_labels(self) -> bool:
        """Whether each row is one text with one label."""
        return self.kind == self.Kind.LABELS and not self.has_pairs

    @property
    def is_chat(self) -> bool:
        """Whether its rows are messages as JSON, without labels: conversations, preferences or plain texts."""
        return self.kind in CHAT_KINDS

    @property
    def task_type(self) -> TaskType:
        """What a run on it learns unless its configuration says otherwise."""
        return USUAL_TASK_TYPES[self.kind]

    @property
    def task_types(self) -> tuple[TaskType, ...]:
        """All that a run on it may learn, the usual one first: labels that are numbers are scores, too."""
        if self.kind == self.Kind.LABELS and self.labels and all(map(is_number, self.labels)):
            return self.task_type, "regression"
        return (self.task_type,)

    @property
    def run_columns(self) -> dict[str, str | None]:
        """The settings of a run (`data` in the YAML) that name its columns, whatever those of the file were."""
        return {**STORED_COLUMNS, "text_pair_column": "text_pair" if self.has_pairs else None}

    @property
    def path(self) -> Path:
        """Parquet file, or folder of Parquet files, with text, label (strings), row (from 1) and split or held_out."""
        return paths.datasets_dir() / self.hash[:2] / f"{self.hash}.parquet"

    def sizes(self) -> dict[int, int]:
        """Return {inode: bytes} of its files; versions that share a file have the same inode. Empty if the rows are gone."""
        path = self.path
        if path.is_dir():
            files = list(path.iterdir())
        elif path.exists():
            files = [path]
        else:
            return {}
        return {file.stat().st_ino: file.stat().st_size for file in files}


def is_number(label: str) -> bool:
    """Return whether a label is a finite number."""
    try:
        return isfinite(float(label))
    except ValueError:
        return False


class BrokenLines(models.Model):
    """The lines of a version's file that could not be read, for download: number, tab, content."""

    version = models.OneToOneField(Version, models.CASCADE, related_name="broken")
    text = models.TextField()


class Suspect(models.Model):
    """A row whose label cross-validated predictions disagree with, and the decision of a person."""

    version = models.ForeignKey(Version, models.CASCADE, related_name="suspects")
    rank = models.PositiveIntegerField()  # 1: most probably wrong
    row = models.PositiveIntegerField()
    text = models.CharField(max_length=1000)
    label = models.CharField(max_length=300)
    predicted = models.CharField(max_length=300)
    given_probability = models.FloatField()  # of its present label
    predicted_probability = models.FloatField()
    decision = models.CharField(max_length=300, null=True)  # the label that a person gave; empty string: drop the row
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ["rank"]
        constraints = [models.UniqueConstraint(fields=["version", "rank"], name="one_suspect_per_rank")]


class DraftEdit(models.Model):
    """What a person wants a row of a version to become; all of it together becomes the next version."""

    version = models.ForeignKey(Version, models.CASCADE, related_name="draft_edits")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="draft_edits")
    row = models.PositiveIntegerField()
    text = models.TextField(null=True)  # both null: drop the row
    label = models.TextField(null=True)

    class Meta:
        ordering = ["row"]
        constraints = [models.UniqueConstraint(fields=["version", "author", "row"], name="one_draft_edit_per_row")]


class Finding(models.Model):
    """One line of a version's validation report."""

    class Severity(models.TextChoices):
        ERROR = "error", _("error")
        WARNING = "warning", _("warning")
        INFO = "info", _("info")

    version = models.ForeignKey(Version, models.CASCADE, related_name="findings")
    code = models.CharField(max_length=30)
    severity = models.CharField(max_length=8, choices=Severity.choices)
    count = models.PositiveIntegerField()
    message = models.CharField(max_length=500)
    examples = models.JSONField(default=list)  # [{"row", "text", "label", …}]; rows count from 1 after the header

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["version", "code"], name="one_finding_per_code")]


class DataTask(Work):
    """Work on data that takes more than a second: store a large file, change many rows, search for wrong labels."""

    passing = True  # belongs to its owner alone: never shared, never handed over

    class Kind(models.TextChoices):
        STORE = "store", _("reading a file")
        NOISE = "noise", _("searching for wrong labels")
        CHANGE = "change", _("making a new version")
        HUB = "hub", _("fetching a data set of the hub")
        TOKENS = "tokens", _("counting tokens")

    class Stage(models.TextChoices):
        QUEUED = "queued", _("queued")
        PREPARING = "preparing", _("preparing")
        FETCHING = "fetching", _("fetching")
        READING = "reading", _("reading")
        CHECKING = "checking", _("checking")
        EMBEDDING = "embedding", _("reading the texts with the base model")
        COMPARING = "comparing", _("comparing labels with predictions")
        DONE = "done", _("done")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="data_tasks")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    name = NameField()  # of the dataset, which need not exist yet
    version = models.ForeignKey(Version, models.CASCADE, null=True, related_name="tasks")  # that it works on
    arguments = models.JSONField(default=dict)
    stage = models.CharField(max_length=10, choices=Stage.choices, default=Stage.QUEUED)

    queue = models.Value(QUEUE)
    job = "datasets_app.jobs.run"
    messages = MESSAGES

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.status})"

    @property
    def state(self) -> State:
        return state_of_status(self.status)
