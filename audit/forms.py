from django import forms
from django.utils.translation import gettext_lazy as _

from web.forms import ServiceErrorsMixin

_DAY = forms.DateInput(attrs={"type": "date"})


class FilterForm(ServiceErrorsMixin):
    """The filters of selectors.search()."""

    user = forms.CharField(label=_("Person"), required=False)
    action = forms.CharField(
        label=_("Action"),
        required=False,
        widget=forms.TextInput(attrs={"placeholder": "task.submit", "list": "audit-actions"}),
    )
    result = forms.ChoiceField(
        label=_("Result"), required=False, choices=[("", _("any")), ("ok", _("done")), ("refused", _("refused"))]
    )
    q = forms.CharField(
        label=_("Search"),
        required=False,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("object, action or person")}),
    )
    since = forms.CharField(label=_("From"), required=False, widget=_DAY)
    until = forms.CharField(label=_("Until"), required=False, widget=_DAY)
