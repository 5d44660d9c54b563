-- The schema of a klaudit store, revision 0001, as SQLite has it.
-- Generated: change klaudit/store/tables.py and add a migration, then run `python docs/build.py`.
--
-- A float that may be NaN or infinite has two columns: `x` (NULL unless finite) and `x_kind` (finite, nan, inf, -inf; NULL: no value).
-- Times are ISO 8601 text in UTC. Inside JSON, non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Which klaudit made this store, and which upgraded it last.
CREATE TABLE klaudit_meta (
    -- created_by or upgraded_by
    name VARCHAR(32) NOT NULL,
    -- Version of klaudit
    value TEXT NOT NULL,
    CONSTRAINT pk_klaudit_meta PRIMARY KEY (name)
);

-- Training runs, as they were declared when they began.
CREATE TABLE runs (
    id VARCHAR(64) NOT NULL,
    name VARCHAR(255) NOT NULL,
    -- running, finished or failed
    status VARCHAR(16) NOT NULL,
    -- UTC, ISO 8601, like every time here
    started_at VARCHAR(27) NOT NULL,
    finished_at VARCHAR(27),
    -- Such as ppo
    algorithm TEXT,
    -- The trainer that the numbers come from
    framework TEXT,
    -- Name of the model that is trained
    policy TEXT,
    -- Name of the frozen model that KL is measured against
    reference_name TEXT,
    -- sha256: and 64 hex digits over its weights
    reference_digest VARCHAR(71),
    -- Sequences a step
    batch_size INTEGER,
    -- KL penalty coefficient at the start
    beta DOUBLE,
    -- finite, nan, inf or -inf
    beta_kind VARCHAR(6),
    planned_steps BIGINT,
    -- JSON: the trainer's arguments
    config TEXT NOT NULL,
    CONSTRAINT pk_runs PRIMARY KEY (id),
    CONSTRAINT uq_runs_name UNIQUE (name)
);

