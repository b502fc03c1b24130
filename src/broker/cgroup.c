#include "broker/cgroup_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "os/fdutil.h"

#define PERIOD_US 100000U
#define FILE_BOUND ((size_t)1 << 20)
#define SWEEP_TIMEOUT_MS 5000
#define DEFAULT_WEIGHT 100U  /* v2's */
#define DEFAULT_SHARES 1024U /* v1's for the same */

static const char *const controller_name[] = {"memory", "cpu", "pids", "freezer", "cpuacct"};

/* --- finding the hierarchies --- */

/* proc_pid_mountinfo(5): "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue". */
struct mount {
	struct str point, type, options;
};

static bool parse_mount(struct str line, struct mount *ret)
{
	struct str word, fields[5] = {{0}};
	bool found = false;
	size_t i = 0;

	for (; i < 5 && str_split(&line, ' ', &word); i++)
		fields[i] = word;
	while (!found && str_split(&line, ' ', &word))
		found = str_eq(word, STR("-"));
	*ret = (struct mount){.point = fields[4]};
	return found && str_split(&line, ' ', &ret->type) && str_split(&line, ' ', &word) &&
	       (ret->options = line, ret->point.len > 0);
}

static bool has_option(struct str options, const char *name, char separator)
{
	struct str o;

	while (str_split(&options, separator, &o))
		if (str_eq(str_trim(o, "\n"), str_of(name)))
			return true;
	return false;
}

static bool v2_has_controllers(const char *mount)
{
	_cleanup_free_ char *path = xasprintf("%s/cgroup.controllers", mount);
	_cleanup_(buf_finish) struct buf b = {0};

	if (file_read(path, FILE_BOUND, &b) < 0)
		return false;
	return has_option(buf_str(&b), "memory", ' ') && has_option(buf_str(&b), "cpu", ' ') &&
	       has_option(buf_str(&b), "pids", ' ');
}

static size_t add_dir(struct cgroup_host *h, const char *mount, const char *root)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s", mount, root);

	for (size_t i = 0; i < h->n; i++)
		if (strcmp(h->dirs[i], dir) == 0)
			return i;
	h->dirs[h->n] = take_ptr(dir);
	return h->n++;
}

static void find_mounts(struct str table, struct cgroup_host *h, const char *root, char **ret_v2,
			bool found[CONTROLLERS])
{
	struct str line;

	while (str_split(&table, '\n', &line)) {
		struct mount m;
		if (!parse_mount(line, &m))
			continue;
		_cleanup_free_ char *point = str_dup(m.point);
		if (str_eq(m.type, STR("cgroup2")) && !*ret_v2 && v2_has_controllers(point))
			*ret_v2 = take_ptr(point);
		else if (str_eq(m.type, STR("cgroup")))
			for (size_t c = 0; c < CONTROLLERS; c++)
				if (!found[c] && has_option(m.options, controller_name[c], ',')) {
					h->of[c] = add_dir(h, point, root);
					found[c] = true;
				}
	}
}

static void clear_dirs(struct cgroup_host *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->dirs[i]);
	h->n = 0;
}

static int choose(struct str table, const char *root, struct cgroup_host *h, struct error *reterr)
{
	_cleanup_free_ char *v2 = NULL;
	bool found[CONTROLLERS] = {false};

	find_mounts(table, h, root, &v2, found);
	if (v2) {
		clear_dirs(h);
		*h = (struct cgroup_host){.version = 2};
		add_dir(h, v2, root);
		return 0;
	}
	h->version = 1;
	for (size_t c = 0; c < CPUACCT; c++)
		if (!found[c])
			return error_set(
				reterr, -ENOENT,
				"no cgroup controller '%s': neither a cgroup2 mount has memory, cpu and pids, nor is "
				"there a v1 mount of it",
				controller_name[c]);
	h->has_cpuacct = found[CPUACCT];
	return 0;
}

/* v2: the controllers have to be passed on at every level from the mount down to root's own children. */
static int delegate(const char *mount, const char *root, struct error *reterr)
{
	_cleanup_free_ char *dir = xstrdup(mount);
	struct str rest = str_of(root), part;

	for (;;) {
		_cleanup_free_ char *control = xasprintf("%s/cgroup.subtree_control", dir);
		int r = file_write(control, "+memory +cpu +pids");
		if (r < 0)
			return error_set(reterr, r, "%s: %s (a group that holds processes cannot pass controllers on)",
					 control, strerror(-r));
		if (!str_split(&rest, '/', &part))
			return 0;
		char *next = xasprintf("%s/%.*s", dir, STR_ARG(part));
		free(dir);
		dir = next;
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return error_set(reterr, -errno, "%s: %s", dir, strerror(errno));
	}
}

