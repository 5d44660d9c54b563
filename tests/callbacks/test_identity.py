import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from klaudit.callbacks.identity import (
    LOW_PRIORITY,
    Identity,
    IdentityWorker,
    describe_identity,
    digest_parameters,
    locate_weights,
)
from klaudit.callbacks.recording import Guard, plan_recording
from klaudit.digests import digest_chat_template, digest_tokenizer, digest_weights
from klaudit.errors import ModelNotFound
from klaudit.exchange.secrets import SECRET
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.records import ReferenceModel, Run
from klaudit.store import Store


@pytest.fixture
def saved(tiny: LanguageModel, tmp_path: Path) -> Path:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def finish(identity: Identity) -> dict[str, Any]:
    """Everything, computed here and now."""
    for part, slow in identity.pending.items():
        try:
            identity = identity.complete(part, slow(lambda done, of: None))
        except ModelNotFound as error:
            identity = identity.note(part, str(error))
    return dict(identity.known)


class Recorder:
    """What IdentityWorker needs of a RunRecorder."""

    def __init__(self) -> None:
        self.identities: list[Mapping[str, Any]] = []
        self.checkpoints: list[tuple[int, str, str | None]] = []
        self.priorities: list[int] = []

    def set_identity(self, identity: Mapping[str, Any]) -> None:
        json.dumps(identity)
        self.identities.append(identity)
        self.priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def add_checkpoint(self, *, step: int, path: str, digest: str | None = None) -> None:
        self.checkpoints.append((step, path, digest))


@pytest.fixture
def recorder() -> Any:
    return Recorder()


def test_models_loaded_from_a_directory_are_known_by_its_weights(saved: Path) -> None:
    policy = load_language_model(saved)
    known = finish(describe_identity(policy=policy, reference=policy.freeze_copy(), tokenizer=policy.tokenizer, trainer=SimpleNamespace()))
    weights = {"digest": digest_weights(saved), "n_bytes": (saved / "model.safetensors").stat().st_size}
    assert known["policy"] == {"name": str(saved), "class": "LlamaForCausalLM", **weights}
    assert known["reference"] == known["policy"]
    assert known["tokenizer"]["digest"] == digest_tokenizer(policy.tokenizer)
    assert known["tokenizer"]["vocab_size"] == len(policy.tokenizer)
    assert known["trainer"] == {"class": "SimpleNamespace", "module": "types"}
    assert known["platform"]["python"] == sys.version.split()[0]
    assert "notes" not in known


@pytest.mark.parametrize("name", ["a path", "a name of a model's config", "a reference without a digest"])
def test_a_model_may_be_given_as_what_names_it(saved: Path, name: str) -> None:
    model = {
        "a path": saved,
        "a name of a model's config": SimpleNamespace(config=SimpleNamespace(_name_or_path=str(saved))),
        "a reference without a digest": ReferenceModel(str(saved)),
    }[name]
    assert finish(describe_identity(policy=model))["policy"]["digest"] == digest_weights(saved)


def test_one_directory_is_read_once(saved: Path) -> None:
    told: list[int] = []
    for slow in (identity := describe_identity(policy=saved, reference=saved)).pending.values():
        slow(lambda done, of: told.append(done))
    assert told == [(saved / "model.safetensors").stat().st_size]
    assert {"policy", "reference", "packages", "git"} == identity.pending.keys()


def test_a_reference_that_lies_in_memory_alone_is_known_by_its_parameters(tiny: LanguageModel) -> None:
    known = finish(describe_identity(policy=tiny, reference=tiny.freeze_copy()))
    assert known["reference"] == {"name": "tiny", "class": "LlamaForCausalLM", "parameters_digest": digest_parameters(tiny.model)}
    assert known["notes"] == ["policy: no digest, because the weights of tiny lie in no directory of this machine"]


def test_a_reference_that_moves_or_is_the_policy_has_no_digest(tiny: LanguageModel) -> None:
    moving = SimpleNamespace(args=SimpleNamespace(sync_ref_model=True))
    for identity in (describe_identity(reference=tiny.freeze_copy(), trainer=moving), describe_identity(policy=tiny, reference=tiny)):
        assert "parameters_digest" not in finish(identity)["reference"]


def test_a_digest_of_parameters_follows_their_content_and_not_the_object(tiny: LanguageModel) -> None:
    copy = tiny.freeze_copy().model
    before = digest_parameters(tiny.model)
    assert digest_parameters(copy) == before
    with torch.no_grad():
        next(copy.parameters())[0, 0] += 1e-3
    assert digest_parameters(copy) != before
    assert digest_parameters(tiny.model.bfloat16()) != before
    with pytest.raises(ModelNotFound, match="offloaded"):
        digest_parameters(copy.to_empty(device="meta"))


def test_an_adapter_is_told_with_the_model_that_it_is_applied_to(saved: Path) -> None:
    peft_config = {"default": SimpleNamespace(base_model_name_or_path=str(saved))}
    known = finish(describe_identity(policy=SimpleNamespace(peft_config=peft_config, config=SimpleNamespace(_name_or_path=str(saved)))))
    assert known["policy"]["adapters"] == ["default"]
    assert known["policy"]["base_model"] == str(saved)
    assert known["policy"]["base_digest"] == digest_weights(saved)
    assert "digest" not in known["policy"]


def test_a_model_from_the_hub_is_found_where_it_was_fetched_to(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def look_up(name: str, file: str, revision: str | None = None) -> str | None:
        return str(saved / file) if (name, file, revision) == ("owner/model", "config.json", "abc") else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look_up)
    assert locate_weights("owner/model", "abc") == saved
    for name in ("owner/other", "", "not a/valid//name"):
        with pytest.raises(ModelNotFound, match="lie in no directory of this machine"):
            locate_weights(name)


