"""What an empty installation gets: an admin, sample datasets, and one sample run in the queue."""

import secrets

from accounts.models import Role, User
from lorasite.env import BASE_DIR, env


def prepare() -> None:
    admin, password = make_admin()
    if password:
        record(admin.username, password)
    if env.samples:
        load_samples(admin)


def make_admin() -> tuple[User, str]:
    """The first admin, and the password that was made up for it ("" when one was given)."""
    given = env.django_superuser_password.get_secret_value()
    made = "" if given else secrets.token_urlsafe(12)
    admin = User.objects.create_superuser(
        env.django_superuser_username, env.django_superuser_email or None, given or made
    )
    admin.set_role(Role.ADMIN)
    return admin, made


def record(username: str, password: str) -> None:
    lines = (
        f"Sign in at http://{env.host}:{env.port}/",
        f"user      {username}",
        f"password  {password}  (shown once)",
    )
    width = max(map(len, lines))
    print(
        "┌" + "─" * (width + 2) + "┐",
        *(f"│ {line:<{width}} │" for line in lines),
        "└" + "─" * (width + 2) + "┘",
        sep="\n",
    )


def load_samples(admin: User) -> None:
    from datasets_app.services import load_samples as load
    from training.services import parse_config, submit

    load(owner=admin)
    submit(user=admin, config=parse_config((BASE_DIR / "config" / "default.yaml").read_text()))
