"""Merkle trees as Certificate Transparency has them (RFC 6962, section 2.1): one hash over many leaves."""

import hashlib
from collections.abc import Sequence

from klaudit.errors import InvalidRecord

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"
"""Without them a node could pass for a leaf."""


def merkle_root(leaves: Sequence[bytes]) -> str:
    """`sha256:` and 64 hex digits over the leaves, in their order.

    A node without a neighbour goes up as it is, which gives the same tree as the RFC's split at a power of two.

    Raises:
        InvalidRecord: no leaves.
    """
    if not leaves:
        raise InvalidRecord("expected at least one leaf of a Merkle tree; got none")
    level = [hashlib.sha256(LEAF_PREFIX + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [hashlib.sha256(NODE_PREFIX + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return f"sha256:{level[0].hex()}"
