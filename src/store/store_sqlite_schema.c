/* The tables, as numbered steps. A step that was released never changes: what is to be different is a new step. */
#include "base/clock.h"
#include "store/store_sqlite.h"

struct step {
	int number;
	const char *name, *sql;
};

static const struct step steps[] = {
	{1, "workspaces, keys, VMs, rules, images",
	 "CREATE TABLE workspaces ("
	 "  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, mode INTEGER NOT NULL CHECK (mode IN (0, 1)),"
	 "  created_at INTEGER NOT NULL) STRICT;"
	 "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	 "INSERT INTO counters (name, value) VALUES ('policy_version', 0);"
	 "CREATE TABLE keys ("
	 "  id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL REFERENCES workspaces (id),"
	 "  hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32), name TEXT NOT NULL, hint TEXT NOT NULL,"
	 "  scopes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,"
	 "  last_used_at INTEGER NOT NULL, revoked_at INTEGER NOT NULL) STRICT;"
	 "CREATE INDEX keys_list ON keys (workspace, created_at, id) WHERE revoked_at = 0;"
	 "CREATE TABLE vms ("
	 "  id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL REFERENCES workspaces (id), name TEXT NOT NULL,"
	 "  state INTEGER NOT NULL, status_reason TEXT NOT NULL, image INTEGER NOT NULL, image_name TEXT NOT NULL,"
	 "  snapshot INTEGER NOT NULL, parent INTEGER NOT NULL, generation INTEGER NOT NULL, vcpus INTEGER NOT NULL,"
	 "  memory_mib INTEGER NOT NULL, disk_gib INTEGER NOT NULL, public_key TEXT NOT NULL,"
	 "  egress_mode INTEGER NOT NULL CHECK (egress_mode IN (0, 1, 2)),"
	 "  egress_inherit INTEGER NOT NULL CHECK (egress_inherit IN (0, 1)), job INTEGER NOT NULL,"
	 "  job_step INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,"
	 "  started_at INTEGER NOT NULL, stopped_at INTEGER NOT NULL) STRICT;"
	 /* 9 and 10: VM_STATES_GONE */
	 "CREATE UNIQUE INDEX vms_name ON vms (workspace, name) WHERE state NOT IN (9, 10);"
	 "CREATE INDEX vms_created ON vms (workspace, created_at, id);"
	 "CREATE INDEX vms_state ON vms (state);"
	 "CREATE TABLE vm_labels ("
	 "  vm INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE, key TEXT NOT NULL, value TEXT NOT NULL,"
	 "  PRIMARY KEY (vm, key)) STRICT, WITHOUT ROWID;"
	 "CREATE INDEX vm_labels_value ON vm_labels (key, value);"
	 "CREATE TABLE rules ("
	 "  id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL REFERENCES workspaces (id),"
	 "  vm INTEGER REFERENCES vms (id) ON DELETE CASCADE, name TEXT NOT NULL, host TEXT NOT NULL, cidr TEXT NOT NULL,"
	 "  ports BLOB NOT NULL, methods BLOB NOT NULL, paths BLOB NOT NULL, tls INTEGER NOT NULL CHECK (tls IN (0, 1)),"
	 "  action INTEGER NOT NULL CHECK (action IN (0, 1)), addresses BLOB NOT NULL, preset TEXT NOT NULL,"
	 "  comment TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT;"
	 "CREATE UNIQUE INDEX rules_name ON rules (workspace, name) WHERE vm IS NULL AND name <> '';"
	 "CREATE UNIQUE INDEX rules_vm_name ON rules (vm, name) WHERE vm IS NOT NULL AND name <> '';"
	 "CREATE INDEX rules_workspace ON rules (workspace, created_at, id) WHERE vm IS NULL;"
	 "CREATE INDEX rules_vm ON rules (vm, created_at, id) WHERE vm IS NOT NULL;"
	 "CREATE TABLE images ("
	 "  id INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, kernel TEXT NOT NULL, made_from TEXT NOT NULL,"
	 "  size_bytes INTEGER NOT NULL, created_at INTEGER NOT NULL,"
	 "  present INTEGER NOT NULL CHECK (present IN (0, 1))) STRICT;"
	 "CREATE INDEX images_name ON images (name, created_at) WHERE present = 1;"},
	{2, "restart, sessions",
	 "ALTER TABLE vms ADD COLUMN restart INTEGER NOT NULL DEFAULT 0 CHECK (restart IN (0, 1));"
	 "CREATE TABLE vm_restarts ("
	 "  vm INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE, at INTEGER NOT NULL) STRICT;"
	 "CREATE INDEX vm_restarts_vm ON vm_restarts (vm, at);"
	 "CREATE TABLE sessions ("
	 "  id INTEGER PRIMARY KEY, vm INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE,"
	 "  generation INTEGER NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL,"
	 "  sampled_at INTEGER NOT NULL, end_reason TEXT NOT NULL, cpu_us INTEGER NOT NULL,"
	 "  memory_peak_bytes INTEGER NOT NULL, disk_bytes INTEGER NOT NULL, disk_read_bytes INTEGER NOT NULL,"
	 "  disk_written_bytes INTEGER NOT NULL, net_sent_bytes INTEGER NOT NULL,"
	 "  net_received_bytes INTEGER NOT NULL, UNIQUE (vm, generation)) STRICT;"},
	{3, "kept answers",
	 "CREATE TABLE kept ("
	 "  workspace INTEGER NOT NULL REFERENCES workspaces (id), key TEXT NOT NULL,"
	 "  fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32), state INTEGER NOT NULL, made INTEGER NOT NULL,"
	 "  answer BLOB NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (workspace, key)) STRICT;"
	 "CREATE INDEX kept_created ON kept (created_at);"},
};

