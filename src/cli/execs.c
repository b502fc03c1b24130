/* ps, attach, logs, kill: commands that run in a VM by themselves. */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "cli/exec_internal.h"
#include "cli/session.h"
#include "cli/sse.h"

#define KEPT_MAX ((size_t)9 << 20) /* what the agent keeps of one command is 8 MiB */
#define RETRY_MAX 60
#define RETRY_US 500000

/* --- which --- */

char *exec_text(const json_t *exec)
{
	const char *command = get_string(exec, "command");
	return *command ? xstrdup(command) : out_join(json_object_get(exec, "argv"), " ");
}

/* The name a person would call it by: the program's, without its directory. */
static bool is_called(const json_t *exec, const char *word)
{
	_cleanup_free_ char *text = exec_text(exec);
	char *end = text + strcspn(text, " ");

	*end = '\0';
	const char *slash = strrchr(text, '/');
	return strcmp(slash ? slash + 1 : text, word) == 0;
}

/* Of several by one name the one that runs. */
static int find_exec(struct context *c, const char *vm, const char *word, char **ret)
{
	_cleanup_free_ char *path = xasprintf("%s/execs", vm);
	const json_t *exec, *found = NULL;
	size_t i, named = 0, running = 0;
	json_t *data = NULL;

	int r = list_all(c, path, &data);
	if (r)
		return r;
	json_array_foreach(data, i, exec)
	{
		if (!is_called(exec, word))
			continue;
		bool runs = strcmp(get_string(exec, "status"), "running") == 0;
		named++;
		running += runs;
		if (!found || (runs && running == 1))
			found = exec;
	}
	if (named == 0)
		r = error_set(&c->error, -ENOENT, "no command '%s' ran there; `iron ps %s` lists what did", word,
		              c->args.words[0]);
	else if (named > 1 && running != 1)
		r = error_set(&c->error, -EINVAL, "%zu commands go by '%s'; give the id, as `iron ps %s` shows it",
		              named, word, c->args.words[0]);
	else
		*ret = client_escape(c->client, get_string(found, "id"));
	json_decref(data);
	return r;
}

char *exec_path(struct context *c)
{
	const char *word = c->args.words[1];
	_cleanup_free_ char *vm = vm_path(c, c->args.words[0], ""), *id = NULL;

	if (!vm)
		return NULL;
	if (strncmp(word, "exec_", 5) == 0)
		id = client_escape(c->client, word);
	else if (find_exec(c, vm, word, &id))
		return NULL;
	return xasprintf("%s/execs/%s", vm, id);
}

/* --- ps --- */

static void ps_row(struct table *t, const json_t *exec)
{
	_cleanup_free_ char *text = exec_text(exec), *started = out_age(json_object_get(exec, "started_at"));
	_cleanup_free_ char *bytes = out_bytes(json_object_get(exec, "output_bytes"));
	const char *status = get_string(exec, "status");
	const json_t *code = json_object_get(exec, "exit_code");
	_cleanup_free_ char *state =
	        json_is_integer(code)
	                ? xasprintf("%s %lld%s", status, (long long)json_integer_value(code),
	                            json_is_true(json_object_get(exec, "timed_out")) ? " (time limit)" : "")
	                : xstrdup(status);
	table_cell(t, get_string(exec, "id"));
	table_cell(t, state);
	table_style(t, out_state_style(status));
	table_cell(t, text);
	table_cell(t, get_string(exec, "user"));
	table_cell(t, started);
	table_cell(t, bytes);
}

int run_ps(struct context *c)
{
	static const struct column columns[] = {{"ID", 18, 0, false},      {"STATUS", 7, 0, false},
	                                        {"COMMAND", 8, 0, false},  {"USER", 5, 3, false},
	                                        {"STARTED", 10, 2, false}, {"OUTPUT", 8, 4, true}};
	_cleanup_free_ char *path = vm_path(c, c->args.words[0], "/execs");
	json_t *data = NULL, *exec, *shown = json_array();
	struct table t;
	size_t i;

	if (!path || list_all(c, path, &data)) {
		json_decref(shown);
		return EXIT_FAILED;
	}
	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, exec)
	{
		if (args_has(&c->args, "running") && strcmp(get_string(exec, "status"), "running") != 0)
			continue;
		json_array_append(shown, exec);
		ps_row(&t, exec);
		_cleanup_free_ char *id = out_escape(get_string(exec, "id"));
		if (c->quiet && !c->json)
			out_line("%s", id);
	}
	if (c->json)
		out_json(shown);
	else if (!c->quiet && json_array_size(shown))
		table_print(&t);
	else if (!c->quiet)
		out_line("nothing; `iron exec -d %s -- COMMAND` runs one", c->args.words[0]);
	table_finish(&t);
	json_decref(shown);
	json_decref(data);
	return 0;
}

