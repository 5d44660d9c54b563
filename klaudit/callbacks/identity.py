"""What trained and what was trained: contents of models and tokenizer, versions of packages, state of the code.

What takes long, such as digests of gigabytes, is done in a thread of its own at a low priority, one thing after another.
"""

import functools
import hashlib
import os
import platform
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from klaudit.callbacks.code_state import GIT_TIMEOUT_S, describe_git, find_versions
from klaudit.callbacks.recording import Guard, say
from klaudit.digests import Progress, digest_chat_template, digest_tokenizer, digest_weights, find_weights
from klaudit.errors import ModelNotFound
from klaudit.exchange.secrets import describe_arguments
from klaudit.records import ReferenceModel
from klaudit.workflows.recorder.run_recorder import RunRecorder

LAST_DIGESTS_TIMEOUT_S = 30.0
"""How long the end of a run waits for digests that are not ready, in seconds."""
PROGRESS_EVERY_S = 30.0
LOW_PRIORITY = 10
"""Nice: a tenth of a core where training wants all of them. The lowest would leave the last checkpoint without a digest on a busy machine."""
MOST_NOTES = 20
"""A trainer whose checkpoints hold no safetensors is not noted at each of them."""
FETCHED_FILES = ("config.json", "adapter_config.json")
"""One of these lies beside the weights of every model that was fetched from the Hugging Face hub."""

Known = Mapping[str, Any]
Slow = Callable[[Progress], Known]
"""Computes more of a part; what it is given is called with bytes done and bytes in all."""
Part = tuple[Known, Slow | None]
"""What can be told at once, and what computes the rest."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of a training, and what is still to be computed."""

    known: Known
    """JSON: `policy`, `reference`, `tokenizer`, `chat_template`, `trainer`, `packages`, `git`, `platform`, and `notes` on what could not be told."""
    pending: Mapping[str, Slow]
    """What computes more of a part, by the part's name: slow, and not for the trainer's thread."""

    def complete(self, part: str, more: Known) -> "Identity":
        """With more of a part, which is not pending any more."""
        known = {**self.known, part: {**self.known.get(part, {}), **more}} if more else self.known
        return Identity(known, {name: slow for name, slow in self.pending.items() if name != part})

    def note(self, part: str, reason: str) -> "Identity":
        """With the reason why a part cannot be told, which is not pending any more."""
        return replace(self.complete(part, {}), known={**self.known, "notes": [*self.known.get("notes", ()), f"{part}: {reason}"]})


def describe_identity(*, policy: Any = None, reference: Any = None, tokenizer: Any = None, trainer: Any = None) -> Identity:
    """What can be told at once of a training, and what computes the rest. Never raises: what fails is a note.

    Args:
        policy: the model that is trained: a model, klaudit's LanguageModel, a name or a path.
        reference: the model that KL is measured against, likewise, or a ReferenceModel.
        tokenizer: of the policy, or a processor that holds it. Read on the caller's thread: a tokenizer may not be used by two at once.
        trainer: for its class.
    """
    digests: dict[Path, Known] = {}
    parts: dict[str, Callable[[], Part]] = {
        "policy": lambda: describe_model(policy, digests=digests, is_fixed=False),
        "reference": lambda: describe_model(reference, digests=digests, is_fixed=reference is not policy and has_fixed_reference(trainer)),
        "tokenizer": lambda: (describe_tokenizer(tokenizer), None),
        "chat_template": lambda: (describe_chat_template(tokenizer), None),
        "trainer": lambda: ({} if trainer is None else {"class": type(trainer).__name__, "module": type(trainer).__module__}, None),
        "platform": lambda: ({"python": platform.python_version(), "system": platform.platform()}, None),
        "packages": lambda: ({}, lambda _: find_versions()),
        "git": lambda: ({}, functools.partial(lambda directory, _: describe_git(directory), Path.cwd())),
    }
    identity = Identity({}, {})
    for part, describe in parts.items():
        try:
            at_once, slow = describe()
        except Exception as error:
            identity = identity.note(part, explain(error))
        else:
            identity = identity.complete(part, at_once)
            if slow is not None:
                identity = replace(identity, pending={**identity.pending, part: slow})
    return identity


