/* exec: a command in a VM; and the table of the commands about commands. */
#include <errno.h>
#include <string.h>

#include "cli/exec_internal.h"
#include "cli/session.h"

#define KEPT ((size_t)1 << 20) /* of each stream, with --json; as the API's own buffered exec */

int exec_body(struct context *c, json_t *body)
{
	json_t *argv = json_array();
	long timeout = 0;

	for (char *const *word = c->args.rest; *word; word++)
		if (json_array_append_new(argv, json_string(*word))) {
			json_decref(argv);
			return error_set(&c->error, -EINVAL, "a word of the command is not valid UTF-8");
		}
	json_object_set_new(body, "argv", argv);
	if (args_value(&c->args, "user"))
		json_object_set_new(body, "user", json_string(args_value(&c->args, "user")));
	if (args_value(&c->args, "workdir"))
		json_object_set_new(body, "cwd", json_string(args_value(&c->args, "workdir")));
	if (args_number(&c->args, "timeout", 1, 86400, &timeout, &c->error))
		return -EINVAL;
	if (timeout)
		json_object_set_new(body, "timeout_s", json_integer(timeout));
	return add_pairs(c, body, "env", "env");
}

static int detach(struct context *c, const char *path, json_t *body)
{
	_cleanup_(reply_finish) struct reply r = {0};

	json_object_set_new(body, "detach", json_true());
	if (client_ask(c->client, "POST", path, body, &r, &c->error))
		return EXIT_EXEC_FAILED;
	const json_t *data = json_object_get(r.body, "data");
	_cleanup_free_ char *id = out_escape(get_string(data, "exec_id"));
	if (c->json)
		out_json(data);
	else
		out_line("%s", id);
	return 0;
}

/* What is not UTF-8 cannot be in JSON: each byte that does not fit is U+FFFD, as the API does it. */
static json_t *as_text(const struct buf *b)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(4 * KEPT + 4);

	for (size_t i = 0; i < b->len;) {
		size_t n = MIN(b->len - i, (size_t)4), k = 1;
		json_t *one = NULL;
		for (; k <= n; k++) {
			one = json_stringn((const char *)b->data + i, k);
			if (one)
				break;
		}
		if (one)
			buf_append(&text, b->data + i, k);
		else
			buf_append_z(&text, "\xef\xbf\xbd");
		i += one ? k : 1;
		json_decref(one);
	}
	return json_stringn(text.len ? (const char *)text.data : "", text.len);
}

static int exec_as_json(struct context *c, const char *path, const json_t *body, struct session *s)
{
	_cleanup_(buf_finish) struct buf out = BUF_MAX(KEPT), err = BUF_MAX(KEPT);

	s->out = &out;
	s->err = &err;
	int code = session_run(c, path, body, s);
	if (code == EXIT_EXEC_FAILED && *c->error.text)
		return code;
	json_t *o = json_pack("{s:i, s:o, s:o, s:b, s:b}", "exit_code", code, "stdout", as_text(&out), "stderr",
	                      as_text(&err), "timed_out", s->timed_out, "truncated", s->truncated);
	out_json(o);
	json_decref(o);
	return code;
}

static int exec_live(struct context *c, const char *path, json_t *body)
{
	struct session s = {.tty = args_has(&c->args, "tty"), .input = !args_has(&c->args, "no-stdin")};

	if (s.tty)
		session_add_terminal(body);
	int code = c->json ? exec_as_json(c, path, body, &s) : session_run(c, path, body, &s);
	if (s.left)
		error_set(&c->error, -EINTR, "hung up; the command got SIGHUP");
	return code;
}

