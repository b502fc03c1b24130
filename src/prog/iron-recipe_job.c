#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "prog/iron-recipe.h"

#define READY_S 600
#define STOP_S 120
#define GONE_S 120
#define HOUSEKEEPING_S 120 /* of the commands that are not the recipe's */
#define LABEL "iron.image-build"
#define TAIL_LINES 8
#define TAIL_SHOWN ((size_t)280)

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static int number(const json_t *o, const char *key)
{
	return (int)json_integer_value(json_object_get(o, key));
}

static void wait_ms(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static int content_of(const json_t *o, const char *key, struct buf *ret, struct error *reterr)
{
	ret->max = (size_t)64 << 20;
	return base64_decode(str_of(text(o, key)), ret) < 0 ? error_set(reterr, -EBADMSG, "the job is malformed") : 0;
}

/* --- the VM --- */

static json_t *rules(const struct job *j)
{
	json_t *list = json_array(), *host;
	size_t i;

	json_array_foreach(json_object_get(j->spec, "hosts"), i, host)
		json_array_append_new(list, json_pack("{s:O}", "host", host));
	return list;
}

/* irond tells iron-control of a new image by another way than this call takes: it may come a moment later. */
static int vm_create(struct job *j, struct error *reterr)
{
	json_auto_t *body = json_pack("{s:O, s:O, s:O, s:O, s:O, s:{s:O}, s:{s:s, s:b, s:o}}", "name",
				      json_object_get(j->spec, "name"), "image", json_object_get(j->spec, "image"), "vcpus",
				      json_object_get(j->spec, "vcpus"), "memory_mib",
				      json_object_get(j->spec, "memory_mib"), "disk_gib",
				      json_object_get(j->spec, "disk_gib"), "labels", LABEL,
				      json_object_get(j->spec, "label"), "egress", "mode", "enforce", "inherit", 0, "rules",
				      rules(j));
	uint64_t end = mono_ms() + 10000;

	if (!body)
		return error_set(reterr, -EBADMSG, "the job is malformed");
	for (;;) {
		_cleanup_(reply_finish) struct reply r = {0};
		struct error e = {0};
		int k = client_ask(j->client, "POST", "/vms", body, &r, &e);
		if (k == 0) {
			snprintf(j->vm, sizeof j->vm, "%s", text(json_object_get(r.body, "data"), "id"));
			return 0;
		}
		if (strcmp(client_error_code(j->client), "image_not_found") != 0 || mono_ms() > end)
			return error_set(reterr, k, "the VM in which scripts run cannot be made: %s", e.text);
		wait_ms(100);
	}
}

static int vm_state(struct job *j, const char *query, char ret_status[32], char ret_detail[32], struct error *reterr)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = xasprintf("/vms/%s%s", j->vm, query);
	int k = client_ask(j->client, "GET", path, NULL, &r, reterr);

	if (k < 0)
		return k;
	const json_t *vm = json_object_get(r.body, "data");
	snprintf(ret_status, 32, "%s", text(vm, "status"));
	snprintf(ret_detail, 32, "%s", text(vm, "status_detail"));
	if (strcmp(ret_status, "failed") == 0)
		return error_set(reterr, -EIO, "the VM in which scripts run has failed: %s", text(vm, "status_reason"));
	return 0;
}

static int vm_wait(struct job *j, const char *query, const char *wanted, unsigned seconds, struct error *reterr)
{
	const uint64_t start = mono_ms();
	char status[32], detail[32];
	uint64_t said = start;

	for (;;) {
		int r = vm_state(j, query, status, detail, reterr);
		if (r < 0)
			return r;
		if (strcmp(detail, wanted) == 0)
			return 0;
		if (mono_ms() - start > seconds * 1000ULL)
			return error_set(reterr, -ETIMEDOUT, "the VM in which scripts run is still %s after %u s", detail, seconds);
		if (mono_ms() - said >= 5000) {
			said = mono_ms();
			say("the VM is %s", detail);
		}
		if (!*query)
			wait_ms(100);
	}
}

/* --- what is done in it --- */