def describe_model(model: Any, *, digests: dict[Path, Known], is_fixed: bool) -> Part:
    """A model's name, and what computes the digest of the weights that it was loaded from.

    Args:
        model: a model, klaudit's LanguageModel, a ReferenceModel, a name or a path; None: nothing is told.
        digests: of directories, kept so that policy and reference of one directory are read once.
        is_fixed: no training changes the model, so that the weights in memory can be digested where they lie in no directory.
    """
    if model is None:
        return {}, None
    if isinstance(model, ReferenceModel):
        return (
            ({"name": model.name, "digest": model.digest}, None)
            if model.digest
            else describe_model(model.name, digests=digests, is_fixed=False)
        )
    if isinstance(model, (str, Path)):
        return {"name": str(model)}, lambda report: digest_located(str(model), None, digests=digests, on_progress=report)
    inner = unwrap(model)
    config = getattr(inner, "config", None)
    name = next(
        (text for text in (getattr(model, "name", None), getattr(config, "_name_or_path", None)) if isinstance(text, str) and text), None
    )
    path, revision = getattr(model, "path", None), getattr(config, "_commit_hash", None)
    known = {
        "name": name or type(inner).__name__,
        "class": type(inner).__name__,
        **({"revision": revision} if revision else {}),
        **describe_adapter(inner),
    }

    def digest(report: Progress) -> Known:
        base_model = known.get("base_model")
        try:
            found = digest_located(str(path or base_model or name or ""), revision, digests=digests, on_progress=report)
            # What an adapter that is being trained began as lies in no file.
            return {f"base_{key}": value for key, value in found.items()} if base_model else found
        except ModelNotFound:
            if not is_fixed:
                raise
            return {"parameters_digest": digest_parameters(inner, on_progress=report)}

    return known, digest


def unwrap(model: Any) -> Any:
    """The language model inside of a LanguageModel, or of what trainers put around it."""
    # Loops that give names alone never load torch.
    from klaudit.callbacks.whole_model import unwrap_model

    return unwrap_model(getattr(model, "model", model) if hasattr(model, "tokenizer") else model)


def describe_adapter(model: Any) -> dict[str, Any]:
    """The adapters of a PEFT model, and the model that they are applied to."""
    adapters = getattr(model, "peft_config", None)
    if not isinstance(adapters, Mapping) or not adapters:
        return {}
    names = {getattr(one, "base_model_name_or_path", None) for one in adapters.values()} - {None}
    return {"adapters": sorted(map(str, adapters)), **({"base_model": names.pop()} if len(names) == 1 else {})}


def has_fixed_reference(trainer: Any) -> bool:
    """Whether the trainer leaves its reference as it is: TRL's `sync_ref_model` does not."""
    return not getattr(getattr(trainer, "args", None), "sync_ref_model", False)


def digest_located(name: str, revision: str | None, *, digests: dict[Path, Known], on_progress: Progress) -> Known:
    """Digest and size of a model's weights: in a directory, or among what was fetched from the Hugging Face hub.

    Raises:
        ModelNotFound: they lie in no directory of this machine.
        IncompleteWeights: a shard is missing, or a file changed while it was read.
        OSError: a file cannot be read.
    """
    directory = locate_weights(name, revision)
    if directory not in digests:
        weights = find_weights(directory)
        known: dict[str, Any] = {"digest": digest_weights(directory, on_progress=on_progress), "n_bytes": weights.n_bytes}
        if weights.base_model is not None:
            known["base_model"] = weights.base_model
        if weights.unused:
            known["unused_files"] = [file.name for file in weights.unused]
        digests[directory] = known
    return digests[directory]


def locate_weights(name: str, revision: str | None = None) -> Path:
    """Directory of a model's files on this machine; nothing is fetched.

    Raises:
        ModelNotFound: there is none.
    """
    if name and Path(name).is_dir():
        return Path(name).resolve()
    with suppress(ImportError, ValueError):
        from huggingface_hub import try_to_load_from_cache

        for file in FETCHED_FILES:
            found = try_to_load_from_cache(name, file, revision=revision)
            if isinstance(found, str):
                return Path(found).parent
    raise ModelNotFound(f"no digest, because the weights of {name or 'a model without a name'} lie in no directory of this machine")


def digest_parameters(model: Any, *, on_progress: Progress | None = None) -> str:
    """`sha256:` and 64 hex digits over a model in memory: name, type, shape and bytes of each tensor of its state, in order of name.

    It equals no digest of files, which hold the same weights with other bytes around them.

    Raises:
        ModelNotFound: the weights are not here as a whole.
    """
    import torch

    from klaudit.callbacks.whole_model import explain_unavailable

    reason = explain_unavailable(model)
    if reason is not None:
        raise ModelNotFound(f"no digest: {reason}")
    tensors = {name: tensor for name, tensor in sorted(model.state_dict().items()) if isinstance(tensor, torch.Tensor)}
    n_all, n_done = sum(tensor.nbytes for tensor in tensors.values()), 0
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        n_done += tensor.nbytes
        if on_progress is not None:
            on_progress(n_done, n_all)
    return f"sha256:{digest.hexdigest()}"


