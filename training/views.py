"""Pages: the form that starts a run."""

from dataclasses import dataclass, field
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from accounts.http import SignedInRequest
from accounts.idempotency import KeyUsedError, parse_idempotency_key
from accounts.models import User
from accounts.permissions import require_creator, visible
from datasets_app.selectors import trainable_versions
from engine.config import RunConfig
from engine.config_sections import DataSection
from engine.task_types import TaskType
from experiments import remedies
from experiments.compare import flatten_config
from experiments.models import Experiment
from experiments.selectors import free_name, get_experiment
from experiments.task_types import TASK_TYPES
from web.errors import LorasiteError
from web.throttles import count_request

from . import estimates, presets, selectors, services
from .base_models import default_base_model, find_language_mismatch, list_base_models
from .chat_templates import offer_templates
from .copy_as import copies
from .field_words import with_labels
from .forms import SECTIONS, RunForm
from .hub_search import find_base_models
from .plan import plan_preset, plan_run

MOST_VERSIONS = 5  # of a dataset in the form; others are chosen on its page


@dataclass
class Outcome:
    """What a button of the form has brought, beside the values of its fields."""

    do: str = "start"
    changes: list[remedies.Change] = field(default_factory=list)
    problem: LorasiteError | None = None
    estimate: estimates.Estimate | None = None
    leaves_out_smoothing: bool = (
        False  # the preset's own label smoothing, because the loss that was entered excludes it
    )
    filled: int = 0  # values that came from YAML


@login_required
def new(request: SignedInRequest) -> HttpResponse:
    """Show the form of a run; on POST, do what the button that was pressed says (`do`)."""
    require_creator(request.user)
    if request.method != "POST":
        return open_form(request)
    count_request(request, "validate")  # each button parses the YAML values of the form
    buttons = {
        "estimate": show_estimate,
        "read": read_yaml,
        "preset": fill_from_preset,
        "dataset": fill_from_preset,
        "show": show_entered,
        "better_model": show_entered,
    }
    return buttons.get(request.POST.get("do", "start"), start)(request)


def open_form(request: SignedInRequest) -> HttpResponse:
    """Show a new form, with the remedy for an earlier run that did not learn if the address asks for it."""
    config = initial_config(request)
    outcome = Outcome()
    if "remedy" in request.GET and "like" in request.GET:
        earlier = get_experiment(request.user, request.GET["like"])
        if diagnosis := remedies.diagnose(earlier.metrics, earlier.config):
            config = remedies.apply_remedy(config, diagnosis.remedy)
            outcome.changes = diagnosis.changes
    return render_form(request, make_form(request, None, config), outcome)


def start(request: SignedInRequest) -> HttpResponse:
    """Submit the run; what is wrong with it is shown beside the fields. The hidden token makes two clicks one run."""
    form = make_form(request, request.POST, initial_config(request))
    try:
        count_request(request, "train")
        config = services.parse_config(form.configuration(), request.user)
        key = parse_idempotency_key(request.POST.get("token", ""))
        like = visible(request.user, Experiment.objects.filter(name=request.POST.get("like", ""))).first()
        task = services.submit(user=request.user, config=config, idempotency_key=key, cloned_from=like)
        return redirect("training:run", task.pk)
    except LorasiteError as error:
        problem = with_labels(error)
    form.add_service_error(problem)
    return render_form(request, form, Outcome(problem=problem))


def show_estimate(request: SignedInRequest) -> HttpResponse:
    """Show the time and memory of the run; to htmx, which asks each second while they are measured, nothing else."""
    form = make_form(request, request.POST, initial_config(request))
    outcome = Outcome("estimate")
    try:
        config = services.parse_config(form.configuration(), request.user)
        outcome.estimate = services.estimate(user=request.user, config=config, again="poll" not in request.POST)
    except LorasiteError as error:
        outcome.problem = with_labels(error)
    if request.htmx:  # with status 200 also for a problem: it shows no error responses
        return render(request, "training/estimate.html", vars(outcome) | past_error_of(outcome.estimate))
    return render_form(request, form, outcome)


def read_yaml(request: SignedInRequest) -> HttpResponse:
    """Fill in the form from a configuration in YAML."""
    text = request.POST.get("yaml", "")
    config = initial_config(request)
    outcome = Outcome("read")
    try:
        config = services.parse_config(text, request.user).model_dump(mode="json")
        usual = services.usual_task_type(request.user, services.dataset_name_of(config))
        config = services.leave_out_task(config, usual)
        outcome.filled = len(flatten_config(services.read_yaml(text)))
    except LorasiteError as error:
        outcome.problem = with_labels(error)
    return render_form(request, make_form(request, None, config), outcome)


