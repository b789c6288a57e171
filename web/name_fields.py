"""Model, form and serializer fields of names: each takes a name in any Unicode form and passes it on in that of `engine.names`."""

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.db import models

from engine.names import LONGEST_KEY, LONGEST_NAME, folder_name, name_key, normalise_name
from web.requests import StrictCharField


class PlainColumn(models.CharField):
    """Base of these fields: what they add needs no migration, so migrations have the plain column."""

    usual: ClassVar[dict[str, Any]]  # options of the column unless others are given

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**self.usual, **options})

    def deconstruct(self) -> Any:
        name, _path, arguments, options = super().deconstruct()
        return name, "django.db.models.CharField", arguments, options


class NameField(PlainColumn):
    """A name. Lookups take any Unicode form of it too."""

    usual: ClassVar = {"max_length": LONGEST_NAME}

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        # No database stores half of a surrogate pair, and PostgreSQL no NUL. No name has them, nor what replaces them here.
        return normalise_name(value).encode(errors="replace").decode().replace("\x00", "?") if value else value

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        name = super().pre_save(model_instance, add)
        if isinstance(name, str):
            name = normalise_name(name)
            setattr(model_instance, self.attname, name)
        return name


class DerivedField(PlainColumn):
    """What a new row derives from its name, by the function `derive`. A row of an earlier release may have none."""

    usual: ClassVar = {"null": True, "unique": True, "editable": False}
    derive: Callable[[str], str]

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = super().pre_save(model_instance, add)
        if add and value is None:
            value = self.derive(model_instance.name)  # type: ignore[attr-defined]  # a NameField stands beside this one
            setattr(model_instance, self.attname, value)
        return value


class NameKeyField(DerivedField):
    """See `engine.names.name_key`. Unique, so that of two requests at once, for Tweets and for tweets, one is refused."""

    usual: ClassVar = {**DerivedField.usual, "max_length": LONGEST_KEY}
    derive = staticmethod(name_key)


class FolderNameField(DerivedField):
    """See `engine.names.folder_name`. It is stored, so that the folder stays whatever becomes of the name."""

    usual: ClassVar = {**DerivedField.usual, "max_length": LONGEST_NAME}
    derive = staticmethod(folder_name)


class NameFormField(forms.CharField):
    """A name in a form. Its length is checked with its characters, as browsers count some characters twice."""

    def to_python(self, value: Any) -> str:
        return normalise_name(super().to_python(value) or "")


class NameSerializerField(StrictCharField):
    """A name in a request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_length": LONGEST_NAME, **options})

    def to_internal_value(self, data: object) -> str:
        return normalise_name(super().to_internal_value(data))