static int run_exec(struct context *c)
{
	bool tty = args_has(&c->args, "tty"), detached = args_has(&c->args, "detach");
	_cleanup_free_ char *path = NULL;

	if (!c->args.rest || !*c->args.rest) {
		error_set(&c->error, -EINVAL, "say what to run after `--`: iron exec VM -- COMMAND");
		return EXIT_USAGE;
	}
	if (tty && !detached && (!isatty(STDIN_FILENO) || c->json)) {
		error_set(&c->error, -ENOTTY,
		          c->json ? "-t and --json do not go together" : "-t needs a terminal as standard input");
		return EXIT_USAGE;
	}
	json_t *body = json_object();
	int code = exec_body(c, body) ? EXIT_USAGE : 0;
	if (code == 0) {
		path = vm_path(c, c->args.words[0], "/exec");
		code = path ? 0 : EXIT_EXEC_FAILED;
	}
	if (code == 0 && detached && tty)
		session_add_terminal(body);
	if (code == 0)
		code = detached ? detach(c, path, body) : exec_live(c, path, body);
	json_decref(body);
	return code;
}

static const struct arg_option exec_options[] = {
	{"tty", 't', NULL, "with a terminal"},
	{"detach", 'd', NULL, "let it run on; prints its id, for ps, logs, attach and kill"},
	EXEC_OPTIONS,
	{"no-stdin", 0, NULL, "do not send standard input"},
	{0}};

#define CODES                                                                                                          \
	"Exit code: the command's own (128 + N when signal N ended it); 124 when\n--timeout did; 125 when it could "   \
	"not be run, or the connection to it was lost.\n"

const struct command exec_commands[] = {
	{"exec", "VM -- COMMAND…", "run a command in a VM; its exit code is this one's",
	 "Standard input, output and error are the command's. Ctrl-C, SIGTERM, SIGHUP and\n"
	 "SIGQUIT go to it as signals; the third Ctrl-C within five seconds hangs up.\n"
	 "With -t keys go to it as they are, and after a newline ~. hangs up.\n"
	 "With --json, one document: exit_code, stdout, stderr (1 MiB each).\n\n" CODES,
	 "iron exec demo -- git --version\niron exec -t demo -- bash\niron exec demo -w /srv -e CI=1 -- make -j4\n"
	 "tar c src | iron exec demo -- tar x -C /tmp\nid=$(iron exec -d demo -- make world) && iron logs -f demo "
	 "$id\n",
	 exec_options, 1, 1, TAKES_REST | RUNS, run_exec},
	{"ps", "VM", "list what runs in a VM by exec, and what ran last",
	 "A VM keeps what runs and the last 64 that ended.\n", "iron ps demo\niron ps demo --running -q\n", ps_options,
	 1, 1, 0, run_ps},
	{"attach", "VM EXEC", "join a command that runs detached; its exit code is this one's",
	 "What it wrote lately is shown first. With a terminal of its own, keys go to it\n"
	 "as they are, and after a newline ~. leaves; else Ctrl-C leaves. It runs on.\n\n" CODES,
	 "iron attach demo exec_0c3n9m5k2r7tq\niron attach demo make --no-stdin\n", attach_options, 2, 2, RUNS | BYTES,
	 run_attach},
	{"logs", "VM EXEC", "print what a command wrote: the last 8 MiB are kept", NULL,
	 "iron logs demo exec_0c3n9m5k2r7tq\niron logs -f demo make\n", logs_options, 2, 2, 0, run_logs},
	{"kill", "VM EXEC", "send a signal to a command that runs detached", NULL,
	 "iron kill demo make\niron kill demo exec_0c3n9m5k2r7tq -s HUP\niron kill demo make --remove\n", kill_options,
	 2, 2, 0, run_kill},
	{"run", "-- COMMAND…", "run a command in a VM of its own, which is destroyed behind it",
	 "The VM is destroyed however the command ends, also on Ctrl-C.\n\n" CODES,
	 "iron run -- sh -c 'git clone https://git.example.com/x && make -C x'\niron run --image base --out "
	 "out/report.html --out 'log:run.log' -- ./report\n",
	 run_options, 0, 0, TAKES_REST | RUNS | BYTES, run_run},
	{0},
};
