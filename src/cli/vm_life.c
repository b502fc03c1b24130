/* create, start, stop, wait, destroy: what a VM goes through. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "cli/interrupt.h"
#include "cli/vm_internal.h"

/* --- waiting --- */

struct waited {
	struct context *c;
	struct progress *progress;
	char step[128];
};

static int on_tick(void *user)
{
	struct waited *w = user;
	progress_tick(w->progress, *w->step ? w->step : NULL);
	return interrupted();
}

/* 0: there. EXIT_…: it will not get there. -EAGAIN: go on. */
static int judge(struct context *c, const json_t *vm, const char *detail, uint64_t end_ms, long seconds)
{
	const char *now = get_string(vm, "status_detail"), *status = get_string(vm, "status"),
	           *reason = get_string(vm, "status_reason");
	const char *name = get_string(vm, "name");
	bool stays = strcmp(now, "stopped") == 0 || strcmp(now, "suspended") == 0 || strcmp(now, "ready") == 0;

	if (strcmp(now, detail) == 0)
		return 0;
	if (strcmp(status, "failed") == 0 || strcmp(now, "destroyed") == 0) {
		error_set(&c->error, -EIO, "%s is %s%s%s", name, now, *reason ? ": " : "", reason);
		return EXIT_FAILED;
	}
	if (strcmp(detail, "ready") == 0 && stays) {
		error_set(&c->error, -EIO, "%s is %s; `iron start %s` starts it", name, now, name);
		return EXIT_FAILED;
	}
	if (mono_ms() >= end_ms) {
		error_set(&c->error, -ETIMEDOUT, "%s is still %s after %ld s%s%s", name, now, seconds,
		          *reason ? ": " : "", reason);
		return EXIT_TIMED_OUT;
	}
	return -EAGAIN;
}

int vm_wait(struct context *c, const char *id, const char *detail, long seconds, struct progress *p, json_t **ret)
{
	uint64_t end = mono_ms() + (uint64_t)seconds * 1000;
	struct waited w = {.c = c, .progress = p};
	bool ready = strcmp(detail, "ready") == 0;
	int e = -EAGAIN;

	client_set_tick(c->client, on_tick, &w);
	*ret = NULL;
	for (bool first = true; e == -EAGAIN; first = false) {
		_cleanup_(reply_finish) struct reply r = {0};
		_cleanup_free_ char *path =
		        xasprintf(ready && !first ? "/vms/%s?wait=ready&timeout_s=2" : "/vms/%s", id);
		if (client_ask(c->client, "GET", path, NULL, &r, &c->error)) {
			e = interrupted() ? EXIT_INTERRUPTED : EXIT_FAILED;
			break;
		}
		json_t *vm = json_object_get(r.body, "data");
		const char *reason = get_string(vm, "status_reason");
		snprintf(w.step, sizeof w.step, "%s", *reason ? reason : get_string(vm, "status_detail"));
		json_decref(*ret);
		*ret = json_incref(vm);
		e = judge(c, vm, detail, end, seconds);
		if (e == -EAGAIN)
			on_tick(&w);
		if (e == -EAGAIN && !ready)
			usleep(150000);
	}
	client_set_tick(c->client, NULL, NULL);
	progress_end(p);
	return e;
}

/* Waits, and says how it went. */
static int wait_and_say(struct context *c, const char *id, const char *detail, struct progress *p)
{
	long seconds = WAIT_S;
	json_t *vm = NULL;

	if (args_number(&c->args, "timeout", 1, 86400, &seconds, &c->error))
		return EXIT_USAGE;
	int e = vm_wait(c, id, detail, seconds, p, &vm);
	_cleanup_free_ char *took = out_duration(mono_ms() - p->start_ms), *name = out_escape(get_string(vm, "name"));
	if (c->json && vm)
		out_json(vm);
	else if (e == 0 && c->quiet)
		out_line("%s", id);
	else if (e == 0)
		out_line("%s %s in %s", name, detail, took);
	json_decref(vm);
	return e;
}

/* A call that the wait's own progress already counts. */
static int ask_with_progress(struct context *c, const char *method, const char *path, json_t *body, struct progress *p,
			     struct reply *ret)
{
	struct waited w = {.c = c, .progress = p};

