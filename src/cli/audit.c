/* audit egress, audit events: the record, once or followed; audit summary: by host. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/command.h"
#include "codec/record.h"

#define FOLLOW_PAUSE_MS 500
#define MISSES_MAX 120

/* One of the two lists of the record. */
struct trail {
	struct context *c;
	char *path; /* with its filters */
	void (*print)(struct trail *t, const json_t *event);
	json_t *names; /* of VMs, by id, as far as they were asked for */
	/* What this key reads of the record is not shown: following would never come to rest. NULL: it is. */
	char *own_key;
};

/* The VM's name, or its id where it has none for us (a key may read the record but not VMs). Borrowed. */
static const char *vm_name(struct trail *t, const char *id)
{
	const char *known = json_string_value(json_object_get(t->names, id));
	_cleanup_(reply_finish) struct reply r = {0};
	struct error why = {0};

	if (known || !*id)
		return known ? known : "-";
	if (strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(id))
		return id;
	_cleanup_free_ char *path = xasprintf("/vms/%s", id);
	const char *name = client_ask(t->c->client, "GET", path, NULL, &r, &why) == 0
	                           ? get_string(json_object_get(r.body, "data"), "name")
	                           : "";
	json_object_set_new(t->names, id, json_string(*name ? name : id));
	return json_string_value(json_object_get(t->names, id));
}

/* "2026-01-31T12:00:00.123Z" as the local time of a log line; what it is not, escaped. */
static char *out_stamp(const char *text)
{
	int64_t ms;
	char z[40];
	struct tm tm;

	if (rfc3339_parse(str_of(text), &ms))
		return out_escape(text);
	time_t seconds = (time_t)(ms / 1000);
	strftime(z, sizeof z, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &tm));
	return xstrdup(z);
}

/* A line that does not wrap; the word in it may be coloured. */
static void print_line(const char *before, const char *word, int width, const char *style, const char *after)
{
	size_t window = out_window(STDOUT_FILENO);
	bool color = out_color() && *style;
	_cleanup_free_ char *head = out_cut(before, window);
	size_t used = out_width(head);
	_cleanup_free_ char *middle = xasprintf("%-*s", width, word),
	                    *shown = out_cut(middle, window - MIN(window, used));
	used += out_width(shown);
	_cleanup_free_ char *tail = out_cut(after, window - MIN(window, used));

	printf("%s%s%s%s%s%s%s\n", head, color ? "\033[" : "", color ? style : "", color ? "m" : "", shown,
	       color ? "\033[0m" : "", tail);
}

/* "host:443", "[2001:db8::1]:443"; without a port where there is none (ICMP, other frames). */
static char *target_of(const json_t *e)
{
	const char *host = get_string(e, "host");
	long long port = get_integer(e, "port");

	if (port == 0)
		return out_escape(host);
	_cleanup_free_ char *text = xasprintf(strchr(host, ':') ? "[%s]:%lld" : "%s:%lld", host, port);
	return out_escape(text);
}

static void print_egress(struct trail *t, const json_t *e)
{
	const char *verdict = get_string(e, "verdict");
	_cleanup_free_ char *path = out_escape(get_string(e, "path")), *method = out_escape(get_string(e, "method")),
	                    *reason = out_escape(get_string(e, "reason")), *word = out_escape(verdict), *vm = NULL,
	                    *protocol = out_escape(get_string(e, "protocol")), *target = target_of(e),
	                    *stamp = out_stamp(get_string(e, "timestamp"));
	const json_t *status = json_object_get(e, "status_code"), *received = json_object_get(e, "bytes_received");
	_cleanup_free_ char *code =
	        json_is_integer(status) ? xasprintf(" %lld", (long long)json_integer_value(status)) : xstrdup("");
	_cleanup_free_ char *bytes = json_is_integer(received) ? out_bytes(received) : xstrdup("");

	/* of one VM alone its name is known already */
	vm = args_has(&t->c->args, "vm") ? xstrdup("") : out_escape(vm_name(t, get_string(e, "vm_id")));
	_cleanup_free_ char *before = xasprintf("%s  %s%s", stamp, vm, *vm ? "  " : "");
	_cleanup_free_ char *after =
	        xasprintf("  %-5s %s%s%s%s%s%s  %s", protocol, target, *method ? " " : "", method, *path ? " " : "",
	                  path, code, strcmp(verdict, "allowed") == 0 ? bytes : reason);
	print_line(before, word, 7, out_state_style(verdict), after);
}