-- Saved policies.
CREATE TABLE checkpoints (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    segment INTEGER NOT NULL,
    -- Updates done when it was saved
    step BIGINT NOT NULL,
    path VARCHAR(1024) NOT NULL,
    saved_at VARCHAR(27) NOT NULL,
    -- sha256: and 64 hex digits over its weights
    digest VARCHAR(71),
    CONSTRAINT pk_checkpoints PRIMARY KEY (run_id, segment, step, path),
    CONSTRAINT fk_checkpoints_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- How far checkpoints have moved from the reference.
CREATE TABLE drift_measurements (
    id INTEGER NOT NULL,
    -- runs.id; NULL: a checkpoint of no run
    run_id VARCHAR(64),
    -- Updates done when the checkpoint was saved
    step BIGINT,
    -- Path or name
    checkpoint TEXT NOT NULL,
    checkpoint_digest VARCHAR(71),
    reference_name TEXT NOT NULL,
    reference_digest VARCHAR(71),
    -- Which part of the prompt set; NULL: all prompts
    slice TEXT,
    -- reference, update, mismatch, baseline or unknown
    kind VARCHAR(16) NOT NULL,
    -- k1, k2, k3, full or unknown
    estimator VARCHAR(16) NOT NULL,
    -- nats_per_token, nats_per_sequence or unknown
    unit VARCHAR(32) NOT NULL,
    -- batch_mean, token_mean, window_mean or unknown
    aggregation VARCHAR(16) NOT NULL,
    -- reverse: KL(policy || reference); forward; unknown
    direction VARCHAR(16) NOT NULL,
    -- Sampling temperature at which both distributions were scored
    temperature DOUBLE,
    -- The trainer's own name of the number
    source_key TEXT,
    -- Mean KL over sequences, in unit
    value DOUBLE,
    -- finite, nan, inf or -inf
    value_kind VARCHAR(6),
    -- Lower end of the 95% interval, in unit
    low DOUBLE,
    -- finite, nan, inf or -inf
    low_kind VARCHAR(6),
    -- Upper end of the 95% interval, in unit
    high DOUBLE,
    -- finite, nan, inf or -inf
    high_kind VARCHAR(6),
    n_sequences INTEGER NOT NULL,
    -- Tokens a sequence
    mean_length DOUBLE,
    -- finite, nan, inf or -inf
    mean_length_kind VARCHAR(6),
    measured_at VARCHAR(27) NOT NULL,
    -- JSON: what is needed to measure again
    settings TEXT NOT NULL,
    CONSTRAINT pk_drift_measurements PRIMARY KEY (id),
    CONSTRAINT fk_drift_measurements_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- Judgements of rules: one episode, one row, revised as it goes on.
CREATE TABLE findings (
    -- Fixed when first detected
    id VARCHAR(64) NOT NULL,
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    segment INTEGER NOT NULL,
    -- Such as KLA101
    code VARCHAR(16) NOT NULL,
    rule TEXT NOT NULL,
    rule_version INTEGER NOT NULL,
    -- info, warning or critical
    severity VARCHAR(16) NOT NULL,
    -- open or ended
    status VARCHAR(16) NOT NULL,
    -- Key of the series or metric
    series TEXT,
    -- Where the episode began
    first_step BIGINT NOT NULL,
    -- The step whose record made the rule fire; never changes
    detected_step BIGINT NOT NULL,
    -- The last step of the episode so far
    last_step BIGINT NOT NULL,
    -- The number that was judged, in unit
    value DOUBLE,
    -- finite, nan, inf or -inf
    value_kind VARCHAR(6),
    -- What it was compared with, in unit
    threshold DOUBLE,
    -- finite, nan, inf or -inf
    threshold_kind VARCHAR(6),
    unit TEXT,
    message TEXT NOT NULL,
    remedy TEXT NOT NULL,
    -- JSON: what is needed to judge again
    evidence TEXT NOT NULL,
    CONSTRAINT pk_findings PRIMARY KEY (id),
    CONSTRAINT fk_findings_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- Limits on KL that people set; removal is marked, never done.
CREATE TABLE kl_budgets (
    id VARCHAR(64) NOT NULL,
    -- The run it is for; NULL: by run_pattern
    run_id VARCHAR(64),
    -- Shell-style pattern of run names; NULL beside a NULL run_id: every run
    run_pattern TEXT,
    -- In unit
    kl_limit DOUBLE NOT NULL,
    -- nats_per_token or nats_per_sequence
    unit VARCHAR(32) NOT NULL,
    -- per_step, window, path or checkpoint
    scope VARCHAR(16) NOT NULL,
    -- Span of the EWMA of scope window, in steps
    window_steps INTEGER,
    -- bound: act once noise cannot explain it; value: at once
    breach_on VARCHAR(16) NOT NULL,
    -- alert, raise_beta, save_checkpoint or stop
    action VARCHAR(16) NOT NULL,
    owner TEXT,
    reason TEXT,
    created_at VARCHAR(27) NOT NULL,
    -- NULL: in force
    removed_at VARCHAR(27),
    CONSTRAINT pk_kl_budgets PRIMARY KEY (id),
    CONSTRAINT fk_kl_budgets_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- What each KL of a run's steps is: a KL never travels alone.
CREATE TABLE kl_series (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    -- kl for steps.kl, else a key of steps.readings
    "key" VARCHAR(255) NOT NULL,
    -- reference, update, mismatch, baseline or unknown
    kind VARCHAR(16) NOT NULL,
    -- k1, k2, k3, full or unknown
    estimator VARCHAR(16) NOT NULL,
    -- nats_per_token, nats_per_sequence or unknown
    unit VARCHAR(32) NOT NULL,
    -- batch_mean, token_mean, window_mean or unknown
    aggregation VARCHAR(16) NOT NULL,
    -- reverse: KL(policy || reference); forward; unknown
    direction VARCHAR(16) NOT NULL,
    -- Sampling temperature at which both distributions were scored
    temperature DOUBLE,
    -- The trainer's own name of the number
    source_key TEXT,
    CONSTRAINT pk_kl_series PRIMARY KEY (run_id, "key"),
    CONSTRAINT fk_kl_series_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- Uninterrupted stretches of a run; a resume starts the next.
CREATE TABLE segments (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    -- 0 for the first stretch
    segment INTEGER NOT NULL,
    started_at VARCHAR(27) NOT NULL,
    ended_at VARCHAR(27),
    host TEXT,
    -- Process id of the trainer on that host
    pid BIGINT,
    resumed_from_step BIGINT,
    CONSTRAINT pk_segments PRIMARY KEY (run_id, segment),
    CONSTRAINT fk_segments_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- One row a step: what the trainer logged.
CREATE TABLE steps (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    segment INTEGER NOT NULL,
    -- The trainer's global step
    step BIGINT NOT NULL,
    logged_at VARCHAR(27) NOT NULL,
    -- The primary reading, in the unit of the run's kl_series with key kl
    kl DOUBLE,
    -- finite, nan, inf or -inf
    kl_kind VARCHAR(6),
    -- Standard error of kl over the batch, in the same unit
    kl_se DOUBLE,
    -- finite, nan, inf or -inf
    kl_se_kind VARCHAR(6),
    -- Why there is no kl
    kl_not_measured TEXT,
    -- KL penalty coefficient in force at this step
    beta DOUBLE,
    -- finite, nan, inf or -inf
    beta_kind VARCHAR(6),
    -- Raw reward, mean over the batch
    score DOUBLE,
    -- finite, nan, inf or -inf
    score_kind VARCHAR(6),
    -- Sequences that kl is a mean of
    n_sequences INTEGER,
    -- Mean response length of those sequences, in tokens
    mean_length DOUBLE,
    -- finite, nan, inf or -inf
    mean_length_kind VARCHAR(6),
    -- JSON: the step's other KLs, {key of kl_series: {value, se, n, mean_length, not_measured}}, what is absent left
    -- out
    readings TEXT NOT NULL,
    -- JSON: every other number by name; here as above "NaN", "Infinity", "-Infinity"
    metrics TEXT NOT NULL,
    CONSTRAINT pk_steps PRIMARY KEY (run_id, segment, step),
    CONSTRAINT fk_steps_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- Findings on their way to somebody.
CREATE TABLE alerts (
    -- Also what a receiver de-duplicates by
    id VARCHAR(64) NOT NULL,
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    -- findings.id
    finding_id VARCHAR(64) NOT NULL,
    -- info, warning or critical
    severity VARCHAR(16) NOT NULL,
    step BIGINT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    -- console or webhook
    channel VARCHAR(32) NOT NULL,
    created_at VARCHAR(27) NOT NULL,
    -- pending, delivered or failed
    delivery VARCHAR(16) NOT NULL,
    -- Why the channel refused it
    error TEXT,
    CONSTRAINT pk_alerts PRIMARY KEY (id),
    CONSTRAINT fk_alerts_finding_id_findings FOREIGN KEY(finding_id) REFERENCES findings (id) ON DELETE CASCADE,
    CONSTRAINT fk_alerts_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- A few sampled completions of a step, token by token.
CREATE TABLE text_samples (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    segment INTEGER NOT NULL,
    step BIGINT NOT NULL,
    -- Which of the step's samples, from 0
    sample INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    completion TEXT NOT NULL,
    -- Raw reward of this completion
    score DOUBLE,
    -- finite, nan, inf or -inf
    score_kind VARCHAR(6),
    -- JSON: [[text, policy log-probability, reference log-probability, kl or null]], nats
    tokens TEXT NOT NULL,
    CONSTRAINT pk_text_samples PRIMARY KEY (run_id, segment, step, sample),
    CONSTRAINT fk_text_samples_run_id_segment_step_steps FOREIGN KEY(run_id, segment, step) REFERENCES steps (run_id, segment, step) ON DELETE CASCADE
);

CREATE INDEX ix_drift_measurements_run_id ON drift_measurements (run_id);
CREATE INDEX ix_findings_run_id ON findings (run_id);
CREATE INDEX ix_alerts_finding_id ON alerts (finding_id);
CREATE INDEX ix_alerts_run_id ON alerts (run_id);
