"""What conftest.py promises to every test, in whichever order they run."""

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command

from accounts.models import BaseModelRule


@pytest.mark.django_db
def test_roles_and_rules_of_migrations_are_there_after_a_test_that_empties_the_database() -> None:
    before = [list(model.objects.order_by("pk").values()) for model in (Group, BaseModelRule)]
    call_command("flush", interactive=False, verbosity=0, reset_sequences=False)  # as after transaction=True
    assert all(before)
    assert [list(model.objects.order_by("pk").values()) for model in (Group, BaseModelRule)] == before