static void print_general(struct trail *t, const json_t *e)
{
	const json_t *detail = json_object_get(e, "detail");
	const char *outcome = get_string(e, "outcome"), *vm_id = get_string(e, "vm_id");
	_cleanup_free_ char *stamp = out_stamp(get_string(e, "timestamp")), *kind = out_escape(get_string(e, "kind")),
	                    *action = out_escape(get_string(e, "action")), *word = out_escape(outcome),
	                    *key = out_escape(get_string(e, "key_name")),
	                    *address = out_escape(get_string(e, "address"));
	_cleanup_free_ char *more =
	        json_object_size(detail) ? json_dumps(detail, JSON_COMPACT | JSON_ENSURE_ASCII) : xstrdup("");
	_cleanup_free_ char *vm = *vm_id ? out_escape(vm_name(t, vm_id)) : xstrdup("-");
	_cleanup_free_ char *before = xasprintf("%s  %-6s %-13s ", stamp, kind, action);
	_cleanup_free_ char *after =
	        xasprintf("  %s  %s%s%s  %s", vm, *key ? key : "-", *address ? " from " : "", address, more);

	print_line(before, word, 7, out_state_style(outcome), after);
}

static bool is_own_reading(const struct trail *t, const json_t *e)
{
	return t->own_key && strcmp(get_string(e, "kind"), "api") == 0 &&
	       strncmp(get_string(e, "action"), "AUDIT_", 6) == 0 && strcmp(get_string(e, "outcome"), "200") == 0 &&
	       strcmp(get_string(e, "key_id"), t->own_key) == 0;
}

static void show(struct trail *t, const json_t *data)
{
	const json_t *event;
	size_t i;

	json_array_foreach(data, i, event)
	{
		if (!json_is_object(event) || is_own_reading(t, event))
			continue;
		if (t->c->json)
			out_json(event);
		else
			t->print(t, event);
	}
	fflush(stdout);
}

static int follow(struct trail *t)
{
	struct context *c = t->c;
	_cleanup_free_ char *cursor = NULL;
	unsigned misses = 0;

	while (!ferror(stdout)) {
		_cleanup_(reply_finish) struct reply r = {0};
		_cleanup_free_ char *escaped = cursor ? client_escape(c->client, cursor) : NULL;
		_cleanup_free_ char *page = xasprintf("%s&order=asc&limit=500%s%s", t->path, escaped ? "&cursor=" : "",
		                                      escaped ? escaped : "");
		c->error = (struct error){0};
		if (client_ask(c->client, "GET", page, NULL, &r, &c->error)) {
			/* a server that is being restarted comes back, one that has too much to do will have less; what
			 * it refuses does not change */
			long status = client_error_status(c->client);
			if ((status && status < 500 && status != 429) || ++misses > MISSES_MAX)
				return EXIT_FAILED;
			usleep(FOLLOW_PAUSE_MS * 1000);
			continue;
		}
		misses = 0;
		show(t, json_object_get(r.body, "data"));
		const char *next = json_string_value(json_object_get(r.body, "cursor"));
		if (next) {
			free(cursor);
			cursor = xstrdup(next);
		}
		if (!json_is_true(json_object_get(r.body, "has_more")))
			usleep(FOLLOW_PAUSE_MS * 1000);
	}
	return 0;
}

/* The newest, oldest first, as one reads a log. A page may be short, even empty, and not the last: the API looks
 * through its index for a bounded time only. */
static int show_newest(struct trail *t, size_t limit)
{
	struct context *c = t->c;
	_cleanup_free_ char *path = xasprintf("%s&order=desc&limit=%zu", t->path, MIN(limit, (size_t)500));
	json_t *found = NULL, *reversed = json_array();

	if (list_some(c, path, limit, &found, NULL)) {
		json_decref(reversed);
		return EXIT_FAILED;
	}
	for (size_t i = json_array_size(found); i-- > 0;)
		json_array_append(reversed, json_array_get(found, i));
	if (c->json)
		out_json(reversed);
	else
		show(t, reversed);
	if (!c->json && !c->quiet && json_array_size(found) == 0)
		out_line("nothing on record here");
	json_decref(reversed);
	json_decref(found);
	return 0;
}