	client_set_tick(c->client, on_tick, &w);
	int r = client_ask(c->client, method, path, body, ret, &c->error);
	client_set_tick(c->client, NULL, NULL);
	if (r)
		progress_end(p);
	return r;
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

static int add_number(struct context *c, json_t *body, const char *option, const char *field, long lo, long hi)
{
	long v = -1;
	int r = args_number(&c->args, option, lo, hi, &v, &c->error);
	if (r == 0 && v >= 0)
		json_object_set_new(body, field, json_integer(v));
	return r;
}

static void add_presets(struct context *c, json_t *body)
{
	json_t *names = json_array();
	const char *v;

	for (size_t i = 0; (v = args_nth(&c->args, "preset", i)); i++)
		json_array_append_new(names, json_string(v));
	if (json_array_size(names))
		json_object_set_new(body, "egress", json_pack("{s:O}", "presets", names));
	json_decref(names);
}

int vm_create_body(struct context *c, const char *name, json_t *body)
{
	json_object_set_new(body, "name", json_string(name));
	if (args_value(&c->args, "image"))
		json_object_set_new(body, "image", json_string(args_value(&c->args, "image")));
	if (add_number(c, body, "cpus", "vcpus", 1, 32) || add_number(c, body, "memory", "memory_mib", 256, 262144) ||
	    add_number(c, body, "disk", "disk_gib", 4, 2048))
		return -EINVAL;
	add_presets(c, body);
	return add_pairs(c, body, "label", "labels");
}

static int full_body(struct context *c, json_t *body)
{
	const char *key = args_value(&c->args, "key"), *restart = args_value(&c->args, "restart");
	long seconds;

	if (key && read_key(c, key, body))
		return -EINVAL;
	if (restart)
		json_object_set_new(body, "restart", json_string(restart));
	/* before anything is made of it */
	if (args_number(&c->args, "timeout", 1, 86400, &seconds, &c->error))
		return -EINVAL;
	return vm_create_body(c, c->args.words[0], body);
}

int run_create(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	json_t *body = json_object();
	struct progress p;

	if (full_body(c, body)) {
		json_decref(body);
		return EXIT_USAGE;
	}
	progress_start(&p, "creating");
	int e = ask_with_progress(c, "POST", "/vms", body, &p, &r);
	json_decref(body);
	if (e)
		return EXIT_FAILED;
	const json_t *vm = json_object_get(r.body, "data");
	if (!args_has(&c->args, "async"))
		return wait_and_say(c, get_string(vm, "id"), "ready", &p);
	progress_end(&p);
	if (c->quiet && !c->json)
		out_line("%s", get_string(vm, "id"));
	else
		vm_show(c, vm);
	return 0;
}

/* --- start, stop, wait --- */

static int act_and_wait(struct context *c, const char *suffix, const char *title, const char *detail)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = NULL;
	struct progress p;

	progress_start(&p, title);
	path = vm_path(c, c->args.words[0], suffix);
	if (!path || ask_with_progress(c, "POST", path, NULL, &p, &r))
		return EXIT_FAILED;
	const json_t *vm = json_object_get(r.body, "data");
	if (!args_has(&c->args, "async"))
		return wait_and_say(c, get_string(vm, "id"), detail, &p);
	progress_end(&p);
	vm_show(c, vm);
	return 0;
}

int run_start(struct context *c)
{
	return act_and_wait(c, "/start", "starting", "ready");
}

int run_stop(struct context *c)
{
	return act_and_wait(c, "/stop", "stopping", "stopped");
}

int run_wait(struct context *c)
{
	const char *what = args_value(&c->args, "for");
	struct progress p;
	char id[24];

	if (resolve_vm(c, c->args.words[0], id))
		return EXIT_FAILED;
	progress_start(&p, "waiting");
	return wait_and_say(c, id, what ? what : "ready", &p);
}

/* --- destroy --- */

static int destroy_one(struct context *c, const char *id, const char *name, json_t *done)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = xasprintf("/vms/%s%s", id, args_has(&c->args, "force") ? "?force=true" : "");
	_cleanup_free_ char *safe = out_escape(name);
	struct progress p;

	progress_start(&p, "destroying");
	if (ask_with_progress(c, "DELETE", path, NULL, &p, &r)) {
		if (strcmp(client_error_code(c->client), "vm_not_stopped") == 0) {
			c->error = (struct error){0};
			error_set(&c->error, -EBUSY,
			          "%s is not stopped; `iron stop %s` first, or `iron destroy --force %s`", name, name,
			          name);
		}
		return EXIT_FAILED;
	}
	progress_end(&p);
	json_array_append_new(done, json_pack("{s:s, s:s}", "id", id, "name", name));
	if (!c->json)
		out_done("%s destroyed", safe);
	return 0;
}

/* One that fails does not keep the others: its reason is said, and the exit code is 1. */
static int go_on(struct context *c, int e)
{
	if (e && *c->error.text)
		out_warn("%s", c->error.text);
	c->error = (struct error){0};
	return e;
}

static int destroy_labelled(struct context *c, const char *label, json_t *done)
{
	_cleanup_free_ char *escaped = client_escape(c->client, label);
	_cleanup_free_ char *path = xasprintf("/vms?limit=100&label=%s", escaped);
	json_t *data = NULL, *vm;
	int e = 0;
	size_t i;

	if (list_all(c, path, &data))
		return EXIT_FAILED;
	json_array_foreach(data, i, vm)
	{
		if (go_on(c, destroy_one(c, get_string(vm, "id"), get_string(vm, "name"), done)))
			e = EXIT_FAILED;
	}
	if (json_array_size(data) == 0) {
		error_set(&c->error, -ENOENT, "no VM has the label %s", label);
		e = EXIT_FAILED;
	}
	json_decref(data);
	return e;
}

int run_destroy(struct context *c)
{
	const char *label = args_value(&c->args, "label");
	json_t *done;
	int e = 0;

	if ((label != NULL) == (c->args.n_words > 0)) {
		error_set(&c->error, -EINVAL, "give VMs, or --label KEY=VALUE");
		return EXIT_USAGE;
	}
	done = json_array();
	if (label)
		e = destroy_labelled(c, label, done);
	for (size_t i = 0; i < c->args.n_words; i++) {
		char id[24];
		int r = resolve_vm(c, c->args.words[i], id) ? EXIT_FAILED : destroy_one(c, id, c->args.words[i], done);
		e = r ? r : e;
		if (c->args.n_words > 1)
			go_on(c, r);
	}
	if (c->json)
		out_json(done);
	json_decref(done);
	return e;
}
