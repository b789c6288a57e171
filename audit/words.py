"""What the page of the log calls actions, and where an entry's object is."""

from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from .models import Entry

ACTIONS: dict[str, str | Promise] = {
    "admin.add": _("Added in the admin console"),
    "admin.change": _("Changed in the admin console"),
    "admin.delete": _("Deleted in the admin console"),
    "audit.export": _("Exported the audit log"),
    "dataset.decide": _("Decided on a suspected label"),
    "dataset.change.cancel": _("Cancelled a change of a dataset"),
    "dataset.change.submit": _("Started a change of a dataset"),
    "dataset.delete": _("Deleted a dataset for good"),
    "dataset.hub.cancel": _("Cancelled an import from the hub"),
    "dataset.hub.submit": _("Started an import from the hub"),
    "dataset.noise": _("Searched for label errors"),
    "dataset.noise.cancel": _("Cancelled a search for label errors"),
    "dataset.noise.submit": _("Started a search for label errors"),
    "dataset.remove": _("Deleted a dataset"),
    "dataset.restore": _("Restored a dataset"),
    "dataset.store": _("Saved a version of a dataset"),
    "dataset.store.cancel": _("Cancelled the reading of a file"),
    "dataset.store.submit": _("Started the reading of a file"),
    "dataset.tokens": _("Counted tokens"),
    "dataset.tokens.cancel": _("Cancelled a count of tokens"),
    "dataset.tokens.submit": _("Started a count of tokens"),
    "experiment.delete": _("Deleted a run for good"),
    "experiment.download": _("Downloaded files of a run"),
    "experiment.remove": _("Deleted a run"),
    "experiment.restore": _("Restored a run"),
    "invitation.create": _("Created an invitation"),
    "invitation.end": _("Revoked an invitation"),
    "invitation.restore": _("Restored an invitation"),
    "model.alias": _("Set an alias"),
    "model.alias_end": _("Removed an alias"),
    "model.delete": _("Deleted a model for good"),
    "model.describe": _("Changed a model card"),
    "model.download": _("Downloaded a model"),
    "model.export": _("Started an export"),
    "model.export_cancel": _("Cancelled an export"),
    "model.export_delete": _("Deleted an export"),
    "model.generate": _("Let a language model answer"),
    "model.predict": _("Made a prediction"),
    "model.recommend": _("Asked for a recommendation"),
    "model.register": _("Registered a model"),
    "model.remove": _("Deleted a model"),
    "model.restore": _("Restored a model"),
    "modelversion.remove": _("Deleted a version of a model"),
    "modelversion.restore": _("Restored a version of a model"),
    "note.change": _("Changed a note"),
    "notification.change": _("Changed notifications"),
    "notification.secret": _("Replaced the secret of a webhook"),
    "notification.test": _("Sent a test message"),
    "owner.change": _("Transferred ownership"),
    "owner.hand_over": _("Handed over what somebody owned"),
    "second_factor.add": _("Set up a second factor"),
    "second_factor.check": _("Entered a code of the second factor"),
    "second_factor.remove": _("Removed a second factor"),
    "session.end": _("Signed out a session"),
    "request.refused": _("Was refused a request"),
    "share": _("Shared"),
    "share.end": _("Stopped sharing"),
    "system.backup": _("Made a backup"),
    "tag.add": _("Added a tag"),
    "tag.remove": _("Removed a tag"),
    "task.cancel": _("Cancelled a run"),
    "task.resume": _("Resumed a run"),
    "task.submit": _("Started a run"),
    "token.create": _("Created an API token"),
    "token.end": _("Revoked an API token"),
    "token.restore": _("Restored an API token"),
    "user.close": _("Deactivated an account"),
    "user.join": _("Joined by invitation"),
    "user.limits": _("Changed the limits of a person"),
    "user.locked_out": _("Was locked out after wrong passwords"),
    "user.login": _("Signed in to the site"),
    "user.logout": _("Signed out of the site"),
    "user.password_change": _("Changed a password"),
    "user.reopen": _("Reactivated an account"),
    "user.reset_link": _("Created a link for a new password"),
    "user.role_change": _("Changed a role"),
    "view.remove": _("Deleted a saved view"),
    "view.save": _("Saved a view"),
}
PAGES = {
    "dataset": "datasets:detail",
    "version": "datasets:detail",
    "experiment": "experiments:detail",
    "task": "experiments:detail",
    "registeredmodel": "experiments:model",
    "modelversion": "experiments:model",
    "user": "accounts:person",
}


def action_words(entry: Entry) -> str:
    """Return the action in words; one that has none, as of another release, by its code."""
    return str(ACTIONS.get(entry.action, entry.action))


def object_name(entry: Entry) -> str:
    """Return what the entry's object is called: of a run, without the state that it had."""
    return entry.object_id.rpartition(" (")[0] if entry.object_type == "task" else entry.object_id


def object_address(entry: Entry) -> str:
    """Return the address of the page of the entry's object, which may be gone; empty if there is no such page."""
    page = PAGES.get(entry.object_type)
    name = object_name(entry)
    if entry.object_type in ("version", "modelversion"):
        name = name.rpartition("@")[0]
    if not page or not name:
        return ""
    try:
        return reverse(page, args=[name])
    except NoReverseMatch:  # a name of an early release, which no address can contain
        return ""
