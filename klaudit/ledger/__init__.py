"""The ledger: a hash chain over what a store was given, in which an edit, a deletion, an insertion and a reordering show; no database here."""

from klaudit.ledger.canonical import canonicalize
from klaudit.ledger.chain import EMPTY_HEAD, GENESIS, Chain, hash_entry, seal, verify_entries
from klaudit.ledger.expectation import Expectation, StoredRow
from klaudit.ledger.merkle import merkle_root
from klaudit.ledger.step_leaf import hash_step

__all__ = [
    "EMPTY_HEAD",
    "GENESIS",
    "Chain",
    "Expectation",
    "StoredRow",
    "canonicalize",
    "hash_entry",
    "hash_step",
    "merkle_root",
    "seal",
    "verify_entries",
]