/* The index's tables are made anew, not migrated: with another number the file counts as damaged. */
#define INDEX_VERSION "2"
static const char index_sql[] =
	"BEGIN;"
	"CREATE TABLE ix.position ("
	"  one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER NOT NULL, offset INTEGER NOT NULL,"
	"  seq INTEGER NOT NULL, target INTEGER NOT NULL, created INTEGER NOT NULL) STRICT;"
	"INSERT INTO ix.position VALUES (1, 0, 0, 0, 0, 0);"
	"CREATE TABLE ix.events ("
	"  seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, workspace INTEGER NOT NULL, vm INTEGER NOT NULL, host TEXT NOT NULL,"
	"  cidr TEXT NOT NULL, address TEXT NOT NULL, port INTEGER NOT NULL, protocol INTEGER NOT NULL, method TEXT NOT NULL,"
	"  path TEXT NOT NULL, closed INTEGER NOT NULL, status INTEGER NOT NULL, bytes_sent INTEGER NOT NULL,"
	"  bytes_received INTEGER NOT NULL, duration_ms INTEGER NOT NULL, outcome INTEGER NOT NULL, verdict INTEGER NOT NULL,"
	"  mode INTEGER NOT NULL, rule INTEGER NOT NULL, secrets BLOB NOT NULL, reason TEXT NOT NULL) STRICT;"
	"CREATE INDEX ix.events_vm ON events (vm);"
	"CREATE INDEX ix.events_host ON events (host);"
	"CREATE INDEX ix.events_time ON events (time);"
	"CREATE TABLE ix.generals ("
	"  seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, workspace INTEGER NOT NULL, vm INTEGER NOT NULL, key INTEGER NOT NULL,"
	"  kind TEXT NOT NULL, action TEXT NOT NULL, address TEXT NOT NULL, outcome TEXT NOT NULL,"
	"  detail TEXT NOT NULL) STRICT;"
	"CREATE INDEX ix.generals_vm ON generals (vm);"
	"CREATE INDEX ix.generals_key ON generals (key);"
	"CREATE INDEX ix.generals_kind ON generals (kind);"
	"CREATE INDEX ix.generals_time ON generals (time);"
	"PRAGMA ix.user_version=" INDEX_VERSION ";"
	"COMMIT";

static int number(struct store *s, const char *sql, int64_t *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, sql, NULL, &q);

	if (r == 0)
		r = query_step(&q);
	if (r <= 0)
		return r ? r : -ENOENT;
	*ret = column_i64(&q);
	return 0;
}

static int apply(struct store *s, const struct step *step)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	_cleanup_(query_finish) struct query q = {0};
	int r = store_begin(s, STORE_FULL, &tx);

	if (r == 0)
		r = store_exec(s, step->sql);
	if (r == 0)
		r = query_begin_write(s, "INSERT INTO migrations (number, name, applied_at) VALUES (?, ?, ?)", &q);
	if (r)
		return r;
	bind_i64(&q, step->number);
	bind_str(&q, str_of(step->name));
	bind_i64(&q, real_ms());
	r = query_run(&q, NULL);
	query_finish(&q);
	return r ? r : store_commit(&tx);
}

int schema_migrate(struct store *s, struct error *reterr)
{
	int64_t at = 0;
	int r = store_exec(s, "CREATE TABLE IF NOT EXISTS migrations ("
			      "number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT");

	if (r == 0)
		r = number(s, "SELECT coalesce(max(number), 0) FROM migrations", &at);
	if (r)
		return error_set(reterr, r, "database: %s", sqlite3_errmsg(s->db));
	if (at > steps[ARRAY_SIZE(steps) - 1].number)
		return error_set(reterr, -EPROTONOSUPPORT,
				 "the database was written by a newer iron (step %lld): install that one", (long long)at);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i].number <= at)
			continue;
		r = apply(s, &steps[i]);
		if (r)
			return error_set(reterr, r, "database, step %d (%s): %s", steps[i].number, steps[i].name,
					 sqlite3_errmsg(s->db));
	}
	return 0;
}

int schema_index(struct store *s)
{
	int64_t version = 0, tables = 0;
	int r = number(s, "PRAGMA ix.user_version", &version);

	if (r == 0)
		r = number(s, "SELECT count(*) FROM ix.sqlite_schema", &tables);
	if (r)
		return r;
	if (tables == 0)
		return store_exec(s, index_sql);
	return version == atoi(INDEX_VERSION) ? 0 : -EUCLEAN;
}
