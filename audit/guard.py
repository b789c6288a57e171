"""Database triggers that refuse to change or delete an audit entry.

Somebody who may drop triggers can still do it; the hash chain reveals that.
"""

from django.db.backends.base.base import BaseDatabaseWrapper

_REFUSAL = "audit entries are append-only"
_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit_entry
FOR EACH ROW EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_entry
FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
"""
_SQLITE = [
    f"CREATE TRIGGER audit_no_{change} BEFORE {change} ON audit_entry BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    for change in ("update", "delete")
]
_INSTALL = {"postgresql": [_POSTGRESQL], "sqlite": _SQLITE}
_REMOVE = {
    "postgresql": [
        f"DROP TRIGGER IF EXISTS {name} ON audit_entry" for name in ("audit_append_only", "audit_no_truncate")
    ],
    "sqlite": [f"DROP TRIGGER IF EXISTS audit_no_{change}" for change in ("update", "delete")],
}


def install(connection: BaseDatabaseWrapper) -> None:
    """Create the triggers."""
    with connection.cursor() as cursor:
        for statement in _INSTALL[connection.vendor]:
            cursor.execute(statement)


def remove(connection: BaseDatabaseWrapper) -> None:
    """Drop the triggers, for a migration that rewrites the table and for tests that tamper with it."""
    with connection.cursor() as cursor:
        for statement in _REMOVE[connection.vendor]:
            cursor.execute(statement)
