/* audit egress: what left or tried to, once or followed. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/command.h"

#define FOLLOW_PAUSE_MS 500

/* "host:443", "[2001:db8::1]:443"; without a port where there is none (ICMP, other frames). */
static char *out_target(const char *host, json_int_t port)
{
	bool bare_v6 = strchr(host, ':') != NULL;

	if (port == 0)
		return xstrdup(host);
	return xasprintf(bare_v6 ? "[%s]:%lld" : "%s:%lld", host, (long long)port);
}

static void print_event(const json_t *e)
{
	const char *verdict = get_string(e, "verdict");
	bool color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	const char *on = !color ? "" : strcmp(verdict, "allowed") == 0 ? "\033[32m" : strcmp(verdict, "warn") == 0 ? "\033[33m" : "\033[31m";
	_cleanup_free_ char *host = out_escape(get_string(e, "host")), *path = out_escape(get_string(e, "path")),
			    *method = out_escape(get_string(e, "method")), *reason = out_escape(get_string(e, "reason"));
	const json_t *status = json_object_get(e, "status_code"), *received = json_object_get(e, "bytes_received");
	const char *stamp = get_string(e, "timestamp");
	char line[64] = "";

	if (json_is_integer(status))
		snprintf(line, sizeof line, " %lld", (long long)json_integer_value(status));
	_cleanup_free_ char *bytes = json_is_integer(received) ? out_bytes(received) : xstrdup("");
	_cleanup_free_ char *target = out_target(host, json_integer_value(json_object_get(e, "port")));
	printf("%.19s  %s%-7s%s  %-5s %s%s%s%s%s%s  %s\n", stamp, on, verdict, color ? "\033[0m" : "", get_string(e, "protocol"), target,
	       *method ? " " : "", method, *path ? " " : "", path, line, strcmp(verdict, "allowed") == 0 ? bytes : reason);
}

static int add_filter(struct context *c, struct buf *path, const char *option, const char *parameter)
{
	const char *v = args_value(&c->args, option);

	if (!v)
		return 0;
	_cleanup_free_ char *escaped = client_escape(c->client, v);
	return buf_printf(path, "&%s=%s", parameter, escaped);
}

/* "10m", "2h", "3d", or RFC 3339: as RFC 3339. */
static int add_time(struct context *c, struct buf *path, const char *option)
{
	const char *v = args_value(&c->args, option);
	char text[RFC3339_SIZE];
	uint64_t n;
	int64_t ms;

	if (!v)
		return 0;
	struct str s = str_of(v);
	const char *unit = s.len ? strchr("smhd", s.p[s.len - 1]) : NULL;
	if (unit && *unit && str_parse_u64(str_make(s.p, s.len - 1), 1000000, &n) == 0) {
		static const int64_t seconds[] = {1, 60, 3600, 86400};
		ms = real_ms() - (int64_t)n * 1000 * seconds[unit - "smhd"];
	} else if (rfc3339_parse(s, &ms)) {
		return error_set(&c->error, -EINVAL, "--%s must be like 10m, 2h or 2026-01-31T12:00:00Z, not '%s'", option, v);
	}
	rfc3339_format(ms, text);
	return buf_printf(path, "&%s=%s", option, text);
}

static int query(struct context *c, struct buf *path)
{
	static const char *const filters[] = {"verdict", "host", "cidr", "protocol", "mode"};
	const char *vm = args_value(&c->args, "vm");
	char id[24];

	buf_append_z(path, "/audit/egress?");
	if (vm) {
		if (resolve_vm(c, vm, id))
			return -ENOENT;
		buf_printf(path, "&vm_id=%s", id);
	}
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
		add_filter(c, path, filters[i], filters[i]);
	int r = add_time(c, path, "since");
	return r ? r : add_time(c, path, "until");
}

static void show(struct context *c, const json_t *data)
{
	const json_t *event;
	size_t i;

	json_array_foreach(data, i, event)
	{
		if (c->json)
			out_json(event);
		else
			print_event(event);
	}
	fflush(stdout);
}

