"""What happens to an account and has no signal in Django; audit listens."""

from django.dispatch import Signal

password_changed = Signal()  # sender: User; user: whose password it is
