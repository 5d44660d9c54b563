"""Flight recorder and auditor of RLHF training.

Importing this is light: what needs torch, transformers or a database is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from klaudit.errors import KlauditError, KLBudgetExceeded, MissingExtra
from klaudit.records import KLBudget, KLReading, KLSeries, ReferenceModel, Severity, TextSample, TokenScore

if TYPE_CHECKING:
    from klaudit.callbacks.attachment import attach
    from klaudit.callbacks.heldout import HeldoutScore
    from klaudit.callbacks.loop import LoopRun, start_run
    from klaudit.callbacks.probe import ADAPTER_OFF, LiveProbe
    from klaudit.callbacks.trainer_callback import KLAuditCallback

__version__ = "0.1.0"

__all__ = [
    "ADAPTER_OFF",
    "HeldoutScore",
    "KLAuditCallback",
    "KLBudget",
    "KLBudgetExceeded",
    "KLReading",
    "KLSeries",
    "KlauditError",
    "LiveProbe",
    "LoopRun",
    "ReferenceModel",
    "Severity",
    "TextSample",
    "TokenScore",
    "attach",
    "start_run",
]

_LAZY = {
    "ADAPTER_OFF": "klaudit.callbacks.probe",
    "HeldoutScore": "klaudit.callbacks.heldout",
    "KLAuditCallback": "klaudit.callbacks.trainer_callback",
    "LiveProbe": "klaudit.callbacks.probe",
    "LoopRun": "klaudit.callbacks.loop",
    "attach": "klaudit.callbacks.attachment",
    "start_run": "klaudit.callbacks.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'klaudit' has no attribute {name!r}")
    import importlib

    try:
        module = importlib.import_module(_LAZY[name])
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        raise MissingExtra(f"klaudit.{name}", "train") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