/* The end of what it said, on one line. */
static void tail_show(const struct buf *tail, char *ret, size_t size)
{
	struct str s = str_trim(buf_str(tail), "\r\n ");
	size_t at = s.len;

	for (unsigned lines = 0; at > 0 && s.len - at < MIN(size - 1, TAIL_SHOWN); at--)
		if (s.p[at - 1] == '\n' && ++lines == TAIL_LINES)
			break;
	snprintf(ret, size, "%.*s", (int)(s.len - at), s.len ? s.p + at : "");
}

static int run(struct job *j, json_t *argv, const struct buf *input, unsigned timeout_s, bool shown, const char *what,
	       struct error *reterr)
{
	_cleanup_(buf_finish) struct buf tail = {0};
	char said[TAIL_SHOWN + 1];
	int code = 0, r = exec_run(j, argv, input, timeout_s, shown, &tail, &code, reterr);

	if (r < 0) {
		error_prefix(reterr, "%s", what);
		return r;
	}
	if (code == 0)
		return 0;
	tail_show(&tail, said, sizeof said);
	return error_set(reterr, -ECHILD, "%s ended with exit status %d; its last lines: %s", what, code, said);
}

static int file_put(struct job *j, const json_t *file, struct error *reterr)
{
	static const char put[] = "mkdir -p \"$(dirname \"$3\")\"; cat >\"$3\"; chown \"$2\" \"$3\"; chmod \"$1\" \"$3\"";
	_cleanup_(buf_finish) struct buf content = {0};
	_cleanup_free_ char *what = xasprintf("putting %s there", text(file, "path"));

	int r = content_of(file, "content", &content, reterr);
	if (r < 0)
		return r;
	say("%s", text(file, "path"));
	return run(j, json_pack("[s, s, s, s, s, s, s]", "/bin/sh", "-ec", put, "sh", text(file, "mode"), text(file, "owner"),
				text(file, "path")), &content, HOUSEKEEPING_S, false, what, reterr);
}

/* A file of its own, so that it may read its standard input and be of any language; without a first line that names one it is
 * sh's, and ends at the first command that fails. */
static int script_run(struct job *j, const json_t *script, size_t i, size_t n, struct error *reterr)
{
	static const char put[] = "umask 077; cat >/root/.iron-script; chmod 700 /root/.iron-script";
	static const char go[] = "case $(head -c 2 /root/.iron-script | tr -d '\\0') in '#!') /root/.iron-script ;; *) /bin/sh -e "
				 "/root/.iron-script ;; esac </dev/null";
	static const char away[] = "rm -f /root/.iron-script";
	_cleanup_(buf_finish) struct buf content = {0};
	const char *name = text(script, "name");
	_cleanup_free_ char *what = xasprintf("script %zu of %zu%s%s", i + 1, n, *name ? ", " : "", name);

	int r = content_of(script, "text", &content, reterr);
	if (r < 0)
		return r;
	say("%s", what);
	if ((r = run(j, json_pack("[s, s, s]", "/bin/sh", "-ec", put), &content, HOUSEKEEPING_S, false, what, reterr)) < 0 ||
	    (r = run(j, json_pack("[s, s, s]", "/bin/sh", "-c", go), NULL, (unsigned)number(j->spec, "timeout_s"), true, what,
		     reterr)) < 0)
		return r;
	return run(j, json_pack("[s, s, s]", "/bin/sh", "-ec", away), NULL, HOUSEKEEPING_S, false, what, reterr);
}

static int contents_make(struct job *j, struct error *reterr)
{
	const json_t *files = json_object_get(j->spec, "files"), *scripts = json_object_get(j->spec, "scripts"), *o;
	size_t i;
	int r = 0;

	json_array_foreach(files, i, o)
		if (r == 0)
			r = file_put(j, o, reterr);
	json_array_foreach(scripts, i, o)
		if (r == 0)
			r = script_run(j, o, i, json_array_size(scripts), reterr);
	return r;
}

/* What was deleted is given back, so that the image does not carry it; what of a machine is one machine's own goes; and all is
 * on the disk before the power is off. */
static int seal(struct job *j, struct error *reterr)
{
	static const char script[] =
		"rm -rf /tmp/* /var/tmp/* /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /root/.bash_history\n"
		": >/etc/machine-id; rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed\n"
		"fstrim / || true\nsync\n";

	return run(j, json_pack("[s, s, s]", "/bin/sh", "-c", script), NULL, HOUSEKEEPING_S, false, "tidying up", reterr);
}

