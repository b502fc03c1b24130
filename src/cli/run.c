/* run: a VM for one command. It is made, waited for, used, copied out of, and destroyed however that went: also on
 * Ctrl-C, which while the command runs is the command's. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "cli/cp_internal.h"
#include "cli/exec_internal.h"
#include "cli/interrupt.h"
#include "cli/session.h"
#include "cli/vm_internal.h"

#define DESTROY_TRIES 5

struct job {
	struct context *c;
	char id[24];
	struct progress progress;
};

static int on_tick(void *user)
{
	struct job *j = user;
	progress_tick(&j->progress, NULL);
	return interrupted();
}

static int make_name(struct context *c, char ret[32])
{
	uint8_t random[5];

	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return error_set(&c->error, -EIO, "no random numbers");
	snprintf(ret, 32, "run-%02x%02x%02x%02x%02x", random[0], random[1], random[2], random[3], random[4]);
	return 0;
}

/* Whether the VM whose creation was not answered was made all the same: then it is to be destroyed too. */
static void find_unanswered(struct job *j, const char *name)
{
	struct error kept = j->c->error;

	if (resolve_vm(j->c, name, j->id))
		j->id[0] = '\0';
	j->c->error = kept;
}

/* EXIT_…; the VM's id is known as soon as there is one. */
static int make_vm(struct job *j)
{
	_cleanup_(reply_finish) struct reply r = {0};
	struct context *c = j->c;
	json_t *body = json_object(), *vm = NULL;
	char name[32];

	int e = make_name(c, name);
	if (e == 0 && vm_create_body(c, name, body)) {
		json_decref(body);
		return EXIT_USAGE;
	}
	/* an interrupted create would leave a VM that nobody knows: it is waited for, which is a second at most */
	if (e == 0)
		e = client_ask(c->client, "POST", "/vms", body, &r, &c->error);
	json_decref(body);
	if (e && client_error_status(c->client) == 0)
		find_unanswered(j, name);
	if (e)
		return EXIT_EXEC_FAILED;
	snprintf(j->id, sizeof j->id, "%s", get_string(json_object_get(r.body, "data"), "id"));
	e = interrupted() ? EXIT_INTERRUPTED : vm_wait(c, j->id, "ready", WAIT_S, &j->progress, &vm);
	json_decref(vm);
	return e == EXIT_FAILED || e == EXIT_TIMED_OUT ? EXIT_EXEC_FAILED : e;
}

static int run_command(struct job *j, json_t *body)
{
	_cleanup_free_ char *path = xasprintf("/vms/%s/exec", j->id);
	struct session s = {.tty = args_has(&j->c->args, "tty"), .input = !args_has(&j->c->args, "no-stdin")};

	if (s.tty)
		session_add_terminal(body);
	return session_run(j->c, path, body, &s);
}

/* --out PATH[:HERE]; the first that fails is the reason. */
static int copy_results(struct job *j)
{
	struct context *c = j->c;
	struct error kept = c->error;
	const char *v;
	int e = 0;

	for (size_t i = 0; (v = args_nth(&c->args, "out", i)) && !interrupted(); i++) {
		const char *colon = strchr(v, ':');
		_cleanup_free_ char *there = colon ? xstrndup(v, (size_t)(colon - v)) : xstrdup(v);
		_cleanup_free_ char *vm = xasprintf("/vms/%s", j->id);
		struct copy k = {.c = c, .vm = vm, .user = args_value(&c->args, "user"), .recursive = true};
		c->error = (struct error){0};
		progress_start(&k.progress, "copying");
		if (copy_out(&k, there, colon ? colon + 1 : ".")) {
			out_warn("%s: %s", there, c->error.text);
			e = EXIT_FAILED;
		}
		progress_end(&k.progress);
		free(k.destination);
	}
	c->error = kept;
	return e;
}

static void destroy(struct job *j)
{
	_cleanup_free_ char *path = xasprintf("/vms/%s?force=true", j->id);
	struct error why = {0};

	interrupt_forget();
	client_set_tick(j->c->client, NULL, NULL);
	for (unsigned i = 0; i < DESTROY_TRIES; i++) {
		_cleanup_(reply_finish) struct reply r = {0};
		why = (struct error){0};
		if (client_ask(j->c->client, "DELETE", path, NULL, &r, &why) == 0 ||
		    client_error_status(j->c->client) == 404)
			return;
		if (client_error_status(j->c->client) == 403)
			break;
		usleep(500000);
	}
	out_warn("%s is still there (%s); iron destroy --force %s", j->id, why.text, j->id);
}

static int run_all(struct job *j, json_t *body)
{
	int code = make_vm(j);

	if (code == 0) {
		client_set_tick(j->c->client, NULL, NULL);
		code = run_command(j, body);
		int copied = interrupted() ? 0 : copy_results(j);
		code = code ? code : copied;
	}
	if (code == EXIT_INTERRUPTED || interrupted()) {
		j->c->error = (struct error){0};
		error_set(&j->c->error, -EINTR, "interrupted");
		code = EXIT_INTERRUPTED;
	}
	return code;
}

int run_run(struct context *c)
{
	struct job j = {.c = c};
	json_t *body;

	if (!c->args.rest || !*c->args.rest) {
		error_set(&c->error, -EINVAL, "say what to run after `--`: iron run -- COMMAND");
		return EXIT_USAGE;
	}
	if (args_has(&c->args, "tty") && !isatty(STDIN_FILENO)) {
		error_set(&c->error, -ENOTTY, "-t needs a terminal as standard input");
		return EXIT_USAGE;
	}
	body = json_object();
	if (exec_body(c, body)) {
		json_decref(body);
		return EXIT_USAGE;
	}
	interrupt_catch();
	progress_start(&j.progress, "creating");
	client_set_tick(c->client, on_tick, &j);
	int code = run_all(&j, body);
	progress_end(&j.progress);
	json_decref(body);
	if (*j.id)
		destroy(&j);
	return code;
}

const struct arg_option run_options[] = {
	VM_CREATE_OPTIONS,
	{"out", 'o', "PATH[:HERE]",
	 "copy this out of the VM when the command has ended, into HERE (.); may be repeated"},
	{"tty", 't', NULL, "with a terminal"},
	EXEC_OPTIONS,
	{"no-stdin", 0, NULL, "do not send standard input"},
	{0}};