/* --- attach --- */

int run_attach(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = exec_path(c);

	if (!path || client_ask(c->client, "GET", path, NULL, &r, &c->error))
		return EXIT_EXEC_FAILED;
	const json_t *exec = json_object_get(r.body, "data");
	/* what has ended takes no input; its output is still worth a look */
	bool runs = strcmp(get_string(exec, "status"), "running") == 0;
	struct session s = {.attached = true, .input = runs && !args_has(&c->args, "no-stdin")};
	s.tty = s.input && json_is_true(json_object_get(exec, "tty")) && isatty(STDIN_FILENO);
	json_t *first = json_pack("{s:b}", "input", s.input);
	int code = session_run(c, path, first, &s);
	json_decref(first);
	if (s.left && !c->quiet)
		out_warn("left; it runs on: iron attach %s %s", c->args.words[0], c->args.words[1]);
	return code;
}

/* --- logs --- */

struct log {
	struct context *c;
	struct sse sse;
	struct buf *out, *err; /* NULL: to the standard streams */
	uint64_t next;         /* offset of what comes next */
	uint64_t until;        /* enough once next is there */
	bool begun, over;
};

static int deliver(struct log *l, bool err, struct str base64)
{
	_cleanup_(buf_finish) struct buf bytes = {0};
	struct buf *to = err ? l->err : l->out;

	if (base64_decode(base64, &bytes))
		return error_set(&l->c->error, -EPROTO, "the API sent output that is not base64");
	if (to)
		return buf_append(to, bytes.data, bytes.len)
		               ? error_set(&l->c->error, -EPROTO, "the API sent more than a VM keeps")
		               : 0;
	FILE *f = err ? stderr : stdout;
	if (fwrite(bytes.data, 1, bytes.len, f) != bytes.len || fflush(f))
		return error_set(&l->c->error, -EPIPE, "standard output is closed");
	return 0;
}

static int on_event(void *user, const char *name, struct str data, const char *id)
{
	struct log *l = user;
	uint64_t next;
	int r = 0;

	if (strcmp(name, "stdout") == 0 || strcmp(name, "stderr") == 0) {
		r = deliver(l, name[3] == 'e', data);
		if (r == 0 && str_parse_u64(str_of(id), UINT64_MAX, &next) == 0)
			l->next = next;
	} else if (strcmp(name, "exit") == 0) {
		l->over = true;
	} else if (strcmp(name, "error") == 0) {
		json_t *e = json_loadb(data.p, data.len, 0, NULL);
		r = error_set(&l->c->error, -EREMOTEIO, "%s",
		              *get_string(e, "message") ? get_string(e, "message") : "the stream ended with an error");
		json_decref(e);
	}
	if (l->next >= l->until)
		l->over = true;
	return r ? r : l->over;
}

static int on_bytes(void *user, const void *p, size_t n)
{
	struct log *l = user;
	l->begun = true;
	return sse_feed(&l->sse, str_make(p, n), on_event, l);
}

/* A stream that breaks is taken up where it broke: nothing is lost or doubled while the VM keeps it. */
static int stream(struct log *l, const char *path)
{
	for (unsigned misses = 0; !l->over && misses <= RETRY_MAX; misses++) {
		_cleanup_(reply_finish) struct reply r = {0};
		_cleanup_free_ char *at = xasprintf("%s?offset=%llu", path, (unsigned long long)l->next);
		struct transfer t = {
		        .method = "GET", .path = at, .accept = "text/event-stream", .write = on_bytes, .user = l};
		l->begun = false;
		int e = client_transfer(l->c->client, &t, &r, &l->c->error);
		sse_finish(&l->sse);
		l->sse = (struct sse){0};
		if (l->over)
			break;
		if (e == -ECANCELED || (e == -EREMOTEIO && client_error_status(l->c->client) < 500))
			return *l->c->error.text
			               ? -EIO
			               : error_set(&l->c->error, -EPROTO, "the API's stream of events is broken");
		if (l->begun)
			misses = 0;
		if (misses < RETRY_MAX) {
			l->c->error = (struct error){0};
			usleep(RETRY_US);
		}
	}
	if (l->over)
		l->c->error = (struct error){0};
	return l->over ? 0 : -EIO;
}

