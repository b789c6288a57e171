"""What the page of a dataset shows: what stands above its tabs, and each tab. Only one tab is computed."""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from django.http import QueryDict
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from accounts.http import SignedInRequest
from accounts.permissions import can_manage
from engine.config_sections import SAMPLE_MODEL
from engine.models.plain_templates import TITLES, USUAL, PlainTemplate
from samples import SAMPLE_LANGUAGE_MODEL
from web.requests import parse_whole_number
from work.models import ENDED

from .checks import report, text_statistics
from .forms import ROLES
from .models import Version
from .reading_descriptions import describe_reason
from .review import draft
from .versions.reading_report import reading_report

OVERVIEW, FINDINGS, ROWS = "overview", "findings", "rows"
TOKEN_LIMIT = 128  # the default of data.max_length
CHAT_TOKEN_LIMIT = 1024  # the same for language models
MOST_TOKENS = 8192

Context = dict[str, Any]


class Tab(NamedTuple):
    key: str
    title: str | Promise
    href: str
    number: int | None = None
    old_anchor: str = ""  # what addresses of earlier releases, which had no tabs, call this part of the page


def tab_address(version: Version, key: str) -> str:
    """Return the address of a tab of a version."""
    name = version.dataset.name
    query: dict[str, int | str] = {"version": version.number}
    if key == ROWS:
        return f"{reverse('datasets:rows', args=[name])}?{urlencode(query)}"
    if key != OVERVIEW:
        query["tab"] = key
    return f"{reverse('datasets:detail', args=[name])}?{urlencode(query)}"


def tabs_for(version: Version) -> list[Tab]:
    """Return the tabs of a version. The rows have an address of their own."""

    def tab(key: str, title: Promise, number: int | None = None, old_anchor: str = "") -> Tab:
        return Tab(key, title, tab_address(version, key), number, old_anchor)

    return [
        tab(OVERVIEW, _("Overview")),
        tab(FINDINGS, _("Findings"), version.findings.count(), "findings-title"),
        tab(ROWS, pgettext_lazy("of a dataset", "Rows"), version.rows),
        tab("versions", _("Versions"), version.dataset.versions.count(), "versions-title"),
        tab("access", _("Access"), None, "sharing-title"),
    ]


def page_context(request: SignedInRequest, version: Version) -> Context:
    """Return what the page shows with the tab that the address names, an unknown one being the overview."""
    key = request.GET.get("tab", OVERVIEW)
    key = key if key in TAB_CONTEXTS else OVERVIEW
    context = head_context(request, version, key) | {"tab_template": f"datasets_app/tabs/{key}.html"}
    return context | TAB_CONTEXTS[key](request, version)


def head_context(request: SignedInRequest, version: Version, key: str) -> Context:
    """Return what is above the tabs."""
    return {
        **report.summary(version),
        "tabs": tabs_for(version),
        "tab": key,
        "drafted": draft.count(request.user, version),
        "manages": can_manage(request.user, version.dataset),
        "running": version.tasks.exclude(status__in=ENDED).first(),
    }


def chosen_template(data: QueryDict) -> PlainTemplate:
    """Return the plain chat template that a form or an address names, else the usual one."""
    chosen = data.get("chat_template")
    return next((name for name in get_args(PlainTemplate) if name == chosen), USUAL)


def overview_context(request: SignedInRequest, version: Version) -> Context:
    """Return the charts of lengths and of tokens with the base model that the address names."""
    usual = SAMPLE_LANGUAGE_MODEL if SAMPLE_LANGUAGE_MODEL in version.tokens else SAMPLE_MODEL
    model = request.GET.get("model") or usual
    limit = parse_whole_number(request.GET.get("max_length", ""))
    if limit is None or limit > 999_999:
        limit = CHAT_TOKEN_LIMIT if version.is_chat else TOKEN_LIMIT
    limit = min(MOST_TOKENS, max(8, limit))
    chat_template = chosen_template(request.GET)
    return {
        "lengths": report.length_chart(version),
        "model": model[:200],
        "max_length": limit,
        "tokens": report.token_chart(version, model, limit, chat_template),
        "chat_template": chat_template,
        "chat_templates": TITLES.items() if text_statistics.reads_templates(version) else (),
        "counted": list(dict.fromkeys(key.partition("#")[0] for key in version.tokens)),
        "languages": report.languages(version),
    }


def findings_context(request: SignedInRequest, version: Version) -> Context:
    """Return the findings with their examples and fixes."""
    findings = report.findings(version)
    return {"findings": findings, "fixable": any(finding["fix"] for finding in findings)}


def versions_context(request: SignedInRequest, version: Version) -> Context:
    """Return how the version's file was read, in words; the versions themselves come with the dataset."""
    read = reading_report(version)
    roles = dict(ROLES)
    columns = []
    for role, column in read["columns"].items():
        if column:
            names = column if isinstance(column, list) else [column]
            columns.append((str(roles[role]), ", ".join(map(str, names))))
    left_out = [(describe_reason(reason), count) for reason, count in read["rows_left_out"].items()]
    return {"read": read, "read_columns": columns, "read_left_out": left_out}


def access_context(request: SignedInRequest, version: Version) -> Context:
    """Return nothing: the tag that shows who has access looks it up."""
    return {}


TAB_CONTEXTS: dict[str, Callable[[SignedInRequest, Version], Context]] = {
    OVERVIEW: overview_context,
    FINDINGS: findings_context,
    "versions": versions_context,
    "access": access_context,
}
