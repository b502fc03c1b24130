/* create, list, show, start, stop, destroy, wait. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "cli/command.h"

static int fail(struct context *c)
{
	return c->error.code ? EXIT_FAILED : 0;
}

/* --- showing --- */

static void print_vm(const json_t *vm)
{
	static const char *const plain[] = {"id", "name", "status", "status_detail", "status_reason", "image"};
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		_cleanup_free_ char *text = out_escape(get_string(vm, plain[i]));
		if (*text)
			out_line("%-14s %s", plain[i], text);
	}
	out_line("%-14s %lld vCPU, %lld MiB memory, %lld GiB disk", "size",
		 (long long)json_integer_value(json_object_get(vm, "vcpus")),
		 (long long)json_integer_value(json_object_get(vm, "memory_mib")),
		 (long long)json_integer_value(json_object_get(vm, "disk_gib")));
	const char *key;
	json_t *value;
	json_object_foreach(json_object_get(vm, "labels"), key, value)
	{
		_cleanup_free_ char *k = out_escape(key), *v = out_escape(json_string_value(value));
		out_line("%-14s %s=%s", "label", k, v);
	}
	static const char *const times[] = {"created_at", "started_at", "stopped_at"};
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		_cleanup_free_ char *age = out_age(json_object_get(vm, times[i]));
		if (strcmp(age, "-") != 0)
			out_line("%-14s %s", times[i], age);
	}
}

static int show_reply(struct context *c, const struct reply *r)
{
	const json_t *data = json_object_get(r->body, "data");
	if (c->json)
		out_json(data);
	else
		print_vm(data);
	return 0;
}

/* --- waiting --- */

/* Polls until the VM is at `detail`, failed, or seconds have passed. The last state seen is in *ret (owned). */
static int wait_until(struct context *c, const char *id, const char *detail, long seconds, struct progress *p, json_t **ret)
{
	uint64_t end = mono_ms() + (uint64_t)seconds * 1000;
	bool ready = strcmp(detail, "ready") == 0;

	for (;;) {
		_cleanup_(reply_finish) struct reply r = {0};
		/* one second at a time, so that the timer moves */
		_cleanup_free_ char *path = xasprintf(ready ? "/vms/%s?wait=ready&timeout_s=1" : "/vms/%s", id);
		if (client_ask(c->client, "GET", path, NULL, &r, &c->error))
			return EXIT_FAILED;
		json_t *vm = json_object_get(r.body, "data");
		const char *now = get_string(vm, "status_detail");
		const char *waits_for = get_string(vm, "status_reason");
		progress_tick(p, *waits_for ? waits_for : now);
		bool there = strcmp(now, detail) == 0, failed = strcmp(get_string(vm, "status"), "failed") == 0;
		if (there || failed || mono_ms() > end || (ready && strcmp(now, "stopped") == 0)) {
			progress_end(p);
			*ret = json_incref(vm);
			if (there)
				return 0;
			_cleanup_free_ char *reason = out_escape(get_string(vm, "status_reason"));
			error_set(&c->error, -EIO, "%s is %s%s%s", get_string(vm, "name"), now, *reason ? ": " : "", reason);
			return EXIT_FAILED;
		}
		if (!ready)
			usleep(200000);
	}
}

/* --- create --- */

static int read_key(struct context *c, const char *path, json_t *body)
{
	char text[16384 + 1];
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);

	if (n < 0)
		return error_set(&c->error, -errno, "%s: %s", path, strerror(errno));
	if (n == 0 || (size_t)n == sizeof text || memmem(text, (size_t)n, "PRIVATE KEY", 11))
		return error_set(&c->error, -EINVAL, "%s is not a public key; give the file that ends in .pub", path);
	json_object_set_new(body, "public_key", json_stringn(text, (size_t)n));
	return 0;
}

static int add_labels(struct context *c, json_t *body)
{
	json_t *labels = json_object();
	const char *v;

	for (size_t i = 0; (v = args_nth(&c->args, "label", i)); i++) {
		const char *eq = strchr(v, '=');
		if (!eq || eq == v) {
			json_decref(labels);
			return error_set(&c->error, -EINVAL, "--label must be KEY=VALUE, not '%s'", v);
		}
		_cleanup_free_ char *key = xstrndup(v, (size_t)(eq - v));
		json_object_set_new(labels, key, json_string(eq + 1));
	}
	if (json_object_size(labels))
		json_object_set(body, "labels", labels);
	json_decref(labels);
	return 0;
}

static int add_number(struct context *c, json_t *body, const char *option, const char *field, long lo, long hi)
{
	long v = -1;
	int r = args_number(&c->args, option, lo, hi, &v, &c->error);
	if (r == 0 && v >= 0)
		json_object_set_new(body, field, json_integer(v));
	return r;
}

