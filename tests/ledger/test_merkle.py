import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import InvalidRecord
from klaudit.ledger import merkle_root

LEAVES = [
    bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The reference vectors of Certificate Transparency (google/certificate-transparency, merkletree tests), for trees of 1 to 8 leaves."""


@pytest.mark.parametrize("n_leaves", range(1, 9))
def test_roots_are_those_of_certificate_transparency(n_leaves: int) -> None:
    assert merkle_root(LEAVES[:n_leaves]) == f"sha256:{ROOTS[n_leaves - 1]}"


def split_root(leaves: list[bytes]) -> bytes:
    """As RFC 6962, section 2.1, defines it."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + split_root(leaves[:split]) + split_root(leaves[split:])).digest()


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70))
def test_a_root_is_that_of_the_rfc(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == f"sha256:{split_root(leaves).hex()}"


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=20, unique=True), st.data())
def test_any_change_changes_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 2))
    swapped = leaves.copy()
    swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
    edited = [*leaves[:index], leaves[index] + b"!", *leaves[index + 1 :]]
    assert len({merkle_root(one) for one in (leaves, swapped, edited, leaves[1:], [*leaves, leaves[-1]])}) == 5


def test_no_leaves_have_no_root() -> None:
    with pytest.raises(InvalidRecord, match="at least one leaf"):
        merkle_root([])
