/* iron-control: the database, the lives of VMs, policy, and the answers to the API. What it may do is in
 * iron-control_sandbox.c; what may be said to it, and by whom, in control/links.c. */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "control/control.h"
#include "os/ipc.h"
#include "prog/sandboxes.h"

static void on_end(void *user)
{
	log_info("irond gone, ending", NULL);
	event_base_loopbreak(user);
}

static int open_store(const struct msg_control_config *config, struct store **ret, struct error *reterr)
{
	char path[280];

	snprintf(path, sizeof path, "%.*s/db", STR_ARG(config->state_dir));
	return store_open(path, ret, reterr);
}

static int run(struct event_base *base, const struct msg_control_config *config)
{
	struct control *control = NULL;
	struct store *store = NULL;
	struct error error = {0};

	int r = open_store(config, &store, &error);
	if (r == 0)
		r = control_create(base, ROLE_CHANNEL_FD, store, config, on_end, base, &control, &error);
	if (r)
		log_error("start", "error=%s", log_quote(error.text));
	else
		event_base_dispatch(base);
	control_destroy(control);
	store_close(store);
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	const void *config;
	struct role_args args;
	struct error error = {0};
	int fds[MSG_MAX_FDS];
	size_t nfds;

	if (role_args_parse("iron-control", argc, argv, &args) < 0)
		return 2;
	if (role_config_receive(MSG_TYPE_msg_control_config, &config, fds, &nfds, &error)) {
		log_error("start", "error=%s", log_quote(error.text));
		return 1;
	}
	struct event_base *base = sodium_init() < 0 ? NULL : event_base_new();
	if (!base || event_base_priority_init(base, CONTROL_PRIORITIES))
		return 1;
	if (role_sandbox_enter(&sandbox_control, &args, NULL, &error)) {
		log_error("sandbox", "error=%s", log_quote(error.text));
		return 1;
	}
	int r = run(base, config);
	event_base_free(base);
	return r;
}