static int add_span(struct context *c, struct buf *path)
{
	const char *vm = args_value(&c->args, "vm");
	char id[24];

	if (add_time(c, path, "since") || add_time(c, path, "until"))
		return EXIT_USAGE;
	if (!vm)
		return 0;
	if (resolve_vm(c, vm, id))
		return EXIT_FAILED;
	buf_printf(path, "&vm_id=%s", id);
	return 0;
}

static int own_key(struct context *c, char **ret)
{
	_cleanup_(reply_finish) struct reply r = {0};

	if (client_ask(c->client, "GET", "/me", NULL, &r, &c->error))
		return -EIO;
	*ret = xstrdup(get_string(json_object_get(r.body, "data"), "key_id"));
	return 0;
}

static int run_trail(struct context *c, struct buf *path, void (*print)(struct trail *, const json_t *))
{
	struct trail t = {.c = c, .print = print};
	char since[RFC3339_SIZE];
	long limit = 50;

	int e = add_span(c, path);
	if (e == 0 && args_number(&c->args, "limit", 1, LIST_MAX, &limit, &c->error))
		e = EXIT_USAGE;
	if (e)
		return e;
	bool follows = args_has(&c->args, "follow");
	if (follows && !args_value(&c->args, "since")) {
		rfc3339_format(real_ms(), since);
		buf_printf(path, "&since=%s", since);
	}
	if (follows && print == print_general && !args_has(&c->args, "kind") && own_key(c, &t.own_key))
		return EXIT_FAILED;
	t.path = buf_take_z(path);
	t.names = json_object();
	e = follows ? follow(&t) : show_newest(&t, (size_t)limit);
	json_decref(t.names);
	free(t.path);
	free(t.own_key);
	return e;
}

static int run_egress(struct context *c)
{
	static const char *const filters[] = {"verdict", "allowed", "host", "cidr", "protocol", "mode"};
	_cleanup_(buf_finish) struct buf path = {0};

	buf_append_z(&path, "/audit/egress?");
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
		add_filter(c, &path, filters[i], filters[i]);
	return run_trail(c, &path, print_egress);
}

static int run_events(struct context *c)
{
	_cleanup_(buf_finish) struct buf path = {0};
	const char *key = args_value(&c->args, "key");
	_cleanup_free_ char *id = NULL;

	buf_append_z(&path, "/audit/events?");
	add_filter(c, &path, "kind", "kind");
	if (key && resolve_named(c, "/keys?limit=200", "key_", "key", "iron keys list", key, &id))
		return EXIT_FAILED;
	if (id)
		buf_printf(&path, "&key_id=%s", id);
	return run_trail(c, &path, print_general);
}

/* --- summary --- */

static const char *host_of(const json_t *row)
{
	const char *host = get_string(row, "host");
	return *host ? host : "(all others)";
}

static const char *const counts[] = {"total", "allowed", "warned", "denied"};

static void print_summary(const json_t *data)
{
	static const struct column columns[] = {
	        {"HOST", 12, 0, false}, {"TOTAL", 0, 0, true}, {"ALLOWED", 0, 1, true}, {"WARNED", 0, 1, true},
	        {"DENIED", 0, 0, true}, {"SENT", 9, 2, true},  {"RECEIVED", 9, 2, true}};
	const json_t *row;
	struct table t;
	size_t i;

	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, row)
	{
		_cleanup_free_ char *sent = out_bytes(json_object_get(row, "bytes_sent")),
		                    *received = out_bytes(json_object_get(row, "bytes_received"));
		table_cell(&t, host_of(row));
		for (size_t k = 0; k < ARRAY_SIZE(counts); k++) {
			_cleanup_free_ char *n = xasprintf("%lld", get_integer(row, counts[k]));
			table_cell(&t, n);
			if (k == 3 && get_integer(row, "denied"))
				table_style(&t, "31");
		}
		table_cell(&t, sent);
		table_cell(&t, received);
	}
	table_print(&t);
	table_finish(&t);
}

