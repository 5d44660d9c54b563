"""PPO for language models, start to end: sample, judge, reward, update, tell the callbacks, save.

Read `PPOTrainer._take_step` first. The mathematics, and how it differs from TRL 1.12.0, stands in `objective`; what else is different on purpose:

| what | TRL 1.12.0 PPOTrainer | here |
|---|---|---|
| critic | a second model | a linear head on the policy's last hidden state, as in lm-human-preferences |
| logged KL to the reference | k1 or k3 | `kl_full` (whole vocabulary), `kl_k1`, `kl_k3`, each with its standard error |
| beta | fixed | fixed or adaptive; the controller is fed `kl_full`, the quantity of Ziegler's k1 with less noise |
| policy-update KL | k2, mean of what minibatches saw before their steps | whole vocabulary, after the last optimizer step |
| `should_training_stop` | never read | honoured, and the last policy is saved |
| `on_step_begin` | never called | called |
| resume | none | bit for bit |
| not finite | goes into the weights | logged as it is; the optimizer step is left out and counted in `skipped_minibatches` |

KL at step t is that of the policy before update t; `checkpoint-t` holds the policy after it. Dropout stays off, or the first ratios would not be 1.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

from klaudit.errors import InvalidConfig
from klaudit.kl.controllers import AdaptiveBeta, BetaController, FixedBeta
from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import sample_completions
from klaudit.ppo.arguments import PPOArguments
from klaudit.ppo.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.experience import Experience, ScoreFunction, call_score, judge_rollout, reward_rollout
from klaudit.ppo.step_log import draw_samples, measure_reference_kl, report_experience, report_update
from klaudit.ppo.update import measure_update, update_policy
from klaudit.ppo.value_head import ValueHead
from klaudit.records import TextSample


class PPOTrainer:
    """Trains a language model to score higher, at a price of beta per nat of KL to the reference.

    It speaks the callback protocol of transformers: on_train_begin, then per step on_step_begin, on_log, on_step_end and, when due, on_save; then
    on_train_end. `on_log` gets, beside `logs`, `samples`: a tuple of `TextSample`, empty on most steps. An exception out of a callback ends the run.

    Args:
        policy: the model to train; its weights change in place.
        reference: what KL is measured against; None takes a frozen copy of the policy as it is now.
        score: (prompts, completions) -> one number per completion.
        heldout_score: the same, logged beside the score and never part of the reward.
        prompts: what completions are sampled for; each step draws from them at random.
        config: everything else.
        callbacks: called in this order, after the one that decides when to save and stop.
        output_dir: where checkpoints go.

    Raises:
        InvalidConfig: no prompts, or a vocabulary that differs between policy and reference.
    """

    def __init__(
        self,
        policy: LanguageModel,
        *,
        reference: LanguageModel | None = None,
        score: ScoreFunction,
        heldout_score: ScoreFunction | None = None,
        prompts: Sequence[str],
        config: PPOConfig,
        callbacks: Sequence[TrainerCallback] = (),
        output_dir: str | Path,
    ) -> None:
        if not prompts or isinstance(prompts, str):
            raise InvalidConfig(f"PPO needs a sequence of prompts, at least one; got {prompts!r}")
        self.policy = policy
        self.reference = reference or policy.freeze_copy()
        if self.reference.model.config.vocab_size != policy.model.config.vocab_size:
            raise InvalidConfig(
                f"policy and reference must share a vocabulary; got {policy.name!r} and {self.reference.name!r}, which do not"
            )
        self.score, self.heldout_score = score, heldout_score
        # A part like score and reference: who needs other rewards puts another function in its place.
        self.reward_rollout: Callable[..., Experience] = reward_rollout
        self.prompts, self.config, self.output_dir = tuple(prompts), config, Path(output_dir)
        self.controller: BetaController = (
            FixedBeta(config.beta) if config.target_kl is None else AdaptiveBeta(config.beta, config.target_kl, config.horizon)
        )
        device = policy.model.device
        policy.model.train(False)
        value_head = ValueHead(policy.model.config.hidden_size).to(device)
        self.training = TrainingState(
            policy=policy,
            value_head=value_head,
            optimizer=torch.optim.AdamW(
                [*policy.model.parameters(), *value_head.parameters()],
                lr=config.learning_rate,
                eps=config.adam_epsilon,
                weight_decay=config.weight_decay,
                fused=True,
            ),
            controller=self.controller,
            generator=torch.Generator(device).manual_seed(config.seed),
        )
        self.args = PPOArguments(config, controller=self.controller, output_dir=self.output_dir)
        self.control = TrainerControl()
        self.callback_handler = CallbackHandler(  # type: ignore[no-untyped-call]
            [DefaultFlowCallback(), *callbacks], policy.model, policy.tokenizer, self.training.optimizer, None
        )
        self.state = self._begin_state()

    def add_callback(self, callback: TrainerCallback) -> None:
        """Call it after those that are there already."""
        self.callback_handler.add_callback(callback)  # type: ignore[no-untyped-call]

    def train(self, resume_from: str | Path | None = None) -> TrainerState:
        """Run to `max_steps`, or until a callback says stop.

        Args:
            resume_from: a `checkpoint-N` directory of a run with the same config; it goes on as if it had never stopped.

        Returns:
            The state, with everything that was logged in `log_history`.

        Raises:
            ModelNotFound: nothing to resume from there.
            TrainingFailed: the score function returned another number of scores.
        """
        self.state = self._begin_state()
        if resume_from is not None:
            saved = load_checkpoint(Path(resume_from), training=self.training)
            self.state.global_step, self.state.log_history = saved.global_step, saved.log_history
        self._call("on_train_begin")
        while self.state.global_step < self.config.max_steps and not self.control.should_training_stop:
            self._call("on_step_begin")
            logs, samples = self._take_step(self.state.global_step + 1)
            self.state.global_step += 1
            self.state.epoch = self.state.global_step / self.config.max_steps
            self.state.log_history.append({**logs, "step": self.state.global_step})
            self._call("on_log", logs=logs, samples=samples)
            self._call("on_step_end")
            if self.control.should_save or self.control.should_training_stop:
                save_checkpoint(self.output_dir, training=self.training, state=self.state, with_optimizer=self.config.save_optimizer)
                self._call("on_save")
        self._call("on_train_end")
        return self.state

    def _take_step(self, step: int) -> tuple[dict[str, float], tuple[TextSample, ...]]:
        """One PPO step: a batch of completions, what they are worth, and the update that makes the better ones likelier."""
        config, watch = self.config, Stopwatch()
        with watch.measure("seconds_step"):
            with watch.measure("seconds_sample"):
                rollout = sample_completions(
                    self.policy,
                    prompts=self._draw_prompts(),
                    max_new_tokens=config.response_length,
                    temperature=config.temperature,
                    generator=self.training.generator,
                )
            with watch.measure("seconds_score"):
                judgement = judge_rollout(
                    rollout,
                    policy=self.policy.model,
                    value_head=self.training.value_head,
                    reference=self.reference.model,
                    temperature=config.temperature,
                )
            with watch.measure("seconds_reward"):
                scores = call_score(self.score, rollout=rollout)
                heldout_scores = None if self.heldout_score is None else call_score(self.heldout_score, rollout=rollout)
            experience = self.reward_rollout(
                rollout, judgement=judgement, scores=scores, heldout_scores=heldout_scores, beta=self.controller.beta, config=config
            )
            learning_rate = self._set_learning_rate(step)
            with watch.measure("seconds_update"):
                minibatches = update_policy(self.training, experience=experience, config=config)
                kl_update = measure_update(self.training, experience=experience, config=config)
            kl = measure_reference_kl(experience)
            logs = report_experience(experience, kl=kl) | report_update(minibatches, kl_update=kl_update)
            self.controller.update(kl["full"].value, n_sequences=len(rollout))
            samples = self._draw_samples(experience, step=step)
        return logs | {"learning_rate": learning_rate} | watch.seconds, samples

    def _draw_prompts(self) -> list[str]:
        """A batch of prompts in random order, none twice before all have come up."""
        n_prompts, generator = len(self.prompts), self.training.generator
        rounds = -(-self.config.batch_size // n_prompts)
        order = torch.cat([torch.randperm(n_prompts, generator=generator, device=generator.device) for _ in range(rounds)])
        return [self.prompts[i] for i in order[: self.config.batch_size].tolist()]

    def _set_learning_rate(self, step: int) -> float:
        learning_rate = self.config.learning_rate_at(step)
        for group in self.training.optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    def _draw_samples(self, experience: Experience, *, step: int) -> tuple[TextSample, ...]:
        every = self.config.sample_every
        if every == 0 or (step - 1) % every:
            return ()
        return draw_samples(experience, policy=self.policy, step=step, n_samples=self.config.n_samples)

    def _begin_state(self) -> TrainerState:
        return TrainerState(
            max_steps=self.config.max_steps,
            logging_steps=1,
            save_steps=self.config.save_steps,
            train_batch_size=self.config.batch_size,
            num_train_epochs=1,
        )

    def _call(self, event: str, **kwargs: object) -> None:
        self.control = getattr(self.callback_handler, event)(self.args, self.state, self.control, **kwargs)


class Stopwatch:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to `seconds[part]`."""
        begin = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin
