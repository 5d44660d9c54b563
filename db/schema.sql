-- The schema of a klaudit store, revision 0003, as SQLite has it.
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
    -- JSON: digests, tokenizer, chat template, package versions, git state
    identity TEXT,
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
    -- Name of the model that it is compared with
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
    -- The journal that writes it; NULL: written without one
    session VARCHAR(64),
    -- When its writer last said that it lives
    heartbeat_at VARCHAR(27),
    -- No other writer may go on with the run before; NULL: no lease
    lease_until VARCHAR(27),
    -- Tells its process from a later one with the same id
    process_started TEXT,
    -- Of the reference model in this stretch: sha256: and 64 hex digits
    reference_digest VARCHAR(71),
    -- JSON: state of the beta controller when it began
    controller TEXT,
    -- Steps that were logged and could not be kept
    n_lost INTEGER DEFAULT '0' NOT NULL,
    -- The first of them, where it is known
    lost_first_step BIGINT,
    -- The last of them, where it is known
    lost_last_step BIGINT,
    -- Why
    lost_reason TEXT,
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

-- Hash chain over what was stored and done; never changed, never removed.
CREATE TABLE ledger_entries (
    -- 1, 2, 3 and so on over the whole store
    seq BIGINT NOT NULL,
    -- Of a run that may be gone since; NULL: about the store
    run_id VARCHAR(64),
    -- 1, 2, 3 and so on over the run
    run_seq BIGINT,
    -- Such as run, segment, steps, checkpoint or budget
    kind VARCHAR(32) NOT NULL,
    at VARCHAR(27) NOT NULL,
    -- JSON: operating-system user, host, process; a name where given
    actor TEXT NOT NULL,
    -- JSON: what happened
    body TEXT NOT NULL,
    -- hash of the entry before
    prev_hash VARCHAR(71) NOT NULL,
    -- hash of the run's entry before
    run_prev_hash VARCHAR(71),
    -- sha256: and 64 hex digits over this entry
    hash VARCHAR(71) NOT NULL,
    CONSTRAINT pk_ledger_entries PRIMARY KEY (seq),
    CONSTRAINT uq_ledger_entries_hash UNIQUE (hash)
);

