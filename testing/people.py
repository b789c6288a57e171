"""People with a role."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accounts.models import User


def make_user(name: str, role: str) -> "User":
    """Create a person; `role` is admin, member or viewer."""
    from django.contrib.auth.models import Group  # deferred: conftest.py is imported before Django is set up

    from accounts.models import Role, User

    is_admin = Role(role) == Role.ADMIN
    user = User.objects.create_user(name, f"{name}@example.org", "correct-horse-9", is_staff=is_admin)
    # Half the time of `set_role`, which a new person does not need: nothing has to be taken away.
    user.groups.add(Group.objects.get(name=role))
    return user
