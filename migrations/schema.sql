-- What the migrations make in an empty SQLite database. Made by .venv/bin/python -m tests.support.schema_snapshot.
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0007');
CREATE TABLE audit_log (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	detail TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	address TEXT NOT NULL, 
	request_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	target TEXT NOT NULL, 
	merge_key TEXT, 
	at BIGINT NOT NULL, 
	count BIGINT NOT NULL
);
CREATE TABLE blobs (
	digest TEXT NOT NULL, 
	store TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	state TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (digest)
);
CREATE TABLE change_feed (
	revision BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	repository TEXT NOT NULL, 
	generation TEXT NOT NULL, 
	digest TEXT, 
	tag TEXT, 
	old_digest TEXT, 
	at BIGINT NOT NULL, 
	CONSTRAINT pk_change_feed PRIMARY KEY (revision)
);
CREATE TABLE change_feed_revision (
	id INTEGER NOT NULL, 
	revision BIGINT NOT NULL, 
	CONSTRAINT pk_change_feed_revision PRIMARY KEY (id)
);
INSERT INTO "change_feed_revision" VALUES(1,0);
CREATE TABLE gc_queue (
	repository_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	parked_by TEXT NOT NULL, 
	grace_started_at BIGINT NOT NULL, 
	CONSTRAINT pk_gc_queue PRIMARY KEY (repository_id, kind, digest)
);
CREATE TABLE gc_state (
	id INTEGER NOT NULL, 
	boot_id TEXT NOT NULL, 
	clock_offset BIGINT NOT NULL, 
	clock_checked_at BIGINT NOT NULL, 
	clock_jump BIGINT NOT NULL, 
	clock_jumped_at BIGINT, 
	CONSTRAINT pk_gc_state PRIMARY KEY (id)
);
INSERT INTO "gc_state" VALUES(1,'',0,0,0,NULL);
CREATE TABLE grants (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	subject TEXT NOT NULL, 
	pattern TEXT NOT NULL, 
	actions TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT uq_grants_subject UNIQUE (subject, pattern)
);
CREATE TABLE group_members (
	group_id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	CONSTRAINT pk_group_members PRIMARY KEY (group_id, user_id), 
	CONSTRAINT fk_group_members_group_id FOREIGN KEY(group_id) REFERENCES groups (id), 
	CONSTRAINT fk_group_members_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);
