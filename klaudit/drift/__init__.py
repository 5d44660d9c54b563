"""A checkpoint against the reference: which prompts, how far, and how sure.

Import from the modules: `prompt_set` and `interval` need no torch, `measurement` and `checkpoints` do.
"""