/* A cell of a Markdown table, in which a host's text stays text. */
static void print_markdown_text(const char *text)
{
	_cleanup_free_ char *safe = out_escape(text);

	for (const char *p = safe; *p; p++) {
		if (strchr("|\\`*_[]<>#&!~", *p))
			putchar('\\');
		putchar(*p);
	}
}

static void print_markdown(const json_t *data)
{
	const json_t *row;
	size_t i;

	out_line("| host | total | allowed | warned | denied | sent | received |");
	out_line("|---|---:|---:|---:|---:|---:|---:|");
	json_array_foreach(data, i, row)
	{
		_cleanup_free_ char *sent = out_bytes(json_object_get(row, "bytes_sent")),
		                    *received = out_bytes(json_object_get(row, "bytes_received"));
		printf("| ");
		print_markdown_text(host_of(row));
		for (size_t k = 0; k < ARRAY_SIZE(counts); k++)
			printf(" | %lld", get_integer(row, counts[k]));
		printf(" | %s | %s |\n", sent, received);
	}
}

static int run_summary(struct context *c)
{
	_cleanup_(buf_finish) struct buf path = {0};
	const char *format = args_value(&c->args, "format");
	json_t *data = NULL;

	buf_append_z(&path, "/audit/egress/summary?");
	int e = add_span(c, &path);
	if (e)
		return e;
	_cleanup_free_ char *z = buf_take_z(&path);
	if (list_all(c, z, &data))
		return EXIT_FAILED;
	if (c->json || (format && strcmp(format, "json") == 0))
		out_json(data);
	else if (format && strcmp(format, "markdown") == 0)
		print_markdown(data);
	else if (json_array_size(data))
		print_summary(data);
	else if (!c->quiet)
		out_line("nothing on record here");
	json_decref(data);
	return 0;
}

#define SPAN_OPTIONS                                                                                                   \
	{"vm", 0, "VM", "only this VM's"},                                                                             \
	        {"since", 0, "T", "10m, 2h, 3d ago, or a time such as 2026-01-31T12:00:00Z"},                          \
	{                                                                                                              \
		"until", 0, "T", "the same"                                                                            \
	}
#define FOLLOW_OPTIONS                                                                                                 \
	{"follow", 'f', NULL, "go on, and show what comes; over restarts of the API nothing is lost or doubled"},      \
	{                                                                                                              \
		"limit", 'n', "N", "the newest this many (50)"                                                         \
	}
static const struct arg_option egress_options[] = {
	FOLLOW_OPTIONS,
	SPAN_OPTIONS,
	{"verdict", 0, "allowed|denied|warn|blocked", "denied: with warn; blocked: what did not pass"},
	{"allowed", 0, "true|false", "whether it passed"},
	{"host", 0, "HOST", "exactly this name or address"},
	{"cidr", 0, "CIDR", "of the rule that decided"},
	{"protocol", 0, "http|tls|tcp|udp|dns|icmp|other", "dns is shown only when asked for"},
	{"mode", 0, "enforce|warn", "the mode in force then"},
	{0}};
static const struct arg_option events_options[] = {
	FOLLOW_OPTIONS,
	SPAN_OPTIONS,
	{"kind", 0, EVENT_KINDS, "exactly this kind"},
	{"key", 0, "KEY", "only what was done with this key, by id or name"},
	{0}};
static const struct arg_option summary_options[] = {
	SPAN_OPTIONS, {"format", 0, "table|markdown|json", "how (table)"}, {0}};

const struct command audit_commands[] = {
	{"audit egress", "", "what left, or tried to", "With --follow --json, one object a line.\n",
	 "iron audit egress --follow\niron audit egress --vm demo --verdict denied --since 1h\niron audit egress "
	 "--host api.example.com --json\n",
	 egress_options, 0, 0, 0, run_egress},
	{"audit events", "", "everything else on record: API calls, commands, files, keys, policy, daemons",
	 "With --follow --json, one object a line. --follow without --kind leaves out that\n"
	 "this key reads the record: each look would show the one before.\n",
	 "iron audit events --since 1d\niron audit events --kind exec --vm demo --follow\niron audit events --key ci\n",
	 events_options, 0, 0, 0, run_events},
	{"audit summary", "", "what left, or tried to, by host", NULL,
	 "iron audit summary --since 1d\niron audit summary --vm demo --format markdown\n", summary_options, 0, 0, 0,
	 run_summary},
	{0},
};
