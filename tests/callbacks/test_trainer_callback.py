import math
from pathlib import Path
from typing import Any

import pytest
import torch

import klaudit
from klaudit.callbacks.trainer_callback import KLAuditCallback
from klaudit.errors import InvalidBudget, InvalidConfig
from klaudit.models.language_model import LanguageModel
from klaudit.records import KLBudget, KLSeries
from klaudit.store import Store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.stops import list_stops
from tests.callbacks.trainings import BareTrainer, make_trainer, trl_logs
from tests.models.tiny import make_tiny_model

ANY_DRIFT = 1e-6
"""A limit in nats per sequence that every second step of a tiny model is over."""


# --- the embedded trainer


def test_every_step_is_one_row_with_its_kl_beta_and_score(tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", beta=0.1)
    callback = klaudit.attach(trainer, run="tiny-run", store=store_url)
    history = trainer.train().log_history
    assert callback.failures == 0
    run = store.runs.get("tiny-run")
    steps = store.steps.list(run.id)
    assert [(one.step, one.kl.value, one.kl.standard_error, one.beta, one.score) for one in steps] == [
        (entry["step"], entry["kl_full"], entry["kl_full_se"], 0.1, entry["score"]) for entry in history
    ]
    assert [one.readings["kl_k1"].value for one in steps] == [entry["kl_k1"] for entry in history]
    assert [one.metrics["entropy"] for one in steps] == [entry["entropy"] for entry in history]


def test_the_run_says_what_trained_it_and_what_each_of_its_kls_is(
    tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store
) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=1, beta=0.1, temperature=0.7)
    klaudit.attach(trainer, run="tiny-run", store=store_url)
    trainer.train()
    run = store.runs.get("tiny-run")
    assert (run.framework, run.algorithm, run.policy, run.status) == ("klaudit", "ppo", "tiny", "finished")
    assert (run.batch_size, run.beta, run.planned_steps) == (4, 0.1, 1)
    assert run.config["learning_rate"] == 1e-3
    assert run.governing_key == "kl"
    assert run.series["kl"] == KLSeries("reference", "full", "nats_per_sequence", "batch_mean", "reverse", 0.7, "kl_full")
    assert {key: (one.kind, one.estimator, one.unit) for key, one in run.series.items()} == {
        "kl": ("reference", "full", "nats_per_sequence"),
        "kl_k1": ("reference", "k1", "nats_per_sequence"),
        "kl_k3": ("reference", "k3", "nats_per_sequence"),
        "kl_update": ("update", "full", "nats_per_token"),
    }


def test_sampled_texts_and_checkpoints_are_noted(tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=3, sample_every=2, n_samples=2, save_steps=2)
    klaudit.attach(trainer, run="tiny-run", store=store_url)
    trainer.train()
    run = store.runs.get("tiny-run")
    samples = store.samples.list(run.id)
    assert [(one.step, one.index) for one in samples] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert all(len(one.tokens) == len(one.completion.split()) or one.tokens[-1].text == "<eos>" for one in samples)
    assert [(one.step, Path(one.path)) for one in store.checkpoints.list(run.id)] == [
        (step, tmp_path / "out" / f"checkpoint-{step}") for step in (2, 3)
    ]
    assert all((Path(one.path) / "model.safetensors").is_file() for one in store.checkpoints.list(run.id))


def test_a_resumed_training_goes_on_with_its_run_texts_included(tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store) -> None:
    first = make_trainer(tiny, tmp_path / "out", max_steps=2, sample_every=1)
    klaudit.attach(first, run="tiny-run", store=store_url)
    first.train()
    second = make_trainer(make_tiny_model(), tmp_path / "out", max_steps=4, sample_every=1)
    callback = klaudit.attach(second, run="tiny-run", store=store_url)
    second.train(resume_from=tmp_path / "out" / "checkpoint-2")
    assert callback.failures == 0
    (run,) = (one.run for one in store.runs.list())
    assert [(one.segment, one.step) for one in store.steps.list(run.id)] == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert {(one.segment, one.step) for one in store.samples.list(run.id)} == {(0, 1), (0, 2), (1, 3), (1, 4)}
    assert [(one.segment, one.step) for one in store.checkpoints.list(run.id)] == [(0, 2), (1, 4)]


