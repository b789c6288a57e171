"""People with a role."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accounts.models import User


def make_user(name: str, role: str) -> "User":
    """Create a person; `role` is admin, member or viewer."""
    from accounts.models import Role, User  # deferred: conftest.py is imported before Django is set up

    user = User.objects.create_user(name, f"{name}@example.org", "correct-horse-9")
    user.set_role(Role(role))
    return user
