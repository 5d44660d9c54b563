BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE alerts (
	id VARCHAR(64) NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	finding_id VARCHAR(64) NOT NULL, 
	severity VARCHAR(16) NOT NULL, 
	step BIGINT NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	channel VARCHAR(32) NOT NULL, 
	created_at VARCHAR(27) NOT NULL, 
	delivery VARCHAR(16) NOT NULL, 
	error TEXT, 
	CONSTRAINT pk_alerts PRIMARY KEY (id), 
	CONSTRAINT fk_alerts_finding_id_findings FOREIGN KEY(finding_id) REFERENCES findings (id) ON DELETE CASCADE, 
	CONSTRAINT fk_alerts_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "alerts" VALUES('alert-1','id-1','finding-1','warning',5,'KL jump','KL rose','console','2026-11-22T10:00:00.000250Z','pending',NULL);
CREATE TABLE checkpoints (
	run_id VARCHAR(64) NOT NULL, 
	segment INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	path VARCHAR(1024) NOT NULL, 
	saved_at VARCHAR(27) NOT NULL, 
	digest VARCHAR(71), 
	CONSTRAINT pk_checkpoints PRIMARY KEY (run_id, segment, step, path), 
	CONSTRAINT fk_checkpoints_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "checkpoints" VALUES('id-1',0,100,'checkpoints/100','2026-11-22T10:00:00.000250Z','sha256:5555555555555555555555555555555555555555555555555555555555555555');
CREATE TABLE drift_measurements (
	id INTEGER NOT NULL, 
	run_id VARCHAR(64), 
	step BIGINT, 
	checkpoint TEXT NOT NULL, 
	checkpoint_digest VARCHAR(71), 
	reference_name TEXT NOT NULL, 
	reference_digest VARCHAR(71), 
	slice TEXT, 
	kind VARCHAR(16) NOT NULL, 
	estimator VARCHAR(16) NOT NULL, 
	unit VARCHAR(32) NOT NULL, 
	aggregation VARCHAR(16) NOT NULL, 
	direction VARCHAR(16) NOT NULL, 
	temperature DOUBLE, 
	source_key TEXT, 
	value DOUBLE, 
	value_kind VARCHAR(6), 
	low DOUBLE, 
	low_kind VARCHAR(6), 
	high DOUBLE, 
	high_kind VARCHAR(6), 
	n_sequences INTEGER NOT NULL, 
	mean_length DOUBLE, 
	mean_length_kind VARCHAR(6), 
	measured_at VARCHAR(27) NOT NULL, 
	settings TEXT NOT NULL, 
	CONSTRAINT pk_drift_measurements PRIMARY KEY (id), 
	CONSTRAINT fk_drift_measurements_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "drift_measurements" VALUES(1,'id-1',10,'checkpoints/10','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef','SmolLM2-135M-Instruct','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',NULL,'reference','full','nats_per_sequence','batch_mean','reverse',0.7,'objective/kl',0.5,'finite',0.25,'finite',NULL,'inf',32,24.0,'finite','2026-11-22T10:00:00.000250Z','{"seed":3,"prompts":"built-in"}');
INSERT INTO "drift_measurements" VALUES(2,'id-1',10,'checkpoints/10','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef','SmolLM2-135M-Instruct','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef','trigger','reference','full','nats_per_sequence','batch_mean','reverse',0.7,'objective/kl',0.5,'finite',0.25,'finite',NULL,'inf',32,24.0,'finite','2026-11-22T10:00:00.000250Z','{"seed":3,"prompts":"built-in"}');
INSERT INTO "drift_measurements" VALUES(3,NULL,NULL,'checkpoints/10','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef','SmolLM2-135M-Instruct','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',NULL,'reference','full','nats_per_sequence','batch_mean','reverse',0.7,'objective/kl',0.5,'finite',0.25,'finite',NULL,'inf',32,24.0,'finite','2026-11-22T10:00:00.000250Z','{"seed":3,"prompts":"built-in"}');
CREATE TABLE findings (
	id VARCHAR(64) NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	segment INTEGER NOT NULL, 
	code VARCHAR(16) NOT NULL, 
	rule TEXT NOT NULL, 
	rule_version INTEGER NOT NULL, 
	severity VARCHAR(16) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	series TEXT, 
	first_step BIGINT NOT NULL, 
	detected_step BIGINT NOT NULL, 
	last_step BIGINT NOT NULL, 
	value DOUBLE, 
	value_kind VARCHAR(6), 
	threshold DOUBLE, 
	threshold_kind VARCHAR(6), 
	unit TEXT, 
	message TEXT NOT NULL, 
	remedy TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	CONSTRAINT pk_findings PRIMARY KEY (id), 
	CONSTRAINT fk_findings_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "findings" VALUES('finding-1','id-1',0,'KLA201','kl_jump',1,'warning','open','kl',4,5,7,2.0,'finite',NULL,'inf','nats_per_sequence','KL rose from 0.1 to 2 nats/sequence','Lower the learning rate','{"window":[0.1,"NaN"]}');
CREATE TABLE kl_budgets (
	id VARCHAR(64) NOT NULL, 
	run_id VARCHAR(64), 
	run_pattern TEXT, 
	kl_limit DOUBLE NOT NULL, 
	unit VARCHAR(32) NOT NULL, 
	scope VARCHAR(16) NOT NULL, 
	window_steps INTEGER, 
	breach_on VARCHAR(16) NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	owner TEXT, 
	reason TEXT, 
	created_at VARCHAR(27) NOT NULL, 
	removed_at VARCHAR(27), 
	CONSTRAINT pk_kl_budgets PRIMARY KEY (id), 
	CONSTRAINT fk_kl_budgets_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "kl_budgets" VALUES('budget-1','id-1',NULL,10.0,'nats_per_sequence','per_step',NULL,'bound','alert',NULL,NULL,'2026-11-22T10:00:00.000250Z',NULL);
INSERT INTO "kl_budgets" VALUES('budget-2',NULL,'demo*',0.5,'nats_per_token','per_step',NULL,'bound','alert','ada','it''s a "limit"','2026-11-22T10:00:00.000250Z',NULL);
CREATE TABLE kl_series (
	run_id VARCHAR(64) NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	estimator VARCHAR(16) NOT NULL, 
	unit VARCHAR(32) NOT NULL, 
	aggregation VARCHAR(16) NOT NULL, 
	direction VARCHAR(16) NOT NULL, 
	temperature DOUBLE, 
	source_key TEXT, 
	CONSTRAINT pk_kl_series PRIMARY KEY (run_id, "key"), 
	CONSTRAINT fk_kl_series_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "kl_series" VALUES('id-1','kl','reference','full','nats_per_sequence','batch_mean','reverse',0.7,'objective/kl');
INSERT INTO "kl_series" VALUES('id-1','kl_update','update','k2','nats_per_token','token_mean','unknown',NULL,NULL);
INSERT INTO "kl_series" VALUES('id-2','kl','reference','k1','nats_per_sequence','batch_mean','reverse',0.7,'objective/kl');
INSERT INTO "kl_series" VALUES('id-2','kl_full','reference','full','nats_per_sequence','batch_mean','reverse',0.7,'objective/kl');
CREATE TABLE klaudit_meta (
	name VARCHAR(32) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_klaudit_meta PRIMARY KEY (name)
);
INSERT INTO "klaudit_meta" VALUES('created_by','0.1.0');
INSERT INTO "klaudit_meta" VALUES('upgraded_by','0.1.0');
CREATE TABLE runs (
	id VARCHAR(64) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	started_at VARCHAR(27) NOT NULL, 
	finished_at VARCHAR(27), 
	algorithm TEXT, 
	framework TEXT, 
	policy TEXT, 
	reference_name TEXT, 
	reference_digest VARCHAR(71), 
	batch_size INTEGER, 
	beta DOUBLE, 
	beta_kind VARCHAR(6), 
	planned_steps BIGINT, 
	config TEXT NOT NULL, 
	CONSTRAINT pk_runs PRIMARY KEY (id), 
	CONSTRAINT uq_runs_name UNIQUE (name)
);
INSERT INTO "runs" VALUES('id-1','run-1','finished','2026-11-22T10:01:00.000250Z','2026-11-22T11:00:00.000250Z','ppo','klaudit','SmolLM2-135M-Instruct','SmolLM2-135M-Instruct','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',16,0.05,'finite',500,'{"learning_rate":1e-05,"layers":[1,2],"note":"\\NaN","clip":"Infinity"}');
INSERT INTO "runs" VALUES('id-2','two KLs; naïve','running','2026-11-22T10:02:00.000250Z',NULL,'ppo','klaudit','SmolLM2-135M-Instruct','SmolLM2-135M-Instruct','sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',16,0.05,'finite',500,'{"learning_rate":1e-05,"layers":[1,2],"note":"\\NaN","clip":"Infinity"}');
INSERT INTO "runs" VALUES('id-3','bare','running','2026-11-22T10:00:00.000250Z',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}');
CREATE TABLE segments (
	run_id VARCHAR(64) NOT NULL, 
	segment INTEGER NOT NULL, 
	started_at VARCHAR(27) NOT NULL, 
	ended_at VARCHAR(27), 
	host TEXT, 
	pid BIGINT, 
	resumed_from_step BIGINT, 
	CONSTRAINT pk_segments PRIMARY KEY (run_id, segment), 
	CONSTRAINT fk_segments_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "segments" VALUES('id-1',0,'2026-11-22T10:00:00.000250Z','2026-11-22T10:05:00.000250Z','gpu-1',4711,NULL);
INSERT INTO "segments" VALUES('id-1',1,'2026-11-22T10:06:00.000250Z',NULL,'gpu-1',4712,100);
CREATE TABLE steps (
	run_id VARCHAR(64) NOT NULL, 
	segment INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	logged_at VARCHAR(27) NOT NULL, 
	kl DOUBLE, 
	kl_kind VARCHAR(6), 
	kl_se DOUBLE, 
	kl_se_kind VARCHAR(6), 
	kl_not_measured TEXT, 
	beta DOUBLE, 
	beta_kind VARCHAR(6), 
	score DOUBLE, 
	score_kind VARCHAR(6), 
	n_sequences INTEGER, 
	mean_length DOUBLE, 
	mean_length_kind VARCHAR(6), 
	readings TEXT NOT NULL, 
	metrics TEXT NOT NULL, 
	CONSTRAINT pk_steps PRIMARY KEY (run_id, segment, step), 
	CONSTRAINT fk_steps_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "steps" VALUES('id-1',0,0,'2026-11-22T10:00:00.000250Z',0.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,1,'2026-11-22T10:00:00.000250Z',0.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.984375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,2,'2026-11-22T10:00:00.000250Z',0.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.96875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,3,'2026-11-22T10:00:00.000250Z',0.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.953125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,4,'2026-11-22T10:00:00.000250Z',0.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.9375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,5,'2026-11-22T10:00:00.000250Z',0.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.921875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,6,'2026-11-22T10:00:00.000250Z',0.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.90625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,7,'2026-11-22T10:00:00.000250Z',0.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.890625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,8,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,9,'2026-11-22T10:00:00.000250Z',0.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.859375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,10,'2026-11-22T10:00:00.000250Z',0.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.84375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,11,'2026-11-22T10:00:00.000250Z',0.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.828125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,12,'2026-11-22T10:00:00.000250Z',0.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.8125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,13,'2026-11-22T10:00:00.000250Z',0.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.796875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,14,'2026-11-22T10:00:00.000250Z',0.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.78125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,15,'2026-11-22T10:00:00.000250Z',0.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.765625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,16,'2026-11-22T10:00:00.000250Z',1.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.75,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,17,'2026-11-22T10:00:00.000250Z',1.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.734375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,18,'2026-11-22T10:00:00.000250Z',1.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.71875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,19,'2026-11-22T10:00:00.000250Z',1.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.703125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,20,'2026-11-22T10:00:00.000250Z',1.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.6875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,21,'2026-11-22T10:00:00.000250Z',1.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.671875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,22,'2026-11-22T10:00:00.000250Z',1.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.65625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,23,'2026-11-22T10:00:00.000250Z',1.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.640625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,24,'2026-11-22T10:00:00.000250Z',1.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,25,'2026-11-22T10:00:00.000250Z',1.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.609375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,26,'2026-11-22T10:00:00.000250Z',1.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.59375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,27,'2026-11-22T10:00:00.000250Z',1.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.578125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,28,'2026-11-22T10:00:00.000250Z',1.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.5625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,29,'2026-11-22T10:00:00.000250Z',1.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.546875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,30,'2026-11-22T10:00:00.000250Z',1.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.53125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,31,'2026-11-22T10:00:00.000250Z',1.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.515625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,32,'2026-11-22T10:00:00.000250Z',2.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.5,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,33,'2026-11-22T10:00:00.000250Z',2.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.484375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,34,'2026-11-22T10:00:00.000250Z',2.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.46875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,35,'2026-11-22T10:00:00.000250Z',2.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.453125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,36,'2026-11-22T10:00:00.000250Z',2.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.4375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,37,'2026-11-22T10:00:00.000250Z',2.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.421875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,38,'2026-11-22T10:00:00.000250Z',2.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.40625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,39,'2026-11-22T10:00:00.000250Z',2.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.390625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,40,'2026-11-22T10:00:00.000250Z',2.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,41,'2026-11-22T10:00:00.000250Z',2.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.359375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,42,'2026-11-22T10:00:00.000250Z',2.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.34375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,43,'2026-11-22T10:00:00.000250Z',2.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.328125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,44,'2026-11-22T10:00:00.000250Z',2.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.3125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,45,'2026-11-22T10:00:00.000250Z',2.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.296875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,46,'2026-11-22T10:00:00.000250Z',2.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.28125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,47,'2026-11-22T10:00:00.000250Z',2.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.265625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,48,'2026-11-22T10:00:00.000250Z',3.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.25,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,49,'2026-11-22T10:00:00.000250Z',3.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.234375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,50,'2026-11-22T10:00:00.000250Z',3.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.21875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,51,'2026-11-22T10:00:00.000250Z',3.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.203125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,52,'2026-11-22T10:00:00.000250Z',3.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.1875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,53,'2026-11-22T10:00:00.000250Z',3.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.171875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,54,'2026-11-22T10:00:00.000250Z',3.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.15625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,55,'2026-11-22T10:00:00.000250Z',3.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.140625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,56,'2026-11-22T10:00:00.000250Z',3.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,57,'2026-11-22T10:00:00.000250Z',3.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.109375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,58,'2026-11-22T10:00:00.000250Z',3.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.09375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,59,'2026-11-22T10:00:00.000250Z',3.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.078125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,60,'2026-11-22T10:00:00.000250Z',3.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.0625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,61,'2026-11-22T10:00:00.000250Z',3.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.046875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,62,'2026-11-22T10:00:00.000250Z',3.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.03125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,63,'2026-11-22T10:00:00.000250Z',3.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.015625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,64,'2026-11-22T10:00:00.000250Z',4.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":1.0,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,65,'2026-11-22T10:00:00.000250Z',4.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.984375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,66,'2026-11-22T10:00:00.000250Z',4.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.96875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,67,'2026-11-22T10:00:00.000250Z',4.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.953125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,68,'2026-11-22T10:00:00.000250Z',4.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.9375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,69,'2026-11-22T10:00:00.000250Z',4.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.921875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,70,'2026-11-22T10:00:00.000250Z',NULL,'nan',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.90625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,71,'2026-11-22T10:00:00.000250Z',NULL,'inf',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.890625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,72,'2026-11-22T10:00:00.000250Z',4.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,73,'2026-11-22T10:00:00.000250Z',4.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.859375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,74,'2026-11-22T10:00:00.000250Z',4.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.84375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,75,'2026-11-22T10:00:00.000250Z',4.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.828125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,76,'2026-11-22T10:00:00.000250Z',4.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.8125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,77,'2026-11-22T10:00:00.000250Z',4.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.796875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,78,'2026-11-22T10:00:00.000250Z',4.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.78125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,79,'2026-11-22T10:00:00.000250Z',4.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.765625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,80,'2026-11-22T10:00:00.000250Z',5.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.75,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,81,'2026-11-22T10:00:00.000250Z',5.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.734375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,82,'2026-11-22T10:00:00.000250Z',5.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.71875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,83,'2026-11-22T10:00:00.000250Z',5.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.703125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,84,'2026-11-22T10:00:00.000250Z',5.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.6875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,85,'2026-11-22T10:00:00.000250Z',5.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.671875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,86,'2026-11-22T10:00:00.000250Z',5.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.65625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,87,'2026-11-22T10:00:00.000250Z',5.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.640625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,88,'2026-11-22T10:00:00.000250Z',5.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,89,'2026-11-22T10:00:00.000250Z',5.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.609375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,90,'2026-11-22T10:00:00.000250Z',5.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.59375,"grad_norm":1.0}');
INSERT INTO "steps" VALUES('id-1',0,91,'2026-11-22T10:00:00.000250Z',5.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.578125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,92,'2026-11-22T10:00:00.000250Z',5.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.5625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,93,'2026-11-22T10:00:00.000250Z',5.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.546875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,94,'2026-11-22T10:00:00.000250Z',5.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.53125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,95,'2026-11-22T10:00:00.000250Z',5.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.515625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,96,'2026-11-22T10:00:00.000250Z',6.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.5,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,97,'2026-11-22T10:00:00.000250Z',6.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.484375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,98,'2026-11-22T10:00:00.000250Z',6.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.46875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,99,'2026-11-22T10:00:00.000250Z',6.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.453125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,100,'2026-11-22T10:00:00.000250Z',6.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.4375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,101,'2026-11-22T10:00:00.000250Z',6.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.421875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,102,'2026-11-22T10:00:00.000250Z',6.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.40625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,103,'2026-11-22T10:00:00.000250Z',6.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.390625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,104,'2026-11-22T10:00:00.000250Z',6.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,105,'2026-11-22T10:00:00.000250Z',6.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.359375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,106,'2026-11-22T10:00:00.000250Z',6.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.34375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,107,'2026-11-22T10:00:00.000250Z',6.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.328125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,108,'2026-11-22T10:00:00.000250Z',6.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.3125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,109,'2026-11-22T10:00:00.000250Z',6.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.296875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,110,'2026-11-22T10:00:00.000250Z',6.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.28125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,111,'2026-11-22T10:00:00.000250Z',6.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.265625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,112,'2026-11-22T10:00:00.000250Z',7.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.25,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,113,'2026-11-22T10:00:00.000250Z',7.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.234375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,114,'2026-11-22T10:00:00.000250Z',7.125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.21875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,115,'2026-11-22T10:00:00.000250Z',7.1875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.203125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,116,'2026-11-22T10:00:00.000250Z',7.25,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.1875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,117,'2026-11-22T10:00:00.000250Z',7.3125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.171875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,118,'2026-11-22T10:00:00.000250Z',7.375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.15625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,119,'2026-11-22T10:00:00.000250Z',7.4375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.140625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,120,'2026-11-22T10:00:00.000250Z',7.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,121,'2026-11-22T10:00:00.000250Z',7.5625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.109375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,122,'2026-11-22T10:00:00.000250Z',7.625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.09375,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,123,'2026-11-22T10:00:00.000250Z',7.6875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.078125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,124,'2026-11-22T10:00:00.000250Z',7.75,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.0625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,125,'2026-11-22T10:00:00.000250Z',7.8125,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.046875,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,126,'2026-11-22T10:00:00.000250Z',7.875,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.03125,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,127,'2026-11-22T10:00:00.000250Z',7.9375,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.015625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,128,'2026-11-22T10:00:00.000250Z',8.0,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":0.0,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',0,129,'2026-11-22T10:00:00.000250Z',8.0625,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":-0.015625,"grad_norm":0.0}');
INSERT INTO "steps" VALUES('id-1',1,100,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,101,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,102,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,103,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,104,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,105,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,106,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,107,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,108,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,109,'2026-11-22T10:00:00.000250Z',0.5,'finite',0.5,'finite',NULL,0.05,'finite',0.5,'finite',16,24.5,'finite','{"kl_update":{"value":0.125,"n":16}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-1',1,110,'2026-11-22T10:00:00.000250Z',NULL,NULL,NULL,NULL,'no reference model',0.05,'finite',NULL,NULL,NULL,NULL,NULL,'{}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-2',0,1,'2026-11-22T10:00:00.000250Z',-1.0,'finite',NULL,NULL,NULL,NULL,'-inf',0.5,'finite',NULL,NULL,NULL,'{"kl_full":{"value":0.125,"se":0.25,"n":8,"mean_length":20.0}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-2',0,2,'2026-11-22T10:00:00.000250Z',-2.0,'finite',NULL,NULL,NULL,NULL,'-inf',0.5,'finite',NULL,NULL,NULL,'{"kl_full":{"value":0.25,"se":0.25,"n":8,"mean_length":20.0}}','{"entropy":2.0,"clip_fraction":0.0}');
INSERT INTO "steps" VALUES('id-2',0,3,'2026-11-22T10:00:00.000250Z',-3.0,'finite',NULL,NULL,NULL,NULL,'-inf',0.5,'finite',NULL,NULL,NULL,'{"kl_full":{"value":0.375,"se":0.25,"n":8,"mean_length":20.0}}','{"entropy":2.0,"clip_fraction":0.0}');
CREATE TABLE text_samples (
	run_id VARCHAR(64) NOT NULL, 
	segment INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	sample INTEGER NOT NULL, 
	prompt TEXT NOT NULL, 
	completion TEXT NOT NULL, 
	score DOUBLE, 
	score_kind VARCHAR(6), 
	tokens TEXT NOT NULL, 
	CONSTRAINT pk_text_samples PRIMARY KEY (run_id, segment, step, sample), 
	CONSTRAINT fk_text_samples_run_id_segment_step_steps FOREIGN KEY(run_id, segment, step) REFERENCES steps (run_id, segment, step) ON DELETE CASCADE
);
INSERT INTO "text_samples" VALUES('id-1',1,100,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,101,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,102,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,103,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,104,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,105,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,106,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,107,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,108,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
INSERT INTO "text_samples" VALUES('id-1',1,109,0,'The film was',' NaN good',NULL,'nan','[["\\NaN",-0.5,"-Infinity","Infinity"],[" good\n",-0.25,-0.75,null]]');
CREATE INDEX ix_drift_measurements_run_id ON drift_measurements (run_id);
CREATE INDEX ix_findings_run_id ON findings (run_id);
CREATE INDEX ix_alerts_finding_id ON alerts (finding_id);
CREATE INDEX ix_alerts_run_id ON alerts (run_id);
COMMIT;