def fill_from_preset(request: SignedInRequest) -> HttpResponse:
    """Set what a preset owns and leave the rest (preset), or fit that to another dataset which was chosen (dataset)."""
    do = request.POST["do"]
    config, changes = apply_preset(request, do)
    outcome = Outcome(do, changes)
    if do == "preset":
        version = services.known_version(request.user, services.dataset_name_of(config))
        own = presets.own_settings(chosen_preset(request), version)
        outcome.leaves_out_smoothing = presets.loss_excludes_smoothing(own, config)
    return render_form(request, make_form(request, None, config), outcome)


def show_entered(request: SignedInRequest) -> HttpResponse:
    """Show what was entered, with new snippets (show), or with the base model that was suggested (better_model)."""
    form = make_form(request, request.POST, initial_config(request))
    return render_form(request, form, Outcome(request.POST["do"]))


def render_form(request: SignedInRequest, form: RunForm, outcome: Outcome) -> HttpResponse:
    values = form.configuration()
    plan = plan_run(request.user, values)
    version = services.known_version(request.user, services.dataset_name_of(values))
    context: dict[str, Any] = {
        **vars(outcome),
        **past_error_of(plan.estimate),
        "form": form,
        "plan": plan,
        "estimate": outcome.estimate or plan.estimate,
        "sections": form.advanced_sections(unfolded={change.path for change in outcome.changes}),
        "mismatch": find_language_mismatch(version, form["model.name"].value() or ""),
        "template_choice": offer_templates(form),
        "goals": [(name, title, plan_preset(name, values, version)) for name, title in presets.TITLES.items()],
        "model_presets": presets.model_presets(form.task),
        "sample_runs": presets.sample_runs(request.user),
        "preset": form["preset"].value(),
        "yaml": request.POST.get("yaml", ""),
        "copies": copies(request, values),
    }
    return render(request, "training/new.html", context, status=outcome.problem.status if outcome.problem else 200)


def past_error_of(estimate: estimates.Estimate | None) -> dict[str, Any]:
    """Return how wrong earlier estimates were, for the page that shows one."""
    return {"past_error": estimates.past_error() if estimate and estimate.forecast else None}


def make_form(request: SignedInRequest, sent: QueryDict | None, config: dict[str, Any]) -> RunForm:
    """Return the form with what was sent, or with a configuration."""
    if sent and sent.get("do") == "better_model":
        sent = sent.copy()
        sent["model.name"] = sent.get("better_name", "")
        sent["model.revision"] = sent.get("better_revision", "")
    if request.method == "GET":
        config = fit_base_model(request, config)
    name = sent.get("data.dataset_name", "") if sent else services.dataset_name_of(config)
    usual = services.usual_task_type(request.user, name)
    task = (sent.get("task") if sent else config.get("task")) or usual or presets.USUAL_TASK
    sentence = ""
    if usual:
        sentence = _("%(dataset)s asks for: %(task)s.") % {"dataset": name, "task": TASK_TYPES[usual].title}
    form = RunForm(
        sent,
        config=config,
        task=task,
        datasets=version_choices(request.user),
        models=list_base_models(),
        task_sentence=sentence,
    )
    # Which preset has filled the form, and for which dataset: another dataset may ask for other settings.
    form.fields["preset"].initial = chosen_preset(request)
    form.fields["preset_dataset"].initial = name
    form.fields["like"].initial = request.POST.get("like") or request.GET.get("like", "")
    return form


def version_choices(user: User) -> list[tuple[str, str]]:
    """Return the newest versions of each dataset to choose from: name@version, and that with its number of rows."""
    choices = []
    for versions in trainable_versions(user).values():
        for version in versions[:MOST_VERSIONS]:
            rows = ngettext("%(count)s row", "%(count)s rows", version.rows) % {"count": f"{version.rows:,}"}
            choices.append((str(version), f"{version} · {rows}"))
    return choices


def chosen_preset(request: SignedInRequest) -> str:
    """Return the name of the preset that the form was filled from; empty if it was filled from a run or from YAML."""
    if request.method == "POST":
        return "" if request.POST.get("do") == "read" else request.POST.get("preset", "")
    return "" if "like" in request.GET else request.GET.get("preset", presets.USUAL)