static int create_body(struct context *c, json_t *body)
{
	json_object_set_new(body, "name", json_string(c->args.words[0]));
	if (args_value(&c->args, "image"))
		json_object_set_new(body, "image", json_string(args_value(&c->args, "image")));
	if (args_value(&c->args, "key") && read_key(c, args_value(&c->args, "key"), body))
		return -EINVAL;
	if (add_number(c, body, "cpus", "vcpus", 1, 32) || add_number(c, body, "memory", "memory_mib", 256, 262144) ||
	    add_number(c, body, "disk", "disk_gib", 4, 2048))
		return -EINVAL;
	return add_labels(c, body);
}

static int run_create(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	struct progress p;
	json_t *body = json_object(), *vm = NULL;

	progress_start(&p, "creating");
	int e = create_body(c, body);
	if (e == 0)
		e = client_ask(c->client, "POST", "/vms", body, &r, &c->error);
	json_decref(body);
	if (e)
		return EXIT_FAILED;
	if (args_has(&c->args, "async"))
		return show_reply(c, &r);
	e = wait_until(c, get_string(json_object_get(r.body, "data"), "id"), "ready", 600, &p, &vm);
	if (c->json && vm)
		out_json(vm);
	else if (e == 0)
		out_line("%s ready in %.1f s", get_string(vm, "name"), progress_seconds(&p));
	json_decref(vm);
	return e;
}

/* --- list, show, wait --- */

static int list_path(struct context *c, char **ret)
{
	_cleanup_(buf_finish) struct buf path = {0};
	static const char *const filters[] = {"status", "label", "name"};

	buf_append_z(&path, "/vms?limit=100");
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		const char *v = args_value(&c->args, filters[i]);
		if (!v)
			continue;
		_cleanup_free_ char *escaped = client_escape(c->client, v);
		buf_printf(&path, "&%s=%s", filters[i], escaped);
	}
	*ret = buf_take_z(&path);
	return 0;
}

static int run_list(struct context *c)
{
	static const char *const titles[] = {"NAME", "STATUS", "IMAGE", "CPU", "MEMORY", "CREATED", "ID"};
	_cleanup_free_ char *path = NULL;
	json_t *data = NULL, *vm;
	struct table t;
	size_t i;

	list_path(c, &path);
	if (list_all(c, path, &data))
		return EXIT_FAILED;
	if (c->json) {
		out_json(data);
		json_decref(data);
		return 0;
	}
	table_init(&t, ARRAY_SIZE(titles), titles);
	json_array_foreach(data, i, vm)
	{
		_cleanup_free_ char *age = out_age(json_object_get(vm, "created_at"));
		_cleanup_free_ char *cpu = xasprintf("%lld", (long long)json_integer_value(json_object_get(vm, "vcpus")));
		_cleanup_free_ char *memory = xasprintf("%lld MiB", (long long)json_integer_value(json_object_get(vm, "memory_mib")));
		const char *cells[] = {get_string(vm, "name"), get_string(vm, "status_detail"), get_string(vm, "image"), cpu, memory, age,
				       get_string(vm, "id")};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	if (json_array_size(data))
		table_print(&t);
	else
		out_line("no VMs; `iron create NAME` makes one");
	table_finish(&t);
	json_decref(data);
	return 0;
}

/* One call on one VM, and its answer shown. */
static int act(struct context *c, const char *method, const char *suffix, struct reply *ret)
{
	char id[24];

	if (resolve_vm(c, c->args.words[0], id))
		return EXIT_FAILED;
	_cleanup_free_ char *path = xasprintf("/vms/%s%s", id, suffix);
	return client_ask(c->client, method, path, NULL, ret, &c->error) ? EXIT_FAILED : 0;
}

static int run_show(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	int e = act(c, "GET", "", &r);
	return e ? e : show_reply(c, &r);
}

static int finish_wait(struct context *c, const char *id, const char *detail, const char *title, const char *done)
{
	struct progress p;
	json_t *vm = NULL;
	long seconds = 600;

	if (args_number(&c->args, "timeout", 1, 86400, &seconds, &c->error))
		return EXIT_FAILED;
	progress_start(&p, title);
	int e = wait_until(c, id, detail, seconds, &p, &vm);
	if (c->json && vm)
		out_json(vm);
	else if (e == 0)
		out_line("%s %s in %.1f s", get_string(vm, "name"), done, progress_seconds(&p));
	json_decref(vm);
	return e;
}

static int run_wait(struct context *c)
{
	char id[24];
	if (resolve_vm(c, c->args.words[0], id))
		return EXIT_FAILED;
	return finish_wait(c, id, "ready", "waiting", "ready");
}

/* --- start, stop, destroy --- */

static int run_start(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	if (act(c, "POST", "/start", &r))
		return fail(c);
	return finish_wait(c, get_string(json_object_get(r.body, "data"), "id"), "ready", "starting", "ready");
}

static int run_stop(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	if (act(c, "POST", "/stop", &r))
		return fail(c);
	return finish_wait(c, get_string(json_object_get(r.body, "data"), "id"), "stopped", "stopping", "stopped");
}

static int destroy_one(struct context *c, const char *id, const char *name)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = xasprintf("/vms/%s%s", id, args_has(&c->args, "force") ? "?force=true" : "");

	if (client_ask(c->client, "DELETE", path, NULL, &r, &c->error)) {
		if (strcmp(client_error_code(c->client), "vm_not_stopped") == 0)
			c->error = (struct error){.code = 0}, error_set(&c->error, -EBUSY,
				"%s is not stopped; `iron stop %s` first, or `iron destroy --force %s`", name, name, name);
		return EXIT_FAILED;
	}
	if (!c->json)
		out_line("%s destroyed", name);
	return 0;
}