def test_the_chat_template_is_the_tokenizers_or_the_processors(tiny: LanguageModel) -> None:
    tiny.tokenizer.chat_template = "{{ messages }}"
    digest = digest_chat_template("{{ messages }}")
    processor = SimpleNamespace(tokenizer=tiny.tokenizer)
    for tokenizer in (tiny.tokenizer, processor):
        known = describe_identity(tokenizer=tokenizer).known
        assert known["chat_template"] == {"digest": digest}
        assert known["tokenizer"]["vocab_size"] == len(tiny.tokenizer)


def test_what_fails_is_a_note_and_costs_nothing_else(tiny: LanguageModel) -> None:
    class Broken:
        @property
        def config(self) -> Any:
            raise RuntimeError("no config\nfor you")

    known = describe_identity(policy=Broken(), tokenizer=object(), reference=tiny.freeze_copy()).known
    assert known["notes"][0] == "policy: RuntimeError: no config"
    assert known["notes"][1].startswith("tokenizer: TypeError: ")
    assert known["reference"]["name"] == "tiny"


def test_the_worker_records_at_once_and_again_when_it_knows_more(recorder: Any, saved: Path) -> None:
    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(describe_identity(policy=saved))
    worker.add_checkpoint(step=3, path=str(saved))
    assert recorder.identities[0]["policy"] == {"name": str(saved)}
    assert recorder.checkpoints[0] == (3, str(saved), None)
    worker.close()
    assert recorder.identities[-1]["policy"]["digest"] == digest_weights(saved)
    assert recorder.checkpoints == [(3, str(saved), None), (3, str(saved), digest_weights(saved))]


def test_notes_on_a_run_stand_after_what_could_not_be_told(recorder: Any) -> None:
    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(describe_identity(policy="nowhere"))
    notes = ["each line is a mean over 10 steps"]
    worker.note(notes)
    notes.clear()
    worker.close()
    missing = "policy: no digest, because the weights of nowhere lie in no directory of this machine"
    assert recorder.identities[-1]["notes"] == [missing, "each line is a mean over 10 steps"]


def test_the_workers_thread_gives_way_to_training(recorder: Any, saved: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(describe_identity(policy=saved))
    worker.close()
    assert recorder.priorities == [own, max(own, LOW_PRIORITY)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_checkpoint_without_weights_is_noted_and_training_goes_on(recorder: Any, tmp_path: Path) -> None:
    guard = Guard()
    worker = IdentityWorker(recorder, guard=guard)
    for step in range(50):
        worker.add_checkpoint(step=step, path=str(tmp_path / f"checkpoint-{step}"))
    worker.close()
    assert len(recorder.checkpoints) == 50
    assert recorder.identities[-1]["notes"][0].startswith("checkpoint-0: Expected *.safetensors in ")
    assert len(recorder.identities[-1]["notes"]) == 20
    assert guard.failures == 0


def test_the_end_of_a_run_waits_no_longer_than_it_may(recorder: Any, tmp_path: Path) -> None:
    begun = threading.Event()

    def never_ends(report: Callable[[int, int], None]) -> Mapping[str, Any]:
        while True:
            report(1_000, 2_000_000)
            begun.set()

    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(Identity({}, {"policy": never_ends, "git": lambda _: {"commit": "abc"}}))
    begun.wait()
    worker.close(timeout_s=0.05)
    assert recorder.identities[-1]["notes"] == ["policy: no digest, because the run ended when 1,000 of 2,000,000 bytes were read"]
    assert recorder.identities[-1]["git"] == {"commit": "abc"}


def test_a_long_digest_says_how_far_it_is(
    recorder: Any, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("klaudit.callbacks.identity.PROGRESS_EVERY_S", 0.0)
    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(Identity({}, {"policy": lambda report: report(1_500_000_000, 14_000_000_000) or {}}))  # type: ignore[func-returns-value]
    worker.close()
    assert "klaudit: digest of policy: 1.5 of 14.0 GB at " in capsys.readouterr().err


def test_a_recorder_that_fails_is_counted(recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(report: object) -> Mapping[str, Any]:
        monkeypatch.setattr(recorder, "set_identity", None)
        return {}

    guard = Guard()
    worker = IdentityWorker(recorder, guard=guard)
    worker.describe(Identity({}, {"git": fail}))
    worker.close()
    assert guard.failures == 1


def test_no_secret_is_in_an_identity(recorder: Any) -> None:
    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(describe_identity(policy="https://user:hunter2@host/model"))
    worker.close()
    assert "hunter2" not in json.dumps(recorder.identities)
    assert SECRET in recorder.identities[0]["policy"]["name"]


def test_identity_and_digests_of_checkpoints_are_in_the_store(saved: Path, store_url: str, store: Store) -> None:
    plan = plan_recording(store=store_url, budget=None, policy=None, webhook=None)
    recorder = plan.begin(Run(id="", name="run", started_at=datetime.now(UTC)), reporter=Guard())
    worker = IdentityWorker(recorder, guard=Guard())
    worker.describe(describe_identity(reference=saved))
    worker.add_checkpoint(step=7, path=str(saved))
    worker.close()
    recorder.close()
    run = store.runs.get("run")
    assert run.identity is not None
    assert run.identity["reference"]["digest"] == digest_weights(saved)
    (checkpoint,) = store.checkpoints.list(run.id)
    assert (checkpoint.step, checkpoint.digest) == (7, digest_weights(saved))
