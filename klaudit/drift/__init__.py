"""A checkpoint against the reference: which prompts, how far, and how sure.

Prompts become tasks (`plan`), an executor makes shards of them (`executor`, `shard`), and everything else is computed from shards (`summary`,
`profile`, `precision`). Import from the modules: planning and computing need no torch, identifying and measuring do.
"""
