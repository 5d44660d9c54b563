"""The store: what klaudit saw and found, in a SQL database; the only room that knows SQLAlchemy and Alembic."""

from klaudit.store.ledger_snapshot import LedgerSnapshot
from klaudit.store.migration import SchemaStatus
from klaudit.store.opening import Store, check_store, open_store, require_usable, upgrade_store
from klaudit.store.rollups import LEVELS

__all__ = ["LEVELS", "LedgerSnapshot", "SchemaStatus", "Store", "check_store", "open_store", "require_usable", "upgrade_store"]
