"""transformers draws a bar for every file that it reads or writes; here the caller draws one for the whole job."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled


@contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Switch transformers' progress bars off, and back on where they were on."""
    were_on = is_progress_bar_enabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if were_on:
            enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def hide_load_reports() -> Iterator[None]:
    """Neither bars nor the table of weights that were missing or not used: the caller looks at what is missing itself."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with hide_progress_bars():
            yield
    finally:
        logger.setLevel(level)
