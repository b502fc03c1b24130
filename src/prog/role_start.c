#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "os/ipc.h"
#include "prog/sandboxes.h"

#define CONFIG_WAIT_MS 10000

static int parse_level(const char *s, enum log_level *ret)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(s, names[i]) != 0)
			continue;
		*ret = (enum log_level)i;
		return 0;
	}
	return -EINVAL;
}

static int parse_option(int c, const char *value, struct role_args *a)
{
	uint64_t n = 0;
	int r = 0;

	switch (c) {
	case 'u':
		r = str_parse_u64(str_of(value), UINT32_MAX - 1, &n);
		a->uid = (uid_t)n;
		break;
	case 'g':
		r = str_parse_u64(str_of(value), UINT32_MAX - 1, &n);
		a->gid = (gid_t)n;
		break;
	case 'i':
		r = str_parse_u64(str_of(value), UINT64_MAX, &a->id);
		break;
	case 's':
		a->state_dir = value;
		r = value[0] == '/' ? 0 : -EINVAL;
		break;
	case 'l':
		r = parse_level(value, &a->level);
		break;
	case 'd':
		a->degraded = true;
		break;
	default:
		r = -EINVAL;
	}
	return r;
}

int role_args_parse(const char *role, int argc, char **argv, struct role_args *ret)
{
	static const struct option options[] = {
		{"uid", required_argument, NULL, 'u'},   {"gid", required_argument, NULL, 'g'},
		{"id", required_argument, NULL, 'i'},    {"state", required_argument, NULL, 's'},
		{"log", required_argument, NULL, 'l'},   {"degraded", no_argument, NULL, 'd'},
		{NULL, 0, NULL, 0},
	};
	struct role_args a = {.level = LOG_LEVEL_INFO, .state_dir = "/var/lib/iron"};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
		r = parse_option(c, optarg, &a);
	if (r < 0 || optind != argc) {
		fprintf(stderr, "%s is started by irond, not by hand\n", role);
		return -EINVAL;
	}
	log_init(role, a.level);
	*ret = a;
	return 0;
}

/* "@state/db" → "/var/lib/iron/db". */
static char *expand(const char *path, const char *state_dir)
{
	if (!str_has_prefix(str_of(path), STR("@state")))
		return xstrdup(path);
	return xasprintf("%s%s", state_dir, path + strlen("@state"));
}

int role_sandbox_enter(const struct role_sandbox *r, const struct role_args *args, struct sandbox_report *ret_report,
		       struct error *reterr)
{
	struct sandbox_path paths[ROLE_PATHS_MAX + 1] = {{0}};
	char *owned[ROLE_PATHS_MAX] = {0};
	size_t n = 0;

	for (; n < ROLE_PATHS_MAX && r->paths[n].path; n++) {
		owned[n] = expand(r->paths[n].path, args->state_dir);
		paths[n] = (struct sandbox_path){.path = owned[n], .access = r->paths[n].access};
	}
	int k = sandbox_enter(&r->walls, args->uid, args->gid, paths, args->degraded, ret_report, reterr);
	while (n > 0)
		free(owned[--n]);
	return k;
}

int role_config_receive(unsigned type, const void **ret_record, int ret_fds[MSG_MAX_FDS], size_t *ret_nfds, struct error *reterr)
{
	static uint8_t space[MSG_MAX];
	static _Alignas(16) char record[MSG_RECORD_MAX];
	const struct msg_info *info;
	uint32_t txn;

	int r = ipc_recv_blocking(ROLE_CHANNEL_FD, CONFIG_WAIT_MS, space, &info, &txn, record, ret_fds, ret_nfds);
	if (r)
		return error_set(reterr, r, "no configuration came from irond: %s", strerror(-r));
	if (info->type != type)
		return error_set(reterr, -EPROTO, "the first message from irond is no configuration");
	*ret_record = record;
	return 0;
}
