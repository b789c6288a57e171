"""What happens to an account and has no signal in Django; audit listens."""

from django.dispatch import Signal

password_changed = Signal()  # sender: User; user: whose password it is
role_changed = Signal()  # sender: User; user, role: what the person may do from here on
