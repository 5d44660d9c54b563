"""One monitor for a run that is being trained: every step is journaled at once, then audited, stored and, where a finding asks for it, told.

`log()` writes one line to a local journal and returns. A thread carries the steps into the store in batches and trims the journal.
When the store does not answer, steps wait in the journal; when the process dies, whoever opens the store next carries them over.
"""
