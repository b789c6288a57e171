"""The admin of an empty installation."""

import secrets

from accounts.models import Role, User
from lorasite.env import env


def create_admin() -> User:
    """Create the first admin. If no password was configured, generate one and print it."""
    configured_password = env.django_superuser_password.get_secret_value()
    password = configured_password or secrets.token_urlsafe(12)
    admin = User.objects.create_superuser(env.django_superuser_username, env.django_superuser_email or None, password)
    admin.set_role(Role.ADMIN)
    if not configured_password:
        lines = (
            f"Sign in at http://{env.host}:{env.port}/",
            f"user      {admin.username}",
            f"password  {password}  (shown once)",
        )
        width = max(len(line) for line in lines)
        print("┌" + "─" * (width + 2) + "┐")
        for line in lines:
            print(f"│ {line:<{width}} │")
        print("└" + "─" * (width + 2) + "┘")
    return admin
