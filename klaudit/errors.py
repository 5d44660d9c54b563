"""Every exception that klaudit raises on purpose.

KlauditError                    exit code 3: the tool could not do its work
├── InvalidRecord               2  a value that a record cannot hold
│   └── InvalidBudget           2  a KL budget that cannot be compared with anything
├── EstimatorError              2  tensors that do not fit together, an estimator that does not exist
├── InvalidConfig               2  a file or an option that a person wrote, and that klaudit cannot read
│   └── InvalidImportFile       2  a file of another tool that cannot be imported
│       └── InvalidStepsFile    2  a `klaudit-steps/1` file with a bad line
├── ModelNotFound               2  a path or a name under which no model lies
│   └── IncompleteWeights       2  weights of which a part is missing or damaged, or that change while they are read
├── UnsupportedModel            2  a model that lies there, and that klaudit does not load: pickles, adapters that cannot be merged
│   └── UnsupportedHead         2  an output head that is not one matrix, or after which something happens that klaudit does not know
├── RunNotFound                 2  no run, or more than one, answers to a name
├── NameTaken                   2  a run of that name is there already
├── MissingExtra                2  an optional dependency is not installed
├── StoreError                  3  the store cannot be used
│   ├── StoreUnreachable        3  nothing answers at the store's URL, or it is locked
│   ├── NotAStore               3  what lies at the URL was not made by klaudit
│   ├── NetworkFilesystem       3  a file that cannot be written to safely where it lies
│   ├── SchemaTooOld            3  an older klaudit made the store; it wants an upgrade
│   ├── SchemaTooNew            3  a newer klaudit made the store
│   ├── DuplicateStep           3  a (run, segment, step) that is stored already
│   ├── RunInUse                3  a live process writes the run
│   ├── JournalUnwritable       3  no directory takes the journal of a run
│   └── InvalidJournal          3  a journal that does not begin as one does
├── OutOfMemory                 3  not even one sequence fits beside the models
├── ClusterFailed               3  no Ray cluster answers, or it loses its workers
├── TrainingFailed              3  the embedded trainer cannot go on
├── AlertNotDelivered           3  a channel refused an alert
└── KLBudgetExceeded            1  a budget with action "stop" was broken: the only one that reaches a trainer
"""

from typing import ClassVar


class KlauditError(Exception):
    """Anything that klaudit raises; the message says what was expected, what came and what to do."""

    exit_code: ClassVar[int] = 3
    """What `klaudit` exits with when this error ends a command."""


class InvalidRecord(KlauditError, ValueError):
    """A value that a record cannot hold."""

    exit_code = 2


class InvalidBudget(InvalidRecord):
    """A KL budget that cannot be compared with anything."""


class EstimatorError(KlauditError, ValueError):
    """Tensors that do not fit together, or an estimator that does not exist."""

    exit_code = 2


class InvalidConfig(KlauditError, ValueError):
    """A file or an option that a person wrote, and that klaudit cannot read."""

    exit_code = 2


class InvalidImportFile(InvalidConfig):
    """A file of another tool that cannot be imported; nothing of it was taken."""


class InvalidStepsFile(InvalidImportFile):
    """A `klaudit-steps/1` file with a bad line; nothing of it was taken."""


class ModelNotFound(KlauditError, FileNotFoundError):
    """A path or a name under which no model lies."""

    exit_code = 2


class IncompleteWeights(ModelNotFound):
    """Weights of which a part is missing or damaged, or that change while they are read."""


class UnsupportedModel(KlauditError):
    """A model that lies there, and that klaudit does not load: pickles, adapters that cannot be merged."""

    exit_code = 2


class UnsupportedHead(UnsupportedModel):
    """An output head that is not one matrix, or after which something happens that klaudit does not know; logits can still be asked for."""


class RunNotFound(KlauditError, LookupError):
    """No run, or more than one, answers to a name."""

    exit_code = 2


class NameTaken(KlauditError):
    """A run of that name is there already."""

    exit_code = 2


class MissingExtra(KlauditError, ImportError):
    """An optional dependency is not installed; the message is the `pip install` line."""

    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an optional part of klaudit. Install it with: pip install "klaudit[{extra}]"')


class StoreError(KlauditError):
    """The store cannot be used."""


class StoreUnreachable(StoreError):
    """Nothing answers at the store's URL, or it is locked."""


class NotAStore(StoreError):
    """What lies at the URL was not made by klaudit."""


class NetworkFilesystem(StoreError):
    """An SQLite file on a network file system that cannot be written to safely; PostgreSQL is what several hosts share."""


class SchemaTooOld(StoreError):
    """An older klaudit made the store; it wants an upgrade."""


class SchemaTooNew(StoreError):
    """A newer klaudit made the store."""


class DuplicateStep(StoreError):
    """A (run, segment, step) that is stored already; nothing logged is ever overwritten."""


class RunInUse(StoreError):
    """A live process writes the run; one run has one writer."""


class JournalUnwritable(StoreError):
    """No directory takes the journal of a run."""


class InvalidJournal(StoreError):
    """A journal that does not begin as one does; nothing of it was taken."""


class OutOfMemory(KlauditError, MemoryError):
    """Not even one sequence fits into the memory beside the models."""


class ClusterFailed(KlauditError):
    """No Ray cluster answers, or it loses its workers."""


class TrainingFailed(KlauditError):
    """The embedded trainer cannot go on."""


class AlertNotDelivered(KlauditError):
    """A channel refused an alert."""


class KLBudgetExceeded(KlauditError, RuntimeError):
    """A budget with action "stop" was broken: the only exception that leaves klaudit into a trainer."""

    exit_code = 1
