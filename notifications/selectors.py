"""What pages read of a person's notifications."""

from accounts.models import User

MOST_COUNTED = 99


def count_unread(user: User) -> int:
    """Return how many notices the person has not seen, MOST_COUNTED at most."""
    return user.notices.filter(read_at=None)[:MOST_COUNTED].count()
