"""Fill an empty installation: an admin, sample datasets, and one sample run in the queue."""

import secrets

from accounts.models import Role, User
from datasets_app.services import load_samples
from lorasite.env import BASE_DIR, env
from training.services import parse_config, submit


def fill_installation() -> None:
    """Create the first admin; with SAMPLES, store the sample datasets and submit the sample run in the admin's name."""
    admin = create_admin()
    if env.samples:
        load_samples(owner=admin)
        submit(user=admin, config=parse_config((BASE_DIR / "config" / "default.yaml").read_text()))


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