static int make_roots(struct cgroup_host *h, const char *root, struct error *reterr)
{
	if (h->version == 2) {
		_cleanup_free_ char *mount = xstrndup(h->dirs[0], strlen(h->dirs[0]) - strlen(root) - 1);
		return delegate(mount, root, reterr);
	}
	for (size_t i = 0; i < h->n; i++) {
		int r = dir_make_parents(h->dirs[i]);
		if (r < 0)
			return error_set(reterr, r, "cgroup %s: %s", h->dirs[i], strerror(-r));
	}
	return 0;
}

int cgroup_host_create(const char *proc_mountinfo, const char *root, struct cgroup_host **ret, struct error *reterr)
{
	const char *path = proc_mountinfo ? proc_mountinfo : "/proc/self/mountinfo";
	_cleanup_(buf_finish) struct buf b = {0};
	struct cgroup_host *h = xcalloc(1, sizeof *h);
	int r = file_read(path, FILE_BOUND, &b);

	if (r < 0)
		error_set(reterr, r, "%s: %s", path, strerror(-r));
	else if ((r = choose(buf_str(&b), root, h, reterr)) == 0)
		r = make_roots(h, root, reterr);
	h->depth = 1;
	for (const char *p = root; *p; p++)
		h->depth += *p == '/';
	if (r < 0)
		cgroup_host_destroy(h);
	else
		*ret = h;
	return r;
}

void cgroup_host_remove(const struct cgroup_host *h)
{
	for (size_t i = 0; i < h->n; i++) {
		_cleanup_free_ char *dir = xstrdup(h->dirs[i]);
		for (size_t k = 0; k < h->depth && rmdir(dir) == 0; k++)
			*strrchr(dir, '/') = '\0';
	}
}

void cgroup_host_destroy(struct cgroup_host *h)
{
	if (!h)
		return;
	clear_dirs(h);
	free(h);
}

int cgroup_version(const struct cgroup_host *h)
{
	return h->version;
}

/* --- one group --- */

const char *cgroup_dir(const struct cgroup *g, enum controller c)
{
	return g->dirs[g->host->version == 2 ? 0 : g->host->of[c]];
}

static int write_file(const char *dir, const char *file, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, file);

	return file_write(path, text);
}

static int write_number(const char *dir, const char *file, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof text, "%lu", n);
	return write_file(dir, file, text);
}

static int limits_v2(const char *dir, const struct cgroup_limits *l)
{
	char text[48];
	int r = 0;

	if (l->memory_bytes) {
		r = write_number(dir, "memory.max", l->memory_bytes);
		if (r == 0) { /* absent on a kernel without swap */
			r = write_file(dir, "memory.swap.max", "0");
			r = r == -ENOENT ? 0 : r;
		}
	}
	if (r == 0 && l->cpu_percent) {
		snprintf(text, sizeof text, "%lu %u", (uint64_t)l->cpu_percent * PERIOD_US / 100, PERIOD_US);
		r = write_file(dir, "cpu.max", text);
	}
	if (r == 0 && l->cpu_weight)
		r = write_number(dir, "cpu.weight", l->cpu_weight);
	if (r == 0 && l->pids)
		r = write_number(dir, "pids.max", l->pids);
	return r;
}

static int limits_v1(const struct cgroup *g, const struct cgroup_limits *l)
{
	int r = 0;

	if (l->memory_bytes) {
		r = write_number(cgroup_dir(g, MEMORY), "memory.limit_in_bytes", l->memory_bytes);
		if (r == 0) { /* there only with swap accounting */
			r = write_number(cgroup_dir(g, MEMORY), "memory.memsw.limit_in_bytes", l->memory_bytes);
			r = r == -ENOENT ? 0 : r;
		}
	}
	if (r == 0 && l->cpu_percent) {
		r = write_number(cgroup_dir(g, CPU), "cpu.cfs_period_us", PERIOD_US);
		if (r == 0)
			r = write_number(cgroup_dir(g, CPU), "cpu.cfs_quota_us",
					 (uint64_t)l->cpu_percent * PERIOD_US / 100);
	}
	if (r == 0 && l->cpu_weight)
		r = write_number(cgroup_dir(g, CPU), "cpu.shares", (uint64_t)l->cpu_weight * DEFAULT_SHARES / DEFAULT_WEIGHT);
	if (r == 0 && l->pids)
		r = write_number(cgroup_dir(g, PIDS), "pids.max", l->pids);
	return r;
}

