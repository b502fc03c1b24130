/* list, show, set, stats, sessions, console: what is known of VMs; and the table of their commands. */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "cli/vm_internal.h"

void vm_show(struct context *c, const json_t *vm)
{
	static const char *const plain[] = {"id",    "name",   "status", "status_detail", "status_reason",
	                                    "image", "restart"};
	static const char *const times[] = {"created_at", "started_at", "stopped_at"};
	const char *key;
	json_t *value;

	if (c->json) {
		out_json(vm);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		out_field(plain[i], get_string(vm, plain[i]));
	_cleanup_free_ char *size = xasprintf("%lld vCPU, %lld MiB memory, %lld GiB disk", get_integer(vm, "vcpus"),
	                                      get_integer(vm, "memory_mib"), get_integer(vm, "disk_gib"));
	out_field("size", size);
	json_object_foreach(json_object_get(vm, "labels"), key, value)
	{
		_cleanup_free_ char *label =
		        xasprintf("%s=%s", key, json_string_value(value) ? json_string_value(value) : "");
		out_field("label", label);
	}
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		_cleanup_free_ char *age = out_age(json_object_get(vm, times[i]));
		out_field(times[i], strcmp(age, "-") == 0 ? "" : age);
	}
}

/* --- list --- */

static void print_vms(const json_t *data)
{
	static const struct column columns[] = {
	        {"NAME", 18, 0, false}, {"STATUS", 8, 0, false},   {"IMAGE", 6, 4, false},  {"CPU", 0, 5, true},
	        {"MEMORY", 9, 5, true}, {"CREATED", 10, 3, false}, {"LABELS", 8, 6, false}, {"ID", 16, 2, false}};
	const json_t *vm;
	struct table t;
	size_t i;

	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, vm)
	{
		_cleanup_(buf_finish) struct buf labels = {0};
		_cleanup_free_ char *age = out_age(json_object_get(vm, "created_at"));
		_cleanup_free_ char *cpu = xasprintf("%lld", get_integer(vm, "vcpus"));
		_cleanup_free_ char *memory = xasprintf("%lld MiB", get_integer(vm, "memory_mib"));
		const char *state = get_string(vm, "status_detail"), *key;
		json_t *value;
		json_object_foreach(json_object_get(vm, "labels"), key, value)
		        buf_printf(&labels, "%s%s=%s", labels.len ? " " : "", key,
		                   json_string_value(value) ? json_string_value(value) : "");
		_cleanup_free_ char *all = buf_take_z(&labels);
		table_cell(&t, get_string(vm, "name"));
		table_cell(&t, state);
		table_style(&t, out_state_style(state));
		const char *rest[] = {get_string(vm, "image"), cpu, memory, age, all, get_string(vm, "id")};
		for (size_t k = 0; k < ARRAY_SIZE(rest); k++)
			table_cell(&t, rest[k]);
	}
	table_print(&t);
	table_finish(&t);
}

/* With --all those that are destroyed follow; the API leaves them out unless they are asked for. */
static int fetch_vms(struct context *c, size_t limit, json_t **ret, bool *ret_more)
{
	static const char *const filters[] = {"status", "label", "name", "sort", "order"};
	_cleanup_(buf_finish) struct buf path = {0};
	json_t *gone = NULL;
	bool more = false;

	buf_append_z(&path, "/vms?limit=100");
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
		add_filter(c, &path, filters[i], filters[i]);
	add_filter(c, &path, "detail", "status_detail");
	_cleanup_free_ char *z = buf_take_z(&path);
	int r = list_some(c, z, limit, ret, &more);
	bool given = args_has(&c->args, "status") || args_has(&c->args, "detail") || args_has(&c->args, "name");
	if (r == 0 && args_has(&c->args, "all") && !given && json_array_size(*ret) < limit) {
		_cleanup_free_ char *second = xasprintf("%s&status=destroyed", z);
		r = list_some(c, second, limit - json_array_size(*ret), &gone, &more);
		if (r == 0)
			json_array_extend(*ret, gone);
		else
			json_decref(*ret);
		json_decref(gone);
	}
	*ret_more = more;
	return r;
}