static int vm_stop(struct job *j, struct error *reterr)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = xasprintf("/vms/%s/stop", j->vm);
	int k = client_ask(j->client, "POST", path, NULL, &r, reterr);

	return k < 0 ? k : vm_wait(j, "", "stopped", STOP_S, reterr);
}

/* --- the end --- */

static int vm_destroy(struct job *j, struct error *reterr)
{
	const uint64_t end = mono_ms() + GONE_S * 1000;
	_cleanup_free_ char *path = xasprintf("/vms/%s?force=true", j->vm);
	char status[32], detail[32];

	for (;;) {
		_cleanup_(reply_finish) struct reply r = {0};
		struct error e = {0};
		int k = client_ask(j->client, "DELETE", path, NULL, &r, &e);
		if (k < 0 && client_error_status(j->client) != 404 && mono_ms() > end)
			return error_set(reterr, k, "%s", e.text);
		e = (struct error){0};
		k = vm_state(j, "", status, detail, &e);
		if ((k == 0 && strcmp(detail, "destroyed") == 0) || (k < 0 && client_error_status(j->client) == 404))
			return 0;
		if (mono_ms() > end)
			return error_set(reterr, -ETIMEDOUT, "it is still %s", detail);
		wait_ms(200);
	}
}

/* Only one that carries the label: a name alone may be somebody's. */
static int vms_destroy(struct job *j, struct error *reterr)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = xasprintf("/vms?name=%s", text(j->spec, "name"));
	json_t *vm;
	size_t i;

	int k = client_ask(j->client, "GET", path, NULL, &r, reterr);
	json_array_foreach(json_object_get(r.body, "data"), i, vm)
	{
		if (k < 0 || strcmp(text(vm, "status"), "destroyed") == 0 ||
		    strcmp(text(json_object_get(vm, "labels"), LABEL), text(j->spec, "label")) != 0)
			continue;
		snprintf(j->vm, sizeof j->vm, "%s", text(vm, "id"));
		k = vm_destroy(j, reterr);
		j->vm[0] = '\0';
	}
	return k;
}

/* Earlier ones of that name too; the one in use goes last. */
static int keys_revoke(struct job *j, bool own, struct error *reterr)
{
	_cleanup_(reply_finish) struct reply me = {0}, keys = {0};
	_cleanup_free_ char *path = xasprintf("/keys?name=%s", text(j->spec, "name"));
	_cleanup_free_ char *last = NULL;
	json_t *key;
	size_t i;
	int r;

	if ((r = client_ask(j->client, "GET", "/me", NULL, &me, reterr)) < 0 ||
	    (r = client_ask(j->client, "GET", path, NULL, &keys, reterr)) < 0)
		return r;
	const char *mine = text(json_object_get(me.body, "data"), "key_id");
	json_array_foreach(json_object_get(keys.body, "data"), i, key)
	{
		_cleanup_(reply_finish) struct reply gone = {0};
		_cleanup_free_ char *one = xasprintf("/keys/%s", text(key, "id"));
		if (strcmp(text(key, "id"), mine) == 0)
			last = take_ptr(one);
		else if (r == 0)
			r = client_ask(j->client, "DELETE", one, NULL, &gone, reterr);
	}
	if (!own || !last)
		return r;
	_cleanup_(reply_finish) struct reply gone = {0};
	return client_ask(j->client, "DELETE", last, NULL, &gone, reterr);
}

int job_run(struct job *j, struct error *reterr)
{
	int r;

	/* what a build that was killed left */
	if ((r = vms_destroy(j, reterr)) < 0 || (r = keys_revoke(j, false, reterr)) < 0)
		return r;
	say("starting a VM of it");
	if ((r = vm_create(j, reterr)) < 0 ||
	    (r = vm_wait(j, "?wait=ready&timeout_s=5", "ready", READY_S, reterr)) < 0 ||
	    (r = contents_make(j, reterr)) < 0 || (r = seal(j, reterr)) < 0)
		return r;
	say("stopping the VM");
	if ((r = vm_stop(j, reterr)) < 0)
		return r;
	puts(j->vm);
	return 0;
}

int job_clean(struct job *j, struct error *reterr)
{
	struct error e = {0};
	int r = vms_destroy(j, reterr), k = keys_revoke(j, true, &e);

	return r < 0 ? r : k < 0 ? error_set(reterr, k, "%s", e.text) : 0;
}
