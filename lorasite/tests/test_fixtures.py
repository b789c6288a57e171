"""What conftest.py and testing/ promise to every test, in whichever order they run."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.forms.models import model_to_dict

from accounts.models import BaseModelRule, Role, User
from testing.people import make_user


@pytest.mark.django_db
def test_roles_and_rules_of_migrations_are_there_after_a_test_that_empties_the_database() -> None:
    models = (Group, BaseModelRule, ContentType, Permission)
    before = [list(model.objects.order_by("pk").values()) for model in models]
    call_command("flush", interactive=False, verbosity=0, reset_sequences=False)  # as after transaction=True
    assert all(before)
    assert [list(model.objects.order_by("pk").values()) for model in models] == before


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role)
def test_person_of_a_test_is_stored_as_the_site_stores_one(role: Role) -> None:
    of_the_site = User.objects.create_user("ada", "ada@example.org", "correct-horse-9")
    of_the_site.set_role(role)
    stored = rows_of(of_the_site)
    of_the_site.delete()
    assert rows_of(make_user("ada", role)) == stored


def rows_of(user: User) -> dict[str, Any]:
    """Return what the database has about a person, except primary keys, times and the salt of the password."""
    user = User.objects.get(pk=user.pk)
    columns = model_to_dict(user, exclude=["id", "date_joined", "password"])
    facts = {"key": user.username_key, "standing": user.standing.role, "enters": user.check_password("correct-horse-9")}
    return columns | facts | {"groups": [group.name for group in user.groups.all()]}