def test_a_training_that_starts_again_leaves_the_old_run_alone(tmp_path: Path, store_url: str, store: Store) -> None:
    for _ in range(2):
        trainer = make_trainer(make_tiny_model(), tmp_path / "out", max_steps=1)
        klaudit.attach(trainer, run="tiny-run", store=store_url)
        trainer.train()
    assert {one.run.name: one.n_steps for one in store.runs.list()} == {"tiny-run": 1, "tiny-run-2": 1}


def test_the_audit_afterwards_finds_what_was_found_live(tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=4)
    klaudit.attach(trainer, run="tiny-run", store=store_url, budget=KLBudget(ANY_DRIFT, "nats_per_sequence"))
    trainer.train()
    live = store.findings.list(store.runs.get("tiny-run").id)
    assert [(one.code, one.detected_step) for one in live] == [("KLA101", 2)]
    assert tuple(live) == audit_stored_run(store, "tiny-run").findings


# --- budgets


def test_a_budget_that_says_stop_ends_the_training_and_saves_the_policy(
    tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store
) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=10)
    budget = KLBudget(ANY_DRIFT, "nats_per_sequence", on="value", action="stop")
    klaudit.attach(trainer, run="tiny-run", store=store_url, budget=budget)
    state = trainer.train()
    assert state.global_step == 2
    run = store.runs.get("tiny-run")
    assert run.status == "finished"
    assert store.steps.count(run.id) == 2
    assert [one.step for one in store.checkpoints.list(run.id)] == [2]
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").is_file()
    assert [(one.segment, one.step) for one in list_stops(store, run.id)] == [(0, 2)]


def test_a_budget_that_says_save_saves_once_an_episode(tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=5)
    budget = KLBudget(ANY_DRIFT, "nats_per_sequence", on="value", action="save_checkpoint")
    klaudit.attach(trainer, run="tiny-run", store=store_url, budget=budget)
    assert trainer.train().global_step == 5
    assert [one.step for one in store.checkpoints.list(store.runs.get("tiny-run").id)] == [2, 5]


def test_a_budget_that_only_alerts_stops_nothing(tiny: LanguageModel, tmp_path: Path, store_url: str) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=3)
    klaudit.attach(trainer, run="tiny-run", store=store_url, budget=KLBudget(ANY_DRIFT, "nats_per_sequence", on="value"))
    assert trainer.train().global_step == 3


def test_a_budget_of_the_store_is_enforced_like_one_of_the_code(tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store) -> None:
    store.budgets.add(KLBudget(ANY_DRIFT, "nats_per_sequence", on="value", action="stop", match="tiny-*"))
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=10)
    klaudit.attach(trainer, run="tiny-run", store=store_url)
    assert trainer.train().global_step == 2


def test_a_trainer_that_never_reads_should_stop_gets_an_exception(store_url: str, store: Store) -> None:
    budget = KLBudget(1.0, "nats_per_sequence", on="value", action="stop")
    store.budgets.add(KLBudget(0.9, "nats_per_sequence", match="never-*"))
    for _ in range(2):
        trainer = BareTrainer(KLAuditCallback("trl", store=store_url, budget=budget))
        with pytest.raises(klaudit.KLBudgetExceeded, match=r"KLA101 in run 'trl(-2)?': .* 2 nats/sequence at step 2") as caught:
            trainer.train([trl_logs(0.5), trl_logs(2.0), trl_logs(9.0)])
    assert [len(list_stops(store, one.run.id)) for one in store.runs.list()] == [1, 1]
    # A second start is another run, and the exception names it.
    assert "'trl-2'" in str(caught.value)
    assert {one.run.name: (one.run.status, one.n_steps) for one in store.runs.list()} == {"trl": ("finished", 2), "trl-2": ("finished", 2)}


def test_a_bound_budget_waits_until_noise_cannot_explain_the_breach(store_url: str) -> None:
    # k1 of 16 sequences: SE = sqrt(2 KL / 16), so the lower bound of 1.5 is 0.79 and that of 4 is 2.84.
    trainer = BareTrainer(KLAuditCallback("trl", store=store_url, budget=KLBudget(1.0, "nats_per_sequence", action="stop")))
    trainer.begin()
    trainer.step(trl_logs(1.5))
    with pytest.raises(klaudit.KLBudgetExceeded):
        trainer.step(trl_logs(4.0))