def describe_tokenizer(tokenizer: Any) -> Known:
    """Name, class, size and digest of a tokenizer, or of the one that a processor holds."""
    if tokenizer is None:
        return {}
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    return {
        "name": str(getattr(inner, "name_or_path", "")) or None,
        "class": type(inner).__name__,
        "vocab_size": len(inner),
        "digest": digest_tokenizer(inner),
    }


def describe_chat_template(tokenizer: Any) -> Known:
    """Digest of the chat template; empty where there is none."""
    template = getattr(tokenizer, "chat_template", None) or getattr(getattr(tokenizer, "tokenizer", None), "chat_template", None)
    return {"digest": digest_chat_template(template)} if template else {}


class Abandoned(Exception):
    """The run ended before a digest was ready."""


def explain(error: Exception) -> str:
    """An error in one line."""
    text = str(error) if isinstance(error, (Abandoned, ModelNotFound)) else f"{type(error).__name__}: {error}"
    return text.partition("\n")[0]


class IdentityWorker:
    """Computes what identifies a run while it trains, and hands it to the recorder.

    Args:
        recorder: of the run; closed after this.
        guard: counts what fails.
    """

    def __init__(self, recorder: RunRecorder, *, guard: Guard) -> None:
        self._recorder = recorder
        self._guard = guard
        self._identity = Identity({}, {})
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._until: float | None = None
        self._thread: threading.Thread | None = None

    def describe(self, identity: Identity) -> None:
        """Record what is known at once, and again with what was still to be computed; returns at once."""
        self._identity = identity
        self._record()
        if identity.pending:
            self._put(self._complete)

    def note(self, lines: Sequence[str]) -> None:
        """Record what a person should know of the run's numbers, after what is being computed; returns at once."""
        if lines:
            self._put(functools.partial(self._add_notes, tuple(lines)))

    def add_checkpoint(self, *, step: int, path: str) -> None:
        """Note a saved policy at once, and again with its digest; returns at once."""
        self._recorder.add_checkpoint(step=step, path=path)
        self._put(lambda: self._digest_checkpoint(step, path))

    def close(self, timeout_s: float = LAST_DIGESTS_TIMEOUT_S) -> None:
        """Wait for what is not ready, within bounded time; what is not ready by then has no digest, and the identity says so."""
        self._until = time.monotonic() + timeout_s
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout_s + GIT_TIMEOUT_S)

    def _put(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="klaudit-identity", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        # There alone a priority belongs to a thread; reading files heeds it as computing does.
        if sys.platform == "linux":
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), LOW_PRIORITY))
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._guard.note("identifying", error)

    def _complete(self) -> None:
        for part, slow in self._identity.pending.items():
            try:
                self._identity = self._identity.complete(part, slow(self._watch(part)))
            except Exception as error:
                self._identity = self._identity.note(part, explain(error))
        self._record()

    def _add_notes(self, lines: Sequence[str]) -> None:
        known = self._identity.known
        self._identity = replace(self._identity, known={**known, "notes": [*known.get("notes", ()), *lines]})
        self._record()

    def _digest_checkpoint(self, step: int, path: str) -> None:
        try:
            digest = digest_weights(path, on_progress=self._watch(Path(path).name))
        except (Abandoned, ModelNotFound, OSError) as error:
            if len(self._identity.known.get("notes", ())) < MOST_NOTES:
                self._identity = self._identity.note(Path(path).name, explain(error))
                self._record()
        else:
            self._recorder.add_checkpoint(step=step, path=path, digest=digest)

    def _record(self) -> None:
        self._recorder.set_identity(describe_arguments(self._identity.known))

    def _watch(self, what: str) -> Progress:
        """Says now and then how far a long digest is, and ends it when the run's end has waited long enough."""
        started = said = time.monotonic()

        def report(n_done: int, n_all: int) -> None:
            nonlocal said
            now = time.monotonic()
            if self._until is not None and now > self._until:
                raise Abandoned(f"no digest, because the run ended when {n_done:,} of {n_all:,} bytes were read")
            if now - said >= PROGRESS_EVERY_S:
                said = now
                say(f"digest of {what}: {n_done / 1e9:.1f} of {n_all / 1e9:.1f} GB at {n_done / 1e6 / (now - started):.0f} MB/s")

        return report