def fit_base_model(request: SignedInRequest, config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a base model that reads the language of its data, if there is one on this machine.

    That of an earlier experiment stays, and so does the base model that is a preset.
    """
    if "like" in request.GET or request.GET.get("preset") in presets.files():
        return config
    better = default_base_model(services.known_version(request.user, services.dataset_name_of(config)))
    if better is None:
        return config
    return config | {"model": config["model"] | {"name": better.name, "revision": better.revision or None}}


@login_required
@require_GET
def search_base_models(request: SignedInRequest) -> HttpResponse:
    """Return the base models of the hub for a query (`q`), as options of the form's list."""
    require_creator(request.user)
    task = request.GET.get("task", "")
    known = cast("TaskType | None", task if task in TASK_TYPES else None)
    models, hub = find_base_models(request.GET.get("q", ""), task=known, search=True)
    from_hub = [model for model in models if not model.is_here and not model.recommended]
    return render(request, "training/base_model_options.html", {"models": from_hub, "hub": hub, "prefix": "hub"})


def initial_config(request: SignedInRequest) -> dict[str, Any]:
    """Return what the form starts from: an earlier experiment (`like`) or a preset, and a dataset.

    A dataset without a version means its newest one.
    """
    dataset_name = request.GET.get("dataset", "")
    like = request.GET.get("like")
    if like:
        return services.config_like(get_experiment(request.user, like), dataset_name)
    preset = request.GET.get("preset", presets.USUAL)
    newest = {name: str(versions[0]) for name, versions in trainable_versions(request.user).items()}
    if not dataset_name:
        file = presets.files().get(preset)  # none for a goal, which fits any dataset
        dataset_name = (file and file["data"]["dataset_name"]) or DataSection().dataset_name
        if newest and dataset_name.partition("@")[0] not in newest:  # the samples may be gone
            dataset_name = next(iter(newest.values()))
    dataset_name = newest.get(dataset_name, dataset_name)
    version = services.known_version(request.user, dataset_name)
    own = presets.own_settings(preset, version)
    task = version.task_type if version else presets.USUAL_TASK
    config = RunConfig.parse({"task": task, **own}).model_dump(mode="json")
    config = services.leave_out_task(config, task)  # so that another dataset may be chosen
    config["data"]["dataset_name"] = dataset_name
    return config | {"experiment_name": free_name("run-1")}


def apply_preset(request: SignedInRequest, do: str) -> tuple[dict[str, Any], list[remedies.Change]]:
    """Return what was entered with the settings of a preset, and what that changes.

    do: preset, to set all that the chosen preset owns; dataset, to fit to another dataset what the last one has set.
    """
    entered = RunForm(request.POST, config={}, task=presets.USUAL_TASK, datasets=[], models=[]).configuration()
    preset = chosen_preset(request)
    version = services.known_version(request.user, services.dataset_name_of(entered))
    if do == "preset" and preset:
        own = presets.fit_loss(presets.own_settings(preset, version), entered)
        config = presets.apply_settings(entered, own)
    else:
        earlier = services.known_version(request.user, request.POST.get("preset_dataset", ""))
        config = presets.fit_dataset(entered, preset, earlier, version)
        own = {section: config[section] for section in SECTIONS if isinstance(config.get(section), dict)}
    changes = [change for change in remedies.changes_of(entered, own) if change.before != change.after]
    return config, changes if preset else []


@login_required
@require_POST
def again(request: SignedInRequest) -> HttpResponse:
    """Submit the configuration of an experiment (`like`) again, on another version of its data (`dataset`)."""
    experiment = get_experiment(request.user, request.POST.get("like", ""))
    dataset_name = request.POST.get("dataset") or experiment.dataset_name
    config = services.parse_config(services.config_like(experiment, dataset_name), request.user)
    key = f"again-{experiment.pk}-{dataset_name}"  # so that two clicks are one run
    try:
        task = services.submit(user=request.user, config=config, idempotency_key=key, cloned_from=experiment)
    except KeyUsedError as error:
        # The first click has made the run, under the name that was free then: show it. If it was deleted or given away
        # since, submit another one.
        made_pk = error.facts.get("made")
        earlier = selectors.visible_tasks(request.user).filter(pk=made_pk).first() if made_pk else None
        task = earlier or services.submit(
            user=request.user,
            config=config,
            idempotency_key=f"{key}-{config.experiment_name}",
            cloned_from=experiment,
        )
    return redirect("training:run", task.pk)
