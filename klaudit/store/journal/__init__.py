"""The journal: what a trainer logged and the store does not hold yet, on local disk.

One file a session, `SESSION.journal`:

| line | holds |
|---|---|
| first | `klaudit-journal/1` and, at a fixed place, how many logged steps stand neither here nor in the store |
| others | CRC-32 of the rest of the line in hex, a blank, one JSON list: the entry's kind and its content |

It is made as `SESSION.new`, locked, begun, and only then gets its name, so that nobody takes it for one that was left behind. Where a person
chose other directories, the usual one holds `SESSION.elsewhere`, a JSON list of them, so that whoever opens the store finds the journal.

A line goes out in one write at a place of its own, so that a process killed in the middle leaves at most one torn line, the last, whose
`log()` had not returned. The writer holds an exclusive `flock`, which the kernel takes back when the process ends however it ends.
"""