static int open_procs(struct cgroup *g)
{
	for (size_t i = 0; i < g->host->n; i++) {
		_cleanup_free_ char *path = xasprintf("%s/cgroup.procs", g->dirs[i]);
		g->procs[i] = open(path, O_WRONLY | O_CLOEXEC);
		if (g->procs[i] < 0)
			return -errno;
	}
	return 0;
}

static struct cgroup *group_of(const struct cgroup_host *h, const char *name)
{
	struct cgroup *g = xcalloc(1, sizeof *g);

	g->host = h;
	for (size_t i = 0; i < CGROUP_MAX_HIERARCHIES; i++)
		g->procs[i] = -1;
	for (size_t i = 0; i < h->n; i++)
		g->dirs[i] = xasprintf("%s/%s", h->dirs[i], name);
	return g;
}

void cgroup_destroy(struct cgroup *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->host->n; i++) {
		if (g->procs[i] >= 0)
			close(g->procs[i]);
		free(g->dirs[i]);
	}
	free(g);
}

int cgroup_empty(struct cgroup *g)
{
	uint64_t end = mono_ms() + SWEEP_TIMEOUT_MS;

	while (!cgroup_is_empty(g)) {
		int r = cgroup_kill(g);
		if (r < 0)
			return r;
		if (mono_ms() > end)
			return -ETIMEDOUT;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return 0;
}

static int make_dirs(struct cgroup *g, bool *ret_existed)
{
	*ret_existed = false;
	for (size_t i = 0; i < g->host->n; i++) {
		if (mkdir(g->dirs[i], 0755) == 0)
			continue;
		if (errno != EEXIST)
			return -errno;
		*ret_existed = true;
	}
	return 0;
}

static int create(struct cgroup_host *h, const char *name, const struct cgroup_limits *limits, bool emptied,
		  struct cgroup **ret, struct error *reterr)
{
	struct cgroup *g = group_of(h, name);
	bool existed;
	int r = make_dirs(g, &existed);

	if (r == 0 && existed && emptied)
		r = cgroup_empty(g);
	if (r == 0)
		r = h->version == 2 ? limits_v2(g->dirs[0], limits) : limits_v1(g, limits);
	if (r == 0)
		r = open_procs(g);
	if (r < 0) {
		error_set(reterr, r, "cgroup %s: %s", g->dirs[0], strerror(-r));
		cgroup_remove(g);
		cgroup_destroy(g);
		return r;
	}
	*ret = g;
	return 0;
}

int cgroup_create(struct cgroup_host *h, const char *name, const struct cgroup_limits *limits, struct cgroup **ret,
		  struct error *reterr)
{
	return create(h, name, limits, true, ret, reterr);
}

int cgroup_take(struct cgroup_host *h, const char *name, const struct cgroup_limits *limits, struct cgroup **ret,
		struct error *reterr)
{
	return create(h, name, limits, false, ret, reterr);
}

int cgroup_remove(struct cgroup *g)
{
	int r = 0;

	for (size_t i = 0; i < g->host->n; i++)
		if (rmdir(g->dirs[i]) < 0 && errno != ENOENT)
			r = -errno;
	return r;
}

const int *cgroup_procs(const struct cgroup *g, size_t *ret_n)
{
	*ret_n = g->host->n;
	return g->procs;
}

/* --- its processes --- */

int cgroup_read(const char *dir, const char *file, struct buf *out)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, file);

	return file_read(path, FILE_BOUND, out);
}

bool cgroup_is_empty(const struct cgroup *g)
{
	for (size_t i = 0; i < g->host->n; i++) {
		_cleanup_(buf_finish) struct buf b = {0};
		if (cgroup_read(g->dirs[i], "cgroup.procs", &b) == 0 && b.len > 0)
			return false;
	}
	return true;
}

bool cgroup_has(const struct cgroup *g, pid_t pid)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line;
	uint64_t n;

	if (cgroup_read(g->dirs[0], "cgroup.procs", &b) < 0)
		return false;
	text = buf_str(&b);
	while (str_split(&text, '\n', &line))
		if (str_parse_u64(line, INT32_MAX, &n) == 0 && (pid_t)n == pid)
			return true;
	return false;
}

