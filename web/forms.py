"""What every form shares."""

from django import forms

from web.errors import LorasiteError


class ServiceErrorsMixin(forms.Form):
    """A form that shows the errors of a service next to its fields."""

    def add_service_error(self, error: LorasiteError) -> None:
        """Add each problem of `error` to its field; problems of fields that this form lacks go to the top."""
        for problem in error.problems or [{"field": "", "message": error.message}]:
            field = problem["field"] if problem["field"] in self.fields else None
            self.add_error(field, str(problem["message"]))
