"""Pages: find an experiment, compare several, download and delete one. Its own page is that of its run."""

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from accounts import removals
from accounts.http import SignedInRequest
from lists.columns import column_heads
from lists.queries import lean_address, page_of, read_filters, render_list

from . import columns, compare, curves, selectors, services
from .answers import answer_rows
from .evaluation_sets import share_evaluation_rows
from .selectors import experiments_named, get_experiment

PER_PAGE = 40  # more would take over 100 ms


@login_required
@require_GET
@vary_on_headers("HX-Request")
@lean_address(sort=[columns.NEWEST_FIRST], columns=columns.DEFAULT)
def index(request: SignedInRequest) -> HttpResponse:
    """The experiments that the person may see."""
    query = read_filters(request.GET, selectors.FILTERS)
    shown = selectors.select_columns(request.GET.getlist("columns"))
    page = page_of(request, selectors.search(request.user, **query), PER_PAGE)
    context = {
        "page": page,
        "query": query,
        "statuses": selectors.statuses(),
        "columns": columns.COLUMNS,
        "shown": shown,
        "heads": column_heads((columns.NAME, *shown), query["sort"] or columns.NEWEST_FIRST),
        "unfinished": [experiment.task.pk for experiment in page if not experiment.task.finished],
        "lines": columns.table_lines(page, shown, query["sort"], selectors.scores_so_far(page)),
    }
    return render_list(request, "experiments/list.html", context | selectors.choices(request.user), kind="experiment")


@login_required
@require_GET
def comparison(request: SignedInRequest) -> HttpResponse:
    names = list(dict.fromkeys(request.GET.getlist("name")))  # each once, in this order
    if not compare.FEWEST <= len(names) <= compare.MOST:
        return render(request, "experiments/compare.html", {"names": names}, status=400)
    experiments = experiments_named(request.user, names)
    everything = bool(request.GET.get("all"))
    context = {
        "experiments": experiments,
        "measures": compare.measure_rows(experiments),
        "labels": compare.label_rows(experiments),
        "answers": answer_rows(experiments),
        "settings": compare.setting_rows(experiments, everything=everything),
        "everything": everything,
        "comparable": share_evaluation_rows(experiments),
        "charts": curves.comparison_charts(experiments),
    }
    return render(request, "experiments/compare.html", context)


@login_required
@require_GET
def detail(request: SignedInRequest, name: str) -> HttpResponse:
    """Redirect an address of earlier releases to the page of the run, with its query."""
    experiment = get_experiment(request.user, name)
    query = request.GET.urlencode()
    return redirect(reverse("training:run", args=[experiment.task.pk]) + (f"?{query}" if query else ""))


@login_required
@require_GET
def file(request: SignedInRequest, name: str, path: str) -> FileResponse:
    """One file of the results; only paths in the list of files are served."""
    return FileResponse(services.open_file(get_experiment(request.user, name), path), as_attachment=True)


@login_required
@require_GET
def everything(request: SignedInRequest, name: str) -> FileResponse:
    """All files of the results as one .zip."""
    experiment = get_experiment(request.user, name)
    return FileResponse(services.archive(experiment), as_attachment=True, filename=f"{experiment.name}.zip")


@login_required
@require_POST
def delete(request: SignedInRequest, name: str) -> HttpResponse:
    """Delete an experiment with its run and its folder."""
    experiment = get_experiment(request.user, name, manage=True)
    removal = services.remove(user=request.user, experiment=experiment)
    removals.show_removals(request, [removal], _("%(name)s is deleted.") % {"name": name})
    return redirect("experiments:list")