-- One row a run, kept with every batch of steps, so that a list of runs reads no step.
CREATE TABLE run_summaries (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    -- Steps stored, superseded ones included
    n_steps BIGINT NOT NULL,
    -- Steps with a finite KL of kl_key
    n_kl_measured BIGINT NOT NULL,
    -- Steps with a NaN or an infinity in them
    n_non_finite BIGINT NOT NULL,
    -- Steps that were logged and could not be kept, over all segments
    n_lost BIGINT NOT NULL,
    first_segment INTEGER,
    first_step BIGINT,
    last_segment INTEGER,
    -- Of the last segment; the other columns last_ are that step's
    last_step BIGINT,
    last_logged_at VARCHAR(27),
    -- Key of the governing series, else kl
    kl_key VARCHAR(255) NOT NULL,
    -- KL of kl_key, in the unit of its kl_series
    last_kl DOUBLE,
    -- finite, nan, inf or -inf
    last_kl_kind VARCHAR(6),
    -- Its standard error, in the same unit
    last_kl_se DOUBLE,
    -- finite, nan, inf or -inf
    last_kl_se_kind VARCHAR(6),
    -- Why there is no last_kl
    last_kl_not_measured TEXT,
    -- Sequences that last_kl is a mean of
    last_n_sequences INTEGER,
    -- Mean response length of those sequences, in tokens
    last_mean_length DOUBLE,
    -- finite, nan, inf or -inf
    last_mean_length_kind VARCHAR(6),
    -- KL penalty coefficient
    last_beta DOUBLE,
    -- finite, nan, inf or -inf
    last_beta_kind VARCHAR(6),
    -- Raw reward, mean over the batch
    last_score DOUBLE,
    -- finite, nan, inf or -inf
    last_score_kind VARCHAR(6),
    -- JSON: keys of the run's rollups, in order of appearance
    rollup_keys TEXT NOT NULL,
    CONSTRAINT pk_run_summaries PRIMARY KEY (run_id),
    CONSTRAINT fk_run_summaries_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- Buckets of steps, kept with every batch, so that a chart of a long run reads few rows.
CREATE TABLE rollups (
    -- runs.id
    run_id VARCHAR(64) NOT NULL,
    -- kl, a key of steps.readings, beta, score or a metric's name
    "key" VARCHAR(255) NOT NULL,
    -- Steps a bucket: 64 or 1024
    level INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    -- step / level, rounded down
    bucket BIGINT NOT NULL,
    -- Finite values
    n INTEGER NOT NULL,
    -- Least finite value; NULL: none
    min DOUBLE,
    min_step BIGINT,
    -- Greatest finite value; NULL: none
    max DOUBLE,
    max_step BIGINT,
    -- Sum of the finite values; NULL: beyond the range of a double
    total DOUBLE,
    -- NaNs and infinities
    n_non_finite INTEGER NOT NULL,
    first_step BIGINT NOT NULL,
    last_step BIGINT NOT NULL,
    CONSTRAINT pk_rollups PRIMARY KEY (run_id, "key", level, segment, bucket),
    CONSTRAINT fk_rollups_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
) WITHOUT ROWID;

-- Sampled completions with their drift at every token; kept one by one, so that a measurement can be continued.
CREATE TABLE drift_shards (
    -- sha256: and 64 hex digits over all that decides the numbers inside
    "key" VARCHAR(71) NOT NULL,
    -- runs.id it was measured for first; others may share it. NULL: no run, or one that is gone
    run_id VARCHAR(64),
    -- Completions in it
    n_sequences INTEGER NOT NULL,
    stored_at VARCHAR(27) NOT NULL,
    -- zlib: JSON of the completions, token by token; nats
    content BLOB NOT NULL,
    CONSTRAINT pk_drift_shards PRIMARY KEY ("key"),
    CONSTRAINT fk_drift_shards_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE SET NULL
);

-- What a measurement says of a checkpoint beside its KL; its KLs are the drift_measurements of the same checkpoint and time.
CREATE TABLE drift_profiles (
    id INTEGER NOT NULL,
    -- runs.id; NULL: a checkpoint of no run
    run_id VARCHAR(64),
    -- Updates done when the checkpoint was saved
    step BIGINT,
    -- Path or name
    checkpoint TEXT NOT NULL,
    checkpoint_digest VARCHAR(71),
    -- Name of the model that it is compared with
    reference_name TEXT NOT NULL,
    reference_digest VARCHAR(71),
    -- sha256: and 64 hex digits over models, prompts and settings
    "key" VARCHAR(71) NOT NULL,
    -- Mean of reference/policy probability over the policy's sampled tokens, no unit
    ratio DOUBLE,
    -- finite, nan, inf or -inf
    ratio_kind VARCHAR(6),
    -- Lower end of its 95% interval
    ratio_low DOUBLE,
    -- finite, nan, inf or -inf
    ratio_low_kind VARCHAR(6),
    -- Upper end of its 95% interval
    ratio_high DOUBLE,
    -- finite, nan, inf or -inf
    ratio_high_kind VARCHAR(6),
    -- JSON: how well it predicts a text, nats per token with 95% intervals; NULL: not measured
    retention TEXT,
    -- JSON: relative L2 distance of the weights by layer, no unit
    layers TEXT NOT NULL,
    -- JSON: each slice of the prompts against the others, nats per token
    contrasts TEXT NOT NULL,
    -- JSON: keys of drift_shards
    shards TEXT NOT NULL,
    measured_at VARCHAR(27) NOT NULL,
    -- JSON: what is needed to measure again
    settings TEXT NOT NULL,
    CONSTRAINT pk_drift_profiles PRIMARY KEY (id),
    CONSTRAINT fk_drift_profiles_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

-- How far checkpoints are from each other, both ways.
CREATE TABLE checkpoint_distances (
    id INTEGER NOT NULL,
    -- runs.id; NULL: a checkpoint of no run
    run_id VARCHAR(64),
    -- Updates done when the checkpoint was saved
    step BIGINT,
    -- Path or name
    checkpoint TEXT NOT NULL,
    checkpoint_digest VARCHAR(71),
    -- Path or name of the other checkpoint
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
    CONSTRAINT pk_checkpoint_distances PRIMARY KEY (id),
    CONSTRAINT fk_checkpoint_distances_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);

CREATE INDEX ix_drift_measurements_run_id ON drift_measurements (run_id);
CREATE INDEX ix_findings_run_id ON findings (run_id);
CREATE INDEX ix_alerts_finding_id ON alerts (finding_id);
CREATE INDEX ix_alerts_run_id ON alerts (run_id);
CREATE UNIQUE INDEX uq_segments_session ON segments (session);
CREATE INDEX ix_ledger_entries_run_id_run_seq ON ledger_entries (run_id, run_seq);
CREATE INDEX ix_drift_shards_run_id ON drift_shards (run_id);
CREATE INDEX ix_drift_profiles_run_id ON drift_profiles (run_id);
CREATE INDEX ix_drift_profiles_key ON drift_profiles ("key");
CREATE INDEX ix_checkpoint_distances_run_id ON checkpoint_distances (run_id);