static unsigned signal_all(const char *dir)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line;
	unsigned n = 0;
	uint64_t pid;

	if (cgroup_read(dir, "cgroup.procs", &b) < 0)
		return 0;
	text = buf_str(&b);
	while (str_split(&text, '\n', &line)) {
		/* A pid of another pid namespace reads as 0: kill(0) would be this group of ours. */
		if (str_parse_u64(line, INT32_MAX, &pid) < 0 || pid == 0)
			continue;
		kill((pid_t)pid, SIGKILL);
		n++;
	}
	return n;
}

/* --- stopped where it stands --- */

static int freeze_begin(const struct cgroup *g)
{
	if (g->host->version == 2)
		return write_file(g->dirs[0], "cgroup.freeze", "1");
	return write_file(cgroup_dir(g, FREEZER), "freezer.state", "FROZEN");
}

int cgroup_thaw(struct cgroup *g)
{
	if (g->host->version == 2)
		return write_file(g->dirs[0], "cgroup.freeze", "0");
	return write_file(cgroup_dir(g, FREEZER), "freezer.state", "THAWED");
}

/* v1 says FREEZING, v2 "frozen 0", until the last of its tasks has stopped. */
bool cgroup_is_frozen(const struct cgroup *g)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line;

	if (g->host->version == 1)
		return cgroup_read(cgroup_dir(g, FREEZER), "freezer.state", &b) == 0 &&
		       str_eq(str_trim(buf_str(&b), "\n"), STR("FROZEN"));
	if (cgroup_read(g->dirs[0], "cgroup.events", &b) < 0)
		return false;
	text = buf_str(&b);
	while (str_split(&text, '\n', &line))
		if (str_eq(line, STR("frozen 1")))
			return true;
	return false;
}

int cgroup_freeze(struct cgroup *g, unsigned timeout_ms)
{
	uint64_t end = mono_ms() + timeout_ms;
	int r = freeze_begin(g);

	while (r == 0 && !cgroup_is_frozen(g)) {
		if (mono_ms() >= end) {
			r = -ETIMEDOUT;
			break;
		}
		nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
	}
	if (r == -ETIMEDOUT)
		cgroup_thaw(g);
	return r;
}

/* --- killed --- */

/* v1: frozen, nothing can fork away between the reading and the killing; the signals act at the thaw. */
static int kill_v1(const struct cgroup *g)
{
	const char *dir = cgroup_dir(g, FREEZER);
	int r = write_file(dir, "freezer.state", "FROZEN");

	for (size_t i = 0; i < g->host->n; i++)
		signal_all(g->dirs[i]);
	int k = write_file(dir, "freezer.state", "THAWED");
	return r < 0 && r != -ENOENT ? r : k < 0 && k != -ENOENT ? k : 0;
}

/* v2: cgroup.kill since 5.14; before, as with v1. */
static int kill_v2(const char *dir)
{
	int r = write_file(dir, "cgroup.kill", "1");

	if (r != -ENOENT)
		return r;
	write_file(dir, "cgroup.freeze", "1");
	signal_all(dir);
	r = write_file(dir, "cgroup.freeze", "0");
	return r == -ENOENT ? 0 : r;
}

int cgroup_kill(struct cgroup *g)
{
	return g->host->version == 2 ? kill_v2(g->dirs[0]) : kill_v1(g);
}

/* --- what an earlier irond left --- */

static int sweep_one(struct cgroup_host *h, const char *name, unsigned *killed, struct error *reterr)
{
	struct cgroup *g = group_of(h, name);
	int r = 0;

	if (!cgroup_is_empty(g)) {
		(*killed)++;
		r = cgroup_empty(g);
	}
	if (r == 0)
		r = cgroup_remove(g);
	if (r < 0)
		error_set(reterr, r, "cgroup %s: %s", g->dirs[0], strerror(-r));
	cgroup_destroy(g);
	return r;
}

int cgroup_sweep(struct cgroup_host *h, bool (*keep)(const char *name, void *user), void *user, unsigned *ret_killed,
		 struct error *reterr)
{
	unsigned killed = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < h->n; i++) {
		DIR *d = opendir(h->dirs[i]);
		struct dirent *e;
		while (d && r == 0 && (e = readdir(d)))
			if (e->d_type == DT_DIR && e->d_name[0] != '.' && !(keep && keep(e->d_name, user)))
				r = sweep_one(h, e->d_name, &killed, reterr);
		if (d)
			closedir(d);
	}
	if (r == 0)
		*ret_killed = killed;
	return r;
}
