"""People with a role."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accounts.models import User


def make_user(name: str, role: str) -> "User":
    """Create a person; `role` is admin, member or viewer.

    The rows are those that `create_user` and `set_role` store, but without their signals and queries, which take four
    milliseconds: most tests begin with a person.
    """
    from django.contrib.auth.hashers import make_password  # deferred: conftest.py is imported before Django is set up
    from django.contrib.auth.models import Group
    from django.utils import timezone

    from accounts import usernames
    from accounts.models import Role, Standing, User

    user = User(
        username=name,
        username_key=usernames.key_of(name),
        email=f"{name}@example.org",
        password=make_password("correct-horse-9"),
        is_staff=Role(role) == Role.ADMIN,
    )
    user.stored_name = name
    User.objects.bulk_create([user])
    group = Group.objects.only("pk").get(name=role)
    User.groups.through.objects.bulk_create([User.groups.through(user=user, group=group)])
    Standing.objects.bulk_create([Standing(user=user, role=role, since=timezone.now())])
    return user