def test_a_policy_that_softens_a_rule_does_not_soften_the_budget(store_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "soft.toml"
    policy.write_text('name = "soft"\n[rules.KLA101]\nseverity = "info"\n')
    budget = KLBudget(1.0, "nats_per_sequence", action="stop")
    trainer = BareTrainer(KLAuditCallback("trl", store=store_url, budget=budget, policy=policy))
    with pytest.raises(klaudit.KLBudgetExceeded):
        trainer.train([trl_logs(40.0)])


def test_the_trainer_stays_stopped_until_it_begins_again(store_url: str, store: Store) -> None:
    callback = KLAuditCallback("trl", store=store_url, budget=KLBudget(1.0, "nats_per_sequence", on="value", action="stop"))
    with pytest.raises(klaudit.KLBudgetExceeded):
        BareTrainer(callback).train([trl_logs(2.0)])
    BareTrainer(callback).train([trl_logs(0.1), trl_logs(0.2)])
    assert callback.failures == 0
    run = store.runs.get("trl-2")
    assert (store.steps.count(run.id), run.governing_key) == (2, "kl")


# --- other trainers


def test_trls_run_says_what_its_kl_is_and_keeps_no_secret(store_url: str, store: Store) -> None:
    BareTrainer(KLAuditCallback("trl", store=store_url)).train([trl_logs(0.5), {**trl_logs(0.5), "objective/kl": None}])
    run = store.runs.get("trl")
    assert run.series["kl"] == KLSeries("reference", "k1", "nats_per_sequence", "batch_mean", "reverse", 0.7, "objective/kl")
    assert (run.framework, run.algorithm, run.beta, run.batch_size) == ("trl", "ppo", 0.05, 16)
    assert "s3cret" not in repr(run.config)
    first, second = store.steps.list(run.id)
    assert (first.kl.value, first.beta, first.metrics["kl_penalty"]) == (0.5, 0.05, 0.025)
    assert second.kl.value is not None
    assert math.isnan(second.kl.value)


def test_a_trainer_that_nobody_knows_is_recorded_and_governed_by_nothing(store_url: str, store: Store) -> None:
    budget = KLBudget(0.1, "nats_per_sequence", on="value", action="stop")
    BareTrainer(KLAuditCallback("other", store=store_url, budget=budget)).train([{"loss": 1.0, "kl": 5.0}, {"loss": 0.5, "kl": 9.0}])
    run = store.runs.get("other")
    assert (run.governing_key, run.series["kl"].kind) == (None, "unknown")
    assert [step.kl.value for step in store.steps.list(run.id)] == [5.0, 9.0]
    assert store.findings.list(run.id) == []


def test_evaluations_and_the_summary_at_the_end_are_no_steps(store_url: str, store: Store) -> None:
    callback = KLAuditCallback("trl", store=store_url)
    trainer = BareTrainer(callback)
    trainer.begin()
    trainer.step(trl_logs(0.5))
    trainer.log({"eval_loss": 0.3, "eval_runtime": 1.0, "epoch": 1.0})
    trainer.log({"train_runtime": 60.0, "train_loss": 0.1})
    trainer.log({})
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert callback.failures == 0
    assert store.steps.count(store.runs.get("trl").id) == 1


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nothing.db'}"
    callback = KLAuditCallback("trl", store=url, budget=KLBudget(0.1, "nats_per_sequence", on="value", action="stop"))
    BareTrainer(callback, is_world_process_zero=False).train([trl_logs(2.0)])
    assert (callback.run, callback.failures) == (None, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    callback = KLAuditCallback("trl")
    BareTrainer(callback).train([trl_logs(0.5)])
    assert callback.failures == 0
    assert (tmp_path / "klaudit.db").is_file()


def test_a_training_that_broke_off_is_marked_when_the_trainer_begins_again(store_url: str, store: Store) -> None:
    callback = KLAuditCallback("trl", store=store_url)
    broken = BareTrainer(callback)
    broken.begin()
    broken.step(trl_logs(0.5))
    BareTrainer(callback).train([trl_logs(0.5)])
    assert {one.run.name: one.run.status for one in store.runs.list()} == {"trl": "failed", "trl-2": "finished"}


# --- several logs of a step


def test_an_evaluation_stands_with_the_step_that_follows(store_url: str, store: Store) -> None:
    callback = KLAuditCallback("trl", store=store_url, heldout="eval_reward")
    trainer = BareTrainer(callback)
    trainer.begin()
    for score in (0.5, 0.7):
        trainer.step(trl_logs(0.5))
        trainer.log({"eval_reward": score, "eval_runtime": 1.0})
    trainer.step(trl_logs(0.5))
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert callback.failures == 0
    steps = store.steps.list(store.runs.get("trl").id)
    assert [one.metrics.get("heldout_score") for one in steps] == [None, 0.5, 0.7]
    assert "eval_runtime" not in steps[1].metrics


def test_a_step_that_is_logged_twice_is_recorded_once_and_the_second_log_is_counted(
    store_url: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = KLAuditCallback("trl", store=store_url)
    trainer = BareTrainer(callback)
    trainer.begin()
    trainer.step(trl_logs(0.5))
    trainer.log(trl_logs(9.0))
    trainer.step(trl_logs(0.6))
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert [one.kl.value for one in store.steps.list(store.runs.get("trl").id)] == [0.5, 0.6]
    assert callback.failures == 1
    assert "expected one log of step 1; got a second one of objective/kl" in capsys.readouterr().err


# --- what a person adds


def test_a_key_of_ones_own_is_labelled_and_governs(store_url: str, store: Store) -> None:
    series = KLSeries(estimator="full", unit="nats_per_sequence")
    budget = KLBudget(1.0, "nats_per_sequence", on="value", action="stop")
    callback = KLAuditCallback("own", store=store_url, metric_map={"my/kl": series, "my/reward": "score"}, budget=budget)
    trainer = BareTrainer(callback)
    trainer.begin()
    trainer.step({"my/kl": 0.5, "my/reward": 0.2})
    trainer.step({"my/kl": 2.0, "my/reward": 0.3})
    assert trainer.control.should_training_stop
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    run = store.runs.get("own")
    assert (run.governing_key, run.series["kl"].source_key) == ("kl", "my/kl")
    assert [(one.kl.value, one.score) for one in store.steps.list(run.id)] == [(0.5, 0.2), (2.0, 0.3)]


def test_a_metric_map_that_contradicts_the_trainer_costs_no_step(store_url: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    callback = KLAuditCallback("trl", store=store_url, metric_map={"objective/kl": "entropy"})
    BareTrainer(callback).train([trl_logs(0.5), trl_logs(0.6)])
    assert [one.kl.value for one in store.steps.list(store.runs.get("trl").id)] == [0.5, 0.6]
    assert callback.failures == 1
    assert "the metric map failed and training goes on" in capsys.readouterr().err


def test_a_trainer_that_cannot_be_read_is_recorded_as_unknown(
    store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("klaudit.callbacks.trainer_callback.find_scales", fail)
    callback = KLAuditCallback("trl", store=store_url)
    BareTrainer(callback).train([trl_logs(0.5), trl_logs(0.6)])
    run = store.runs.get("trl")
    assert (run.framework, run.governing_key, callback.failures) == ("unknown", None, 1)
    assert [one.metrics["objective/kl"] for one in store.steps.list(run.id)] == [0.5, 0.6]
    assert "recognising the trainer failed and training goes on" in capsys.readouterr().err


def test_a_heldout_score_is_recorded_with_the_step_whose_kl_is_of_the_same_policy(
    tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store
) -> None:
    seen: list[int] = []

    def score(_policy: Any, step: int) -> float:
        seen.append(step)
        return step / 10

    trainer = make_trainer(tiny, tmp_path / "out", max_steps=4)
    callback = klaudit.attach(trainer, run="tiny-run", store=store_url, heldout=klaudit.HeldoutScore(score, every_n_steps=2))
    trainer.train()
    assert callback.failures == 0
    assert seen == [1, 2, 4]
    steps = store.steps.list(store.runs.get("tiny-run").id)
    assert [one.metrics.get("heldout_score") for one in steps] == [0.1, 0.2, None, 0.4]


def test_the_embedded_trainer_is_the_same_to_the_bit_with_a_probe_and_a_heldout_score(tmp_path: Path, store_url: str, store: Store) -> None:
    alone, watched = make_tiny_model(), make_tiny_model()
    make_trainer(alone, tmp_path / "alone", max_steps=4).train()
    trainer = make_trainer(watched, tmp_path / "watched", max_steps=4)
    probe = klaudit.LiveProbe(["w1", "w2 w3"], every_n_steps=2, max_new_tokens=4)
    heldout = klaudit.HeldoutScore(lambda *_: float(torch.rand(1)), every_n_steps=1)
    callback = klaudit.attach(trainer, run="tiny-run", store=store_url, probe=probe, heldout=heldout)
    trainer.train()
    assert callback.failures == 0
    assert all(torch.equal(a, b) for a, b in zip(alone.model.parameters(), watched.model.parameters(), strict=True))
    steps = store.steps.list(store.runs.get("tiny-run").id)
    assert [one.readings["kl_probe"].value is None for one in steps] == [False, False, True, False]


@pytest.mark.parametrize(("resume", "names"), [("auto", ["tiny-run"]), ("must", ["tiny-run"]), ("never", ["tiny-run", "tiny-run-2"])])
def test_a_resumed_training_goes_on_with_its_run_unless_it_is_told_not_to(
    tiny: LanguageModel, tmp_path: Path, store_url: str, store: Store, resume: Any, names: list[str]
) -> None:
    first = make_trainer(tiny, tmp_path / "out", max_steps=1)
    klaudit.attach(first, run="tiny-run", store=store_url)
    first.train()
    second = make_trainer(make_tiny_model(), tmp_path / "out", max_steps=2)
    callback = klaudit.attach(second, run="tiny-run", store=store_url, resume=resume)
    second.train(resume_from=tmp_path / "out" / "checkpoint-1")
    assert callback.failures == 0
    assert sorted(one.run.name for one in store.runs.list()) == names
    assert callback.run is not None
    assert callback.run.name == names[-1]


# --- what is refused before training starts


def test_an_action_that_would_not_be_taken_is_refused() -> None:
    with pytest.raises(InvalidBudget, match="raise_beta"):
        KLAuditCallback("a", budget=[KLBudget(1.0, "nats_per_token"), KLBudget(1.0, "nats_per_token", action="raise_beta")])


@pytest.mark.parametrize(
    "arguments",
    [
        {"webhook": "ftp://host/"},
        {"policy": "nowhere.toml"},
        {"resume": "perhaps"},
        {"durability": "some"},
        {"heldout": 5},
        {"metric_map": {"my/kl": 5}},
        {"metric_map": {"my/reward": "scoer"}},
    ],
)
def test_what_cannot_be_meant_is_refused_before_training(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        KLAuditCallback("a", **arguments)


def test_a_settings_file_with_a_wrong_key_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "klaudit.toml").write_text('stroe = "sqlite:///a.db"')
    with pytest.raises(InvalidConfig, match="stroe"):
        KLAuditCallback("a")


def test_settings_say_where_a_run_is_kept_and_an_argument_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_url: str) -> None:
    monkeypatch.setenv("KLAUDIT_STORE", f"sqlite:///{tmp_path / 'environment.db'}")
    BareTrainer(KLAuditCallback("a")).train([trl_logs(0.5)])
    assert (tmp_path / "environment.db").is_file()
    BareTrainer(KLAuditCallback("a", store=store_url)).train([trl_logs(0.5)])


# --- the one line


def test_one_line_says_what_klaudit_sees(tiny: LanguageModel, tmp_path: Path, store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(tiny, tmp_path / "out", max_steps=2, beta=0.1, temperature=0.7, heldout=True)
    klaudit.attach(trainer, run="tiny-run", store=store_url)
    trainer.train()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("klaudit")]
    assert said == [f"klaudit: run 'tiny-run' -> {store_url}; kl_full: full, nats per sequence, temperature 0.7; beta 0.1; held-out score"]


@pytest.mark.parametrize(
    ("logs", "arguments", "seen"),
    [
        (trl_logs(0.5), {}, "objective/kl: k1, nats per sequence, temperature 0.7; beta 0.05; no held-out score"),
        (trl_logs(0.5), {"temperature": None}, "objective/kl: k1, nats per sequence, unknown temperature; beta 0.05; no held-out score"),
        (
            {"kl": 1.0},
            {"kl_coef": None},
            "no KL to the reference among the keys that this trainer logs; beta not seen; no held-out score; "
            "no trainer that klaudit knows logs these keys; a KL among them is of unknown kind until metric_map says what it is",
        ),
    ],
)
def test_the_line_says_what_is_unknown(
    store_url: str, capsys: pytest.CaptureFixture[str], logs: dict[str, float], arguments: dict[str, Any], seen: str
) -> None:
    BareTrainer(KLAuditCallback("a", store=store_url), **arguments).train([logs, logs])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"klaudit: run 'a' -> {store_url}; {seen}"