static int destroy_labelled(struct context *c, const char *label)
{
	_cleanup_free_ char *escaped = client_escape(c->client, label);
	_cleanup_free_ char *path = xasprintf("/vms?limit=100&label=%s", escaped);
	json_t *data = NULL, *vm;
	size_t i;
	int e = 0;

	if (list_all(c, path, &data))
		return EXIT_FAILED;
	json_array_foreach(data, i, vm)
	{
		e = destroy_one(c, get_string(vm, "id"), get_string(vm, "name"));
		if (e)
			break;
	}
	if (json_array_size(data) == 0)
		e = error_set(&c->error, -ENOENT, "no VM has the label %s", label) ? EXIT_FAILED : 0;
	json_decref(data);
	return e;
}

static int run_destroy(struct context *c)
{
	const char *label = args_value(&c->args, "label");
	char id[24];

	if ((label != NULL) == (c->args.n_words == 1)) {
		error_set(&c->error, -EINVAL, "give one VM, or --label KEY=VALUE");
		return EXIT_USAGE;
	}
	if (label)
		return destroy_labelled(c, label);
	if (resolve_vm(c, c->args.words[0], id))
		return EXIT_FAILED;
	return destroy_one(c, id, c->args.words[0]);
}

static const struct arg_option no_options[] = {{0}};
static const struct arg_option create_options[] = {{"image", 0, true}, {"cpus", 0, true},    {"memory", 0, true}, {"disk", 0, true},
						   {"key", 0, true},   {"label", 'l', true}, {"async", 0, false}, {0}};
static const struct arg_option list_options[] = {{"status", 0, true}, {"label", 'l', true}, {"name", 0, true}, {0}};
static const struct arg_option wait_options[] = {{"timeout", 0, true}, {0}};
static const struct arg_option destroy_options[] = {{"force", 'f', false}, {"label", 'l', true}, {0}};

const struct command vm_commands[] = {
	{"create", "NAME", "create a VM and wait until it takes commands",
	 "  --image NAME        the image (default: the host's)\n"
	 "  --cpus N            virtual CPUs\n"
	 "  --memory MIB        memory\n"
	 "  --disk GIB          disk\n"
	 "  --key FILE          a public key that may log in over SSH\n"
	 "  --label KEY=VALUE   a label; may be repeated\n"
	 "  --async             do not wait\n\n"
	 "Examples:\n  iron create demo\n  iron create build-7 --cpus 4 --memory 8192 --label team=infra\n",
	 create_options, 1, 1, false, run_create},
	{"list", "", "list VMs",
	 "  --status S          only pending, running, stopped, destroyed or failed\n"
	 "  --label KEY=VALUE   only those with this label\n"
	 "  --name NAME         only the one of this name\n\n"
	 "Examples:\n  iron list\n  iron list --label team=infra --json\n",
	 list_options, 0, 0, false, run_list},
	{"show", "VM", "show a VM", "Examples:\n  iron show demo\n  iron show demo --json\n", no_options, 1, 1, false, run_show},
	{"status", "VM", "the same as show", "Examples:\n  iron status demo\n", no_options, 1, 1, false, run_show},
	{"start", "VM", "start a stopped VM and wait until it takes commands",
	 "  --timeout S         give up waiting after this long (600)\n\nExamples:\n  iron start demo\n", wait_options, 1, 1, false, run_start},
	{"stop", "VM", "stop a VM; its disk stays",
	 "  --timeout S         give up waiting after this long (600)\n\nExamples:\n  iron stop demo\n", wait_options, 1, 1, false, run_stop},
	{"wait", "VM", "wait until a VM takes commands",
	 "  --timeout S         give up after this long (600)\n\nExamples:\n  iron create demo --async && iron wait demo\n", wait_options, 1,
	 1, false, run_wait},
	{"destroy", "VM | --label KEY=VALUE", "destroy a VM and its disk",
	 "  -f, --force         also while it runs\n"
	 "  --label KEY=VALUE   every VM with this label\n\n"
	 "Examples:\n  iron destroy demo\n  iron destroy --force --label team=infra\n",
	 destroy_options, 0, 1, false, run_destroy},
	{0},
};