static void print_log_json(json_t *exec, const struct buf *out, const struct buf *err)
{
	json_t *copy = json_copy(exec);
	const struct buf *both[] = {out, err};
	static const char *const names[] = {"stdout", "stderr"};

	for (size_t i = 0; i < 2; i++) {
		_cleanup_(buf_finish) struct buf safe = BUF_MAX(4 * KEPT_MAX);
		json_t *s = json_stringn(both[i]->len ? (const char *)both[i]->data : "", both[i]->len);
		if (!s && escape_terminal(buf_str(both[i]), &safe) == 0)
			s = json_stringn((const char *)safe.data, safe.len);
		json_object_set_new(copy, names[i], s ? s : json_string(""));
	}
	out_json(copy);
	json_decref(copy);
}

int run_logs(struct context *c)
{
	_cleanup_(buf_finish) struct buf out = BUF_MAX(KEPT_MAX), err = BUF_MAX(KEPT_MAX);
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = exec_path(c);
	bool follow = args_has(&c->args, "follow");

	if (follow && c->json) {
		error_set(&c->error, -EINVAL, "--follow has no end to print as one document; leave out --json");
		return EXIT_USAGE;
	}
	if (!path || client_ask(c->client, "GET", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	json_t *exec = json_object_get(r.body, "data");
	struct log l = {.c = c,
	                .next = (uint64_t)get_integer(exec, "kept_from"),
	                .until = (uint64_t)get_integer(exec, "output_bytes")};
	if (l.next && !c->json && !c->quiet)
		out_warn("the first %llu bytes are no longer kept", (unsigned long long)l.next);
	if (c->json) {
		l.out = &out;
		l.err = &err;
	}
	if (follow)
		l.until = UINT64_MAX;
	l.over = l.next >= l.until;
	if (stream(&l, path))
		return EXIT_FAILED;
	if (c->json)
		print_log_json(exec, &out, &err);
	return 0;
}

/* --- kill --- */

int run_kill(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *path = exec_path(c), *to = NULL;
	const char *signal = args_value(&c->args, "signal");
	bool remove = args_has(&c->args, "remove");
	uint64_t number;
	json_t *body;

	if (!path)
		return EXIT_FAILED;
	if (signal && str_parse_u64(str_of(signal), 64, &number) == 0)
		body = json_pack("{s:I}", "signal", (json_int_t)number);
	else
		body = json_pack("{s:s}", "signal", signal ? signal : "TERM");
	to = remove ? xstrdup(path) : xasprintf("%s/signal", path);
	int e = client_ask(c->client, remove ? "DELETE" : "POST", to, remove ? NULL : body, &r, &c->error);
	json_decref(body);
	if (e)
		return EXIT_FAILED;
	_cleanup_free_ char *word = out_escape(c->args.words[1]);
	if (c->json) {
		json_t *o = json_pack("{s:s, s:b}", "id", strrchr(path, '/') + 1, "removed", remove);
		out_json(o);
		json_decref(o);
	} else {
		out_done("%s %s", word, remove ? "killed and forgotten" : "got the signal");
	}
	return 0;
}

const struct arg_option ps_options[] = {{"running", 0, NULL, "only what still runs"}, {0}};
const struct arg_option attach_options[] = {{"no-stdin", 0, NULL, "only watch"}, {0}};
const struct arg_option logs_options[] = {{"follow", 'f', NULL, "go on until it ends, also over a restart of the API"},
					  {0}};
const struct arg_option kill_options[] = {{"signal", 's', "SIGNAL", "by name or number (TERM)"},
					  {"remove", 0, NULL, "kill it, and forget it and its output"},
					  {0}};