CREATE TABLE groups (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT uq_groups_name UNIQUE (name)
);
CREATE TABLE holds (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	repository_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	CONSTRAINT fk_holds_manifest FOREIGN KEY(repository_id, digest) REFERENCES manifests (repository_id, digest)
);
CREATE TABLE immutable_tags (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	pattern TEXT NOT NULL, 
	tag_pattern TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT uq_immutable_tags_pattern UNIQUE (pattern, tag_pattern)
);
CREATE TABLE leases (
	name TEXT NOT NULL, 
	holder TEXT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
CREATE TABLE manifest_bytes (
	manifest_id INTEGER NOT NULL, 
	bytes BLOB NOT NULL, 
	CONSTRAINT pk_manifest_bytes PRIMARY KEY (manifest_id), 
	CONSTRAINT fk_manifest_bytes_manifest_id FOREIGN KEY(manifest_id) REFERENCES manifests (id)
);
CREATE TABLE manifest_edges (
	manifest_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	repository_id INTEGER NOT NULL, 
	blob_digest TEXT, 
	child_digest TEXT, 
	CONSTRAINT pk_manifest_edges PRIMARY KEY (manifest_id, kind, digest), 
	CONSTRAINT fk_manifest_edges_blob FOREIGN KEY(repository_id, blob_digest) REFERENCES repository_blobs (repository_id, digest), 
	CONSTRAINT fk_manifest_edges_child FOREIGN KEY(repository_id, child_digest) REFERENCES manifests (repository_id, digest), 
	CONSTRAINT fk_manifest_edges_manifest_id FOREIGN KEY(manifest_id) REFERENCES manifests (id)
);
CREATE TABLE manifests (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	repository_id INTEGER NOT NULL, 
	annotations TEXT, 
	digest TEXT NOT NULL, 
	media_type TEXT NOT NULL, 
	subject TEXT, 
	artifact_type TEXT, 
	size BIGINT NOT NULL, 
	pushed_at BIGINT NOT NULL, 
	first_pushed_at BIGINT, 
	CONSTRAINT uq_manifests_repository_id UNIQUE (repository_id, digest), 
	CONSTRAINT fk_manifests_repository_id FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
CREATE TABLE mirror_tag_history (
	repository TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	first_seen_at BIGINT NOT NULL, 
	CONSTRAINT pk_mirror_tag_history PRIMARY KEY (repository, tag, digest)
);
CREATE TABLE mirror_tags (
	repository TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	checked_at BIGINT NOT NULL, 
	CONSTRAINT pk_mirror_tags PRIMARY KEY (repository, tag)
);
CREATE TABLE mirror_usage (
	mirror TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	measured_at BIGINT NOT NULL, 
	is_evicting INTEGER NOT NULL, 
	CONSTRAINT pk_mirror_usage PRIMARY KEY (mirror)
);
CREATE TABLE mirrors (
	name TEXT NOT NULL, 
	prefix TEXT NOT NULL, 
	url TEXT NOT NULL, 
	options TEXT NOT NULL, 
	password TEXT, 
	created_by TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	changed_at BIGINT NOT NULL, default_for TEXT, 
	CONSTRAINT pk_mirrors PRIMARY KEY (name), 
	CONSTRAINT uq_mirrors_prefix UNIQUE (prefix)
);
CREATE TABLE pending_deletions (
	store TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	not_before BIGINT NOT NULL, 
	CONSTRAINT pk_pending_deletions PRIMARY KEY (store, "key")
);
CREATE TABLE policy_changes (
	revision BIGINT NOT NULL, 
	part TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	CONSTRAINT pk_policy_changes PRIMARY KEY (revision, part, "key")
);
CREATE TABLE policy_revision (
	id INTEGER NOT NULL, 
	revision BIGINT NOT NULL, 
	CONSTRAINT pk_policy_revision PRIMARY KEY (id)
);
INSERT INTO "policy_revision" VALUES(1,0);
CREATE TABLE private_keys (
	name TEXT NOT NULL, 
	value BLOB NOT NULL, 
	CONSTRAINT pk_private_keys PRIMARY KEY (name)
);
CREATE TABLE pull_times (
	manifest_id INTEGER NOT NULL, 
	tag TEXT NOT NULL, 
	pulled_at BIGINT NOT NULL, 
	CONSTRAINT pk_pull_times PRIMARY KEY (manifest_id, tag), 
	CONSTRAINT fk_pull_times_manifest_id FOREIGN KEY(manifest_id) REFERENCES manifests (id) ON DELETE CASCADE
);
CREATE TABLE quotas (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	pattern TEXT NOT NULL, 
	recount_cursor TEXT, 
	limit_bytes BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT uq_quotas_pattern UNIQUE (pattern)
);
CREATE TABLE refresh_tokens (
	id TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	credential TEXT NOT NULL, 
	service TEXT NOT NULL, 
	client TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	used_at BIGINT NOT NULL, 
	CONSTRAINT pk_refresh_tokens PRIMARY KEY (id)
);
CREATE TABLE removed_manifests (
	repository TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	generation TEXT NOT NULL, 
	bytes BLOB NOT NULL, 
	media_type TEXT NOT NULL, 
	blobs TEXT NOT NULL, 
	children TEXT NOT NULL, 
	removed_by TEXT NOT NULL, 
	removed_at BIGINT NOT NULL, 
	CONSTRAINT pk_removed_manifests PRIMARY KEY (repository, digest, generation)
);
CREATE TABLE removed_repositories (
	name TEXT NOT NULL, 
	policy_revision BIGINT NOT NULL, 
	removed_at BIGINT NOT NULL, 
	CONSTRAINT pk_removed_repositories PRIMARY KEY (name)
);
CREATE TABLE repositories (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	generation TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT uq_repositories_name UNIQUE (name)
);
CREATE TABLE repository_blobs (
	repository_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	linked_at BIGINT NOT NULL, 
	CONSTRAINT pk_repository_blobs PRIMARY KEY (repository_id, digest), 
	CONSTRAINT fk_repository_blobs_repository_id FOREIGN KEY(repository_id) REFERENCES repositories (id), 
	CONSTRAINT fk_repository_blobs_digest FOREIGN KEY(digest) REFERENCES blobs (digest)
);
CREATE TABLE retention_rules (
	pattern TEXT NOT NULL, 
	enabled BOOLEAN NOT NULL, 
	conditions TEXT, 
	changed_at BIGINT NOT NULL, 
	waits_until BIGINT, 
	CONSTRAINT pk_retention_rules PRIMARY KEY (pattern)
);
CREATE TABLE retention_run (
	id INTEGER NOT NULL, 
	last_repository TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	tags_dropped BIGINT NOT NULL, 
	manifests_dropped BIGINT NOT NULL, 
	finished_at BIGINT, 
	CONSTRAINT pk_retention_run PRIMARY KEY (id)
);
CREATE TABLE robots (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	generation TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	CONSTRAINT uq_robots_name UNIQUE (name)
);
CREATE TABLE schema_version (
	id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	min_reader INTEGER NOT NULL, 
	CONSTRAINT pk_schema_version PRIMARY KEY (id)
);
INSERT INTO "schema_version" VALUES(1,7,1);
CREATE TABLE scrub_state (
	id INTEGER NOT NULL, 
	is_running BOOLEAN NOT NULL, 
	last_blob TEXT, 
	started_at BIGINT NOT NULL, 
	blobs BIGINT NOT NULL, 
	bytes BIGINT NOT NULL, 
	damaged BIGINT NOT NULL, 
	unreadable BIGINT NOT NULL, 
	finished_at BIGINT, 
	last_manifest_id BIGINT, 
	CONSTRAINT pk_scrub_state PRIMARY KEY (id)
);
CREATE TABLE secrets (
	id TEXT NOT NULL, 
	user_id INTEGER, 
	robot_id INTEGER, 
	scopes TEXT, 
	name TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	used_at BIGINT, 
	CONSTRAINT pk_secrets PRIMARY KEY (id), 
	CONSTRAINT uq_secrets_user_id UNIQUE (user_id, name), 
	CONSTRAINT fk_secrets_user_id FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT fk_secrets_robot_id FOREIGN KEY(robot_id) REFERENCES robots (id)
);
CREATE TABLE sign_in_failures (
	id INTEGER NOT NULL, 
	address TEXT NOT NULL, 
	account TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	CONSTRAINT pk_sign_in_failures PRIMARY KEY (id)
);
CREATE TABLE signing_keys (
	kid TEXT NOT NULL, 
	jwk TEXT NOT NULL, 
	state TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	changed_at BIGINT NOT NULL, 
	CONSTRAINT pk_signing_keys PRIMARY KEY (kid)
);
CREATE TABLE sync_runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	mirror TEXT NOT NULL, 
	schedule_id INTEGER, 
	options TEXT NOT NULL, 
	state TEXT NOT NULL, 
	progress TEXT NOT NULL, 
	report TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	started_at BIGINT, 
	ended_at BIGINT
);
CREATE TABLE sync_schedules (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	mirror TEXT NOT NULL, 
	options TEXT NOT NULL, 
	every BIGINT NOT NULL, 
	next_at BIGINT NOT NULL, 
	created_by TEXT NOT NULL, 
	created_at BIGINT NOT NULL
);
CREATE TABLE synced_tags (
	repository TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	CONSTRAINT pk_synced_tags PRIMARY KEY (repository, tag)
);
CREATE TABLE tags (
	repository_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_tags PRIMARY KEY (repository_id, name), 
	CONSTRAINT fk_tags_manifest FOREIGN KEY(repository_id, digest) REFERENCES manifests (repository_id, digest), 
	CONSTRAINT fk_tags_repository_id FOREIGN KEY(repository_id) REFERENCES repositories (id)
);
CREATE TABLE unreadable_manifests (
	repository_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	found_at BIGINT NOT NULL, 
	CONSTRAINT pk_unreadable_manifests PRIMARY KEY (repository_id, digest)
);
CREATE TABLE uploads (
	id TEXT NOT NULL, 
	parts TEXT, 
	repository TEXT NOT NULL, 
	principal TEXT NOT NULL, 
	algorithm TEXT NOT NULL, 
	store TEXT NOT NULL, 
	generation TEXT NOT NULL, 
	repository_generation TEXT, 
	prefix TEXT, 
	"key" TEXT, 
	"offset" BIGINT NOT NULL, 
	claim BIGINT NOT NULL, 
	started_at BIGINT NOT NULL, 
	active_at BIGINT NOT NULL, 
	claimed_until BIGINT, 
	CONSTRAINT pk_uploads PRIMARY KEY (id)
);
CREATE TABLE usage_counter_blobs (
	counter_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	repository_count BIGINT NOT NULL, 
	CONSTRAINT pk_usage_counter_blobs PRIMARY KEY (counter_id, digest)
);
CREATE TABLE usage_counter_repositories (
	repository_id INTEGER NOT NULL, 
	counter_id INTEGER NOT NULL, manifests_counted_at BIGINT, 
	CONSTRAINT pk_usage_counter_repositories PRIMARY KEY (repository_id, counter_id), 
	CONSTRAINT fk_usage_counter_repositories_repository_id FOREIGN KEY(repository_id) REFERENCES repositories (id), 
	CONSTRAINT fk_usage_counter_repositories_counter_id FOREIGN KEY(counter_id) REFERENCES usage_counters (id)
);
CREATE TABLE usage_counter_shards (
	counter_id INTEGER NOT NULL, 
	shard INTEGER NOT NULL, 
	bytes BIGINT NOT NULL, 
	CONSTRAINT pk_usage_counter_shards PRIMARY KEY (counter_id, shard)
);
CREATE TABLE usage_counters (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	quota_id INTEGER NOT NULL, 
	namespace TEXT NOT NULL, 
	checked_at BIGINT NOT NULL, 
	CONSTRAINT uq_usage_counters_quota_id UNIQUE (quota_id, namespace)
);
CREATE TABLE users (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	is_admin BOOLEAN NOT NULL, 
	is_disabled BOOLEAN NOT NULL, 
	owns_namespace BOOLEAN NOT NULL, 
	generation TEXT NOT NULL, 
	password_hash TEXT, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT uq_users_name UNIQUE (name)
);
CREATE TABLE write_freeze (
	id INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	token TEXT NOT NULL, 
	peer TEXT NOT NULL, 
	expires_at BIGINT, 
	CONSTRAINT pk_write_freeze PRIMARY KEY (id)
);
CREATE INDEX ix_audit_log_actor_id ON audit_log (actor, id);
CREATE INDEX ix_audit_log_at ON audit_log (at);
CREATE INDEX ix_blobs_state_digest ON blobs (state, digest);
CREATE INDEX ix_blobs_store_digest ON blobs (store, digest);
CREATE INDEX ix_blobs_store_key ON blobs (store, "key");
CREATE INDEX ix_change_feed_at ON change_feed (at);
CREATE INDEX ix_change_feed_generation ON change_feed (generation) WHERE kind = 'repository.delete';
CREATE INDEX ix_change_feed_repository_old_digest_at ON change_feed (repository, old_digest, at) WHERE old_digest IS NOT NULL;
CREATE INDEX ix_change_feed_repository_tag_revision ON change_feed (repository, tag, revision);
CREATE INDEX ix_gc_queue_parked_by_grace_started_at_repository_id_kind_digest ON gc_queue (parked_by, grace_started_at, repository_id, kind, digest);
CREATE INDEX ix_group_members_user_id ON group_members (user_id);
CREATE INDEX ix_holds_expires_at ON holds (expires_at);
CREATE INDEX ix_holds_repository_id_digest ON holds (repository_id, digest);
CREATE INDEX ix_manifest_edges_repository_id_blob_digest ON manifest_edges (repository_id, blob_digest);
CREATE INDEX ix_manifest_edges_repository_id_child_digest ON manifest_edges (repository_id, child_digest);
CREATE INDEX ix_manifest_edges_repository_id_digest ON manifest_edges (repository_id, digest);
CREATE INDEX ix_manifests_repository_id_subject_digest ON manifests (repository_id, subject, digest);
CREATE INDEX ix_pending_deletions_store_not_before_key ON pending_deletions (store, not_before, "key");
CREATE INDEX ix_refresh_tokens_credential_used_at ON refresh_tokens (credential, used_at);
CREATE INDEX ix_removed_manifests_removed_at ON removed_manifests (removed_at);
CREATE INDEX ix_removed_repositories_removed_at ON removed_repositories (removed_at);
CREATE INDEX ix_repository_blobs_digest ON repository_blobs (digest);
CREATE INDEX ix_secrets_robot_id ON secrets (robot_id);
CREATE INDEX ix_sign_in_failures_account_at ON sign_in_failures (account, at);
CREATE INDEX ix_sign_in_failures_address_at ON sign_in_failures (address, at);
CREATE INDEX ix_sign_in_failures_at ON sign_in_failures (at);
CREATE INDEX ix_sync_runs_ended_at ON sync_runs (ended_at);
CREATE INDEX ix_sync_runs_mirror_id ON sync_runs (mirror, id);
CREATE INDEX ix_sync_schedules_mirror ON sync_schedules (mirror);
CREATE INDEX ix_sync_schedules_next_at ON sync_schedules (next_at);
CREATE INDEX ix_tags_repository_id_digest_name ON tags (repository_id, digest, name);
CREATE INDEX ix_uploads_active_at ON uploads (active_at);
CREATE INDEX ix_uploads_principal_active_at ON uploads (principal, active_at);
CREATE INDEX ix_uploads_repository_offset ON uploads (repository, "offset");
CREATE INDEX ix_usage_counter_repositories_counter_id ON usage_counter_repositories (counter_id);
CREATE INDEX ix_usage_counter_repositories_uncounted ON usage_counter_repositories (repository_id) WHERE manifests_counted_at IS NULL;
CREATE INDEX ix_usage_counters_checked_at ON usage_counters (checked_at);
CREATE UNIQUE INDEX ix_audit_log_merge_key ON audit_log (merge_key) WHERE merge_key IS NOT NULL;