static int follow(struct context *c, const char *path)
{
	_cleanup_free_ char *cursor = NULL;
	unsigned misses = 0;

	for (;;) {
		_cleanup_(reply_finish) struct reply r = {0};
		_cleanup_free_ char *escaped = cursor ? client_escape(c->client, cursor) : NULL;
		_cleanup_free_ char *page = xasprintf("%s&order=asc&limit=500%s%s", path, escaped ? "&cursor=" : "", escaped ? escaped : "");
		c->error = (struct error){0};
		if (client_ask(c->client, "GET", page, NULL, &r, &c->error)) {
			/* a server that is being restarted comes back; what it refuses does not change */
			long status = client_error_status(c->client);
			if ((status && status < 500) || ++misses > 120)
				return EXIT_FAILED;
			usleep(FOLLOW_PAUSE_MS * 1000);
			continue;
		}
		misses = 0;
		show(c, json_object_get(r.body, "data"));
		const char *next = json_string_value(json_object_get(r.body, "cursor"));
		if (next) {
			free(cursor);
			cursor = xstrdup(next);
		}
		if (!json_is_true(json_object_get(r.body, "has_more")))
			usleep(FOLLOW_PAUSE_MS * 1000);
	}
}

/* The newest, oldest first, as one reads a log. A page may be short, even empty, and not the last: the API looks through
 * its index for a bounded time only. */
static int show_newest(struct context *c, const char *path, size_t limit)
{
	_cleanup_free_ char *cursor = NULL;
	json_t *found = json_array();
	bool more = true;

	while (more && json_array_size(found) < limit) {
		_cleanup_(reply_finish) struct reply r = {0};
		_cleanup_free_ char *escaped = cursor ? client_escape(c->client, cursor) : NULL;
		_cleanup_free_ char *page = xasprintf("%s&order=desc&limit=%zu%s%s", path, limit - json_array_size(found),
						      escaped ? "&cursor=" : "", escaped ? escaped : "");
		if (client_ask(c->client, "GET", page, NULL, &r, &c->error)) {
			json_decref(found);
			return EXIT_FAILED;
		}
		json_array_extend(found, json_object_get(r.body, "data"));
		const char *next = json_string_value(json_object_get(r.body, "cursor"));
		more = json_is_true(json_object_get(r.body, "has_more")) && next;
		free(cursor);
		cursor = next ? xstrdup(next) : NULL;
	}
	json_t *reversed = json_array();
	for (size_t i = json_array_size(found); i-- > 0;)
		json_array_append(reversed, json_array_get(found, i));
	show(c, reversed);
	if (!c->json && json_array_size(found) == 0)
		out_line("nothing on record here");
	json_decref(reversed);
	json_decref(found);
	return 0;
}

static int run_egress(struct context *c)
{
	_cleanup_(buf_finish) struct buf path = {0};
	char since[RFC3339_SIZE];
	long limit = 50;

	if (query(c, &path) || args_number(&c->args, "limit", 1, 500, &limit, &c->error))
		return EXIT_FAILED;
	if (args_has(&c->args, "follow")) {
		rfc3339_format(real_ms(), since);
		if (!args_value(&c->args, "since"))
			buf_printf(&path, "&since=%s", since);
		_cleanup_free_ char *z = buf_take_z(&path);
		return follow(c, z);
	}
	_cleanup_free_ char *z = buf_take_z(&path);
	return show_newest(c, z, (size_t)limit);
}

static const struct arg_option options[] = {{"follow", 'f', false}, {"vm", 0, true},    {"verdict", 0, true}, {"host", 0, true},
					    {"cidr", 0, true},      {"mode", 0, true},  {"protocol", 0, true}, {"since", 0, true},
					    {"until", 0, true},     {"limit", 'n', true}, {0}};

const struct command audit_commands[] = {
	{"audit egress", "", "what left, or tried to",
	 "  -f, --follow        go on, and show what comes\n"
	 "  --vm VM             only this VM's\n"
	 "  --verdict V         allowed, denied (with warn), warn or blocked\n"
	 "  --host H, --cidr C, --protocol P, --mode M\n"
	 "  --since T           10m, 2h, 3d or a time such as 2026-01-31T12:00:00Z\n"
	 "  --until T           the same\n"
	 "  -n, --limit N       this many (50)\n"
	 "  --json              one object a line\n\n"
	 "Examples:\n  iron audit egress --follow\n  iron audit egress --vm demo --verdict denied --since 1h\n",
	 options, 0, 0, false, run_egress},
	{0},
};