static int run_list(struct context *c)
{
	long limit = LIST_MAX;
	json_t *data = NULL;
	bool more = false;

	if (args_number(&c->args, "limit", 1, LIST_MAX, &limit, &c->error))
		return EXIT_USAGE;
	if (fetch_vms(c, (size_t)limit, &data, &more))
		return EXIT_FAILED;
	bool filtered = c->args.n_given > 0;
	if (c->json)
		out_json(data);
	else if (c->quiet)
		out_each(data, "name");
	else if (json_array_size(data))
		print_vms(data);
	else
		out_line(filtered ? "no such VMs" : "no VMs; `iron create NAME` makes one");
	if (more && !c->quiet)
		out_warn("there are more than these %zu; --limit N shows up to %d", json_array_size(data), LIST_MAX);
	json_decref(data);
	return 0;
}

/* --- one VM --- */

static int run_show(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = vm_path(c, c->args.words[0], "");

	if (!path || client_ask(c->client, "GET", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	vm_show(c, json_object_get(r.body, "data"));
	return 0;
}

/* The labels as they are to be: those there are, with --label set and --remove-label gone. */
static int changed_labels(struct context *c, const char *path, json_t *body)
{
	_cleanup_(reply_finish) struct reply r = {0};
	json_t *given = json_object();
	const char *v;

	int e = add_pairs(c, given, "label", "labels");
	if (e == 0)
		e = client_ask(c->client, "GET", path, NULL, &r, &c->error);
	if (e == 0) {
		json_t *labels = json_deep_copy(json_object_get(json_object_get(r.body, "data"), "labels"));
		labels = labels ? labels : json_object();
		for (size_t i = 0; (v = args_nth(&c->args, "remove-label", i)); i++)
			if (json_object_del(labels, v) && e == 0)
				e = error_set(&c->error, -ENOENT, "%s has no label '%s'", c->args.words[0], v);
		json_object_update(labels, json_object_get(given, "labels"));
		json_object_set_new(body, "labels", labels);
	}
	json_decref(given);
	return e;
}

static int run_set(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = NULL;
	static const char *const plain[] = {"name", "restart"};
	json_t *body = json_object();
	int e = 0;

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (args_has(&c->args, plain[i]))
			json_object_set_new(body, plain[i], json_string(args_value(&c->args, plain[i])));
	bool labels = args_has(&c->args, "label") || args_has(&c->args, "remove-label");
	if (!labels && json_object_size(body) == 0) {
		json_decref(body);
		error_set(&c->error, -EINVAL, "say what to change: --name, --label, --remove-label or --restart");
		return EXIT_USAGE;
	}
	path = vm_path(c, c->args.words[0], "");
	if (!path || (labels && changed_labels(c, path, body)))
		e = EXIT_FAILED;
	if (e == 0 && client_ask(c->client, "PATCH", path, body, &r, &c->error))
		e = EXIT_FAILED;
	json_decref(body);
	if (e == 0 && (c->json || !c->quiet))
		vm_show(c, json_object_get(r.body, "data"));
	return e;
}

/* --- what it used --- */

static void print_use(const json_t *s, const char *used, const char *limit, const char *name)
{
	_cleanup_free_ char *a = out_bytes(json_object_get(s, used)), *b = out_bytes(json_object_get(s, limit));
	bool limited = get_integer(s, limit) > 0;
	_cleanup_free_ char *text = xasprintf("%s%s%s", a, limited ? " of " : "", limited ? b : "");
	out_field(name, text);
}

static void print_pair(const json_t *s, const char *first, const char *second, const char *name, const char *verbs)
{
	_cleanup_free_ char *a = out_bytes(json_object_get(s, first)), *b = out_bytes(json_object_get(s, second));
	_cleanup_free_ char *text =
	        xasprintf("%s %.*s, %s %s", a, (int)strcspn(verbs, "/"), verbs, b, strchr(verbs, '/') + 1);
	out_field(name, text);
}

static int run_stats(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = vm_path(c, c->args.words[0], "/stats");

	if (!path || client_ask(c->client, "GET", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	const json_t *s = json_object_get(r.body, "data");
	if (c->json) {
		out_json(s);
		return 0;
	}
	_cleanup_free_ char *cpu = out_duration((uint64_t)get_integer(s, "cpu_time_ms")),
	                    *up = out_duration((uint64_t)get_integer(s, "uptime_ms"));
	_cleanup_free_ char *peak = out_bytes(json_object_get(s, "memory_peak_bytes"));
	out_field("running", json_is_true(json_object_get(s, "running")) ? up : "no");
	out_field("cpu time", cpu);
	print_use(s, "memory_bytes", "memory_limit_bytes", "memory");
	out_field("memory peak", peak);
	print_use(s, "disk_bytes", "disk_limit_bytes", "disk");
	print_pair(s, "disk_read_bytes", "disk_written_bytes", "disk traffic", "read/written");
	print_pair(s, "network_sent_bytes", "network_received_bytes", "network", "sent/received");
	return 0;
}

static int run_sessions(struct context *c)
{
	static const struct column columns[] = {
	        {"STARTED", 12, 0, false}, {"LASTED", 9, 0, false},     {"ENDED BY", 8, 1, false},
	        {"CPU", 8, 3, true},       {"MEMORY PEAK", 0, 4, true}, {"DISK", 9, 6, true},
	        {"SENT", 9, 5, true},      {"RECEIVED", 9, 5, true},    {"ID", 17, 2, false}};
	static const char *const sizes[] = {"memory_peak_bytes", "disk_bytes", "network_sent_bytes",
	                                    "network_received_bytes"};
	_cleanup_free_ char *path = vm_path(c, c->args.words[0], "/sessions?limit=100");
	json_t *data = NULL, *s;
	struct table t;
	size_t i;

	if (!path || list_all(c, path, &data))
		return EXIT_FAILED;
	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, s)
	{
		_cleanup_free_ char *started = out_age(json_object_get(s, "started_at")),
		                    *cpu = out_duration((uint64_t)get_integer(s, "cpu_time_ms"));
		_cleanup_free_ char *lasted = out_duration((uint64_t)get_integer(s, "duration_ms"));
		bool over = json_is_string(json_object_get(s, "ended_at"));
		table_cell(&t, started);
		table_cell(&t, lasted);
		table_cell(&t, over ? get_string(s, "end_reason") : "runs");
		table_cell(&t, cpu);
		for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
			_cleanup_free_ char *bytes = out_bytes(json_object_get(s, sizes[k]));
			table_cell(&t, bytes);
		}
		table_cell(&t, get_string(s, "id"));
	}
	if (c->json)
		out_json(data);
	else if (json_array_size(data))
		table_print(&t);
	else
		out_line("it has not run yet");
	table_finish(&t);
	json_decref(data);
	return 0;
}

/* --- the console --- */

static int take_console(void *user, const void *p, size_t n)
{
	return buf_append(user, p, n);
}

/* A guest's bytes: on a terminal, lines stay lines and everything else that would steer it is shown instead. */
static void print_console(struct str text)
{
	struct str line;

	if (!isatty(STDOUT_FILENO)) {
		fwrite(text.p, 1, text.len, stdout);
		return;
	}
	while (text.len && str_split(&text, '\n', &line)) {
		_cleanup_(buf_finish) struct buf safe = {0};
		escape_terminal(str_trim(line, "\r"), &safe);
		out_line("%.*s", STR_ARG(buf_str(&safe)));
	}
}

static int run_console(struct context *c)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX((size_t)1 << 20);
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = vm_path(c, c->args.words[0], "/console");
	struct transfer t = {.method = "GET", .path = path, .write = take_console, .user = &text};

	if (!path)
		return EXIT_FAILED;
	int e = client_transfer(c->client, &t, &r, &c->error);
	if (e == -ECANCELED)
		error_set(&c->error, -EPROTO, "the API sent more than a console holds");
	if (e)
		return EXIT_FAILED;
	if (c->json) {
		_cleanup_(buf_finish) struct buf safe = {0};
		/* what is not UTF-8 cannot be in JSON as it is */
		json_t *s = json_stringn((const char *)text.data, text.len);
		if (!s && escape_terminal(buf_str(&text), &safe) == 0)
			s = json_stringn((const char *)safe.data, safe.len);
		json_t *o = json_pack("{s:o}", "console", s ? s : json_string(""));
		out_json(o);
		json_decref(o);
	} else {
		print_console(buf_str(&text));
	}
	return 0;
}

static const struct arg_option none[] = {{0}};
#define TIMEOUT_OPTION                                                                                                 \
	{                                                                                                              \
		"timeout", 0, "S", "give up waiting after this many seconds (600); exit code 124"                      \
	}
static const struct arg_option create_options[] = {
	VM_CREATE_OPTIONS,
	{"key", 0, "FILE", "a public key that may log in over SSH"},
	{"restart", 0, "never|always",
	 "after its machine died or powered itself off, or the host was restarted: always starts it again"},
	{"async", 0, NULL, "do not wait until it takes commands"},
	TIMEOUT_OPTION,
	{0}};
static const struct arg_option list_options[] = {
	{"status", 0, "pending|running|stopped|destroyed|failed", "only those"},
	{"detail", 0, "DETAIL", "only those whose status_detail is this: ready, stopping, suspended …"},
	{"label", 'l', "KEY=VALUE", "only those with this label"},
	{"name", 0, "NAME", "only those of this name, also if destroyed"},
	{"all", 'a', NULL, "also those that are destroyed"},
	{"limit", 'n', "N", "at most this many (10000)"},
	{"sort", 0, "created_at|updated_at|name", "by this; otherwise what is alive first, newest first"},
	{"order", 0, "asc|desc", "which way"},
	{0}};
static const struct arg_option set_options[] = {
	{"name", 0, "NAME", "another name"},
	{"label", 'l', "KEY=VALUE", "set a label; may be repeated"},
	{"remove-label", 0, "KEY", "take a label away; may be repeated"},
	{"restart", 0, "never|always",
	 "after its machine died or powered itself off, or the host was restarted: always starts it again"},
	{0}};
static const struct arg_option act_options[] = {{"async", 0, NULL, "do not wait"}, TIMEOUT_OPTION, {0}};
static const struct arg_option wait_options[] = {
	{"for", 0, "ready|stopped|destroyed", "what to wait for (ready: it takes commands)"}, TIMEOUT_OPTION, {0}};
static const struct arg_option destroy_options[] = {
	{"force", 'f', NULL, "also while it runs"}, {"label", 'l', "KEY=VALUE", "every VM with this label"}, {0}};

const struct command vm_commands[] = {
	{"create", "NAME", "create a VM and wait until it takes commands", NULL,
	 "iron create demo\niron create build-7 --cpus 4 --memory 8192 --label team=infra\nid=$(iron create demo "
	 "--async -q) && iron wait $id\n",
	 create_options, 1, 1, 0, run_create},
	{"list", "", "list VMs", NULL,
	 "iron list\niron list --label team=infra --json\niron list -q --status stopped | xargs iron destroy\n",
	 list_options, 0, 0, 0, run_list},
	{"show", "VM", "show a VM", NULL, "iron show demo\niron show demo --json\n", none, 1, 1, 0, run_show},
	{"status", "VM", "the same as show", NULL, "iron status demo\n", none, 1, 1, 0, run_show},
	{"set", "VM", "change a VM's name, labels or restart policy", NULL,
	 "iron set demo --name demo-2\niron set demo --label owner=ada --remove-label team\niron set demo --restart "
	 "always\n",
	 set_options, 1, 1, 0, run_set},
	{"start", "VM", "start a stopped VM and wait until it takes commands", NULL, "iron start demo\n", act_options,
	 1, 1, 0, run_start},
	{"stop", "VM", "stop a VM; its disk stays", NULL, "iron stop demo\n", act_options, 1, 1, 0, run_stop},
	{"wait", "VM", "wait until a VM takes commands, or is stopped or destroyed", NULL,
	 "iron create demo --async && iron wait demo\niron wait demo --for stopped --timeout 30\n", wait_options, 1, 1,
	 0, run_wait},
	{"destroy", "VM… | --label KEY=VALUE", "destroy VMs and their disks", NULL,
	 "iron destroy demo\niron destroy --force build-1 build-2\niron destroy --force --label team=infra\n",
	 destroy_options, 0, WORDS_MAX, 0, run_destroy},
	{"console", "VM", "print the last 64 KiB of a VM's serial console", NULL,
	 "iron console demo\niron console demo >boot.log\n", none, 1, 1, 0, run_console},
	{"stats", "VM", "what a VM uses: CPU, memory, disk, network", NULL, "iron stats demo\niron stats demo --json\n",
	 none, 1, 1, 0, run_stats},
	{"sessions", "VM", "when a VM ran, and what it used", "A VM that is destroyed goes by its id here.\n",
	 "iron sessions demo\n", none, 1, 1, 0, run_sessions},
	{0},
};
