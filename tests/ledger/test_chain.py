from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from klaudit.ledger import EMPTY_HEAD, GENESIS, hash_entry, seal, verify_entries
from klaudit.records.ledger import Actor, LedgerDraft, LedgerEntry, LedgerHead, RunHead

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
ACTOR = Actor("ada", "trainer-3", 7, "Ada")


def chain_up(drafts: list[LedgerDraft]) -> list[LedgerEntry]:
    entries: list[LedgerEntry] = []
    head, heads = EMPTY_HEAD, dict[str, RunHead]()
    for draft in drafts:
        entry = seal(draft, at=AT, actor=ACTOR, after=head, run_head=heads.get(draft.run_id or ""))
        head = LedgerHead(entry.seq, entry.hash)
        if entry.run_id is not None and entry.run_seq is not None:
            heads[entry.run_id] = RunHead(entry.run_id, entry.run_seq, entry.seq, entry.hash)
        entries.append(entry)
    return entries


DRAFTS = st.lists(
    st.builds(
        LedgerDraft,
        kind=st.just("steps"),
        body=st.dictionaries(st.text(max_size=3), st.integers() | st.floats(), max_size=2),
        run_id=st.sampled_from(["a", "b", None]),
    ),
    min_size=3,
    max_size=8,
)
CHAINS = DRAFTS.map(chain_up)


@given(CHAINS)
def test_a_chain_holds_together(entries: list[LedgerEntry]) -> None:
    assert entries[0].prev_hash == GENESIS
    assert [one.seq for one in entries] == list(range(1, len(entries) + 1))
    for run_id in ("a", "b"):
        own = [one for one in entries if one.run_id == run_id]
        assert [one.run_seq for one in own] == list(range(1, len(own) + 1))
        assert [one.run_prev_hash for one in own] == [None, *(one.hash for one in own)][: len(own)]
    assert list(verify_entries(entries)) == []


@given(CHAINS, st.data())
def test_an_entry_that_is_edited_deleted_moved_or_inserted_shows(entries: list[LedgerEntry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 2))
    one = entries[index]
    edited = replace(one, body={**one.body, "edited": True})
    hidden = replace(edited, hash=hash_entry(edited))
    for spoiled in (edited, hidden, replace(one, kind="checkpoint"), replace(one, actor=replace(ACTOR, name="Bob"))):
        assert list(verify_entries([*entries[:index], spoiled, *entries[index + 1 :]]))
    assert list(verify_entries([*entries[:index], *entries[index + 1 :]]))
    assert list(verify_entries([*entries[:index], entries[index + 1], one, *entries[index + 2 :]]))
    assert list(verify_entries([*entries[: index + 1], one, *entries[index + 1 :]]))


@given(CHAINS, st.data())
def test_a_cut_tail_does_not_show_by_itself(entries: list[LedgerEntry], data: st.DataObject) -> None:
    assert list(verify_entries(entries[: data.draw(st.integers(0, len(entries)))])) == []


def test_a_break_says_what_and_where() -> None:
    entries = chain_up([LedgerDraft("steps", {"n": number}, "a") for number in range(4)])
    (edit,) = verify_entries([entries[0], replace(entries[1], body={"n": 9}), *entries[2:]])
    assert (edit.what, edit.seq, edit.run_id) == ("entry 2 (steps) was edited", 2, "a")
    hidden = replace(entries[1], body={"n": 9})
    hidden = replace(hidden, hash=hash_entry(hidden))
    assert [one.what for one in verify_entries([entries[0], hidden, *entries[2:]])] == [
        "entry 3 (steps) does not follow entry 2",
        "entry 3 (steps) does not follow the entry of its run before it",
    ]
    assert next(one.what for one in verify_entries([entries[0], entries[3]])) == "entries 2 to 3 are missing"


def test_a_hash_never_changes() -> None:
    """Ledgers that exist hold it: another value here is another format, with a domain of its own."""
    entry = seal(LedgerDraft("steps", {"n": 1.0, "x": float("nan")}, "a"), at=AT, actor=ACTOR, after=EMPTY_HEAD, run_head=None)
    assert entry.hash == "sha256:0fb9eb792e5d9499548a8044de646edb08f28383be2608cf7a3009096fcd77f8"
