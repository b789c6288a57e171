from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from web.forms import ServiceErrorsMixin

from .models import Event, Preferences


class PreferencesForm(ServiceErrorsMixin):
    mail_events = forms.MultipleChoiceField(
        label=_("Send me an e-mail when"), choices=Event.choices, required=False, widget=forms.CheckboxSelectMultiple
    )
    webhook_events = forms.MultipleChoiceField(
        label=_("Call my webhook when"), choices=Event.choices, required=False, widget=forms.CheckboxSelectMultiple
    )
    webhook_url = forms.CharField(
        label=_("Address of the webhook"),
        max_length=500,
        required=False,
        widget=forms.URLInput({"placeholder": "https://example.org/hooks/lorasite", "autocomplete": "off"}),
        help_text=_("It receives a POST request with JSON, signed with a secret that only you and this server know."),
    )

    def __init__(self, *args: Any, preferences: Preferences, **kwargs: Any) -> None:
        kwargs["initial"] = {name: getattr(preferences, name) for name in self.base_fields}
        super().__init__(*args, **kwargs)
