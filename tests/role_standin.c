/* A role for tests of irond: whatever name it is started under, it takes its configuration, answers pings, and does
 *what the test tells it over a unix socket (STATE/driver.sock), line by line, in place of the real role.
 *
 *	to the test     hello NAME ID PID · msg NAME FIELD=VALUE… [fds=N] · answer NAME FIELD=VALUE… · lost
 *	from the test   call NAME FIELD=VALUE… · notify NAME FIELD=VALUE… · silent · refuse · exit N
 *
 * Strings are hex. It never enters a sandbox: what irond does is what is tested. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "os/fdutil.h"
#include "os/ipc.h"
#include "prog/role_parent.h"
#include "prog/sandboxes.h"

struct standin {
	struct event_base *base;
	struct role_parent *parent;
	struct ipc_peer *irond; /* the one that was heard last */
	FILE *driver;
	char line[8192];
	size_t len;
	bool silent, refuse;
};

static const struct msg_info *find_message(const char *name)
{
	for (uint16_t t = 0; t < 256; t++) {
		const struct msg_info *i = msg_info_find(t);
		if (i && strcmp(i->wire->name, name) == 0)
			return i;
	}
	return NULL;
}

/* --- records as text --- */

static void print_field(FILE *f, const struct wire_field *w, const char *at)
{
	fprintf(f, " %s=", w->name);
	switch (w->kind) {
	case WIRE_u8:
		fprintf(f, "%u", *(const uint8_t *)at);
		break;
	case WIRE_u16:
		fprintf(f, "%u", *(const uint16_t *)(const void *)at);
		break;
	case WIRE_u32:
		fprintf(f, "%u", *(const uint32_t *)(const void *)at);
		break;
	case WIRE_u64:
		fprintf(f, "%lu", *(const uint64_t *)(const void *)at);
		break;
	case WIRE_i64:
		fprintf(f, "%ld", *(const int64_t *)(const void *)at);
		break;
	case WIRE_flag:
		fprintf(f, "%d", *(const bool *)at);
		break;
	case WIRE_str:
	case WIRE_list: {
		const struct str *s = (const struct str *)(const void *)at;
		for (size_t i = 0; i < s->len; i++)
			fprintf(f, "%02x", (unsigned char)s->p[i]);
		break;
	}
	}
}

static void print_record(struct standin *s, const char *kind, const struct msg_info *info, const void *record,
			 size_t nfds)
{
	fprintf(s->driver, "%s %s", kind, info->wire->name);
	for (size_t i = 0; i < info->wire->n; i++)
		print_field(s->driver, &info->wire->fields[i], (const char *)record + info->wire->fields[i].offset);
	if (nfds)
		fprintf(s->driver, " fds=%zu", nfds);
	fputc('\n', s->driver);
	fflush(s->driver);
}

static void set_field(const struct wire_field *w, char *at, const char *text, char *strings)
{
	const uint64_t v = strtoull(text, NULL, 10);

	switch (w->kind) {
	case WIRE_u8:
		*(uint8_t *)at = (uint8_t)v;
		break;
	case WIRE_u16:
		*(uint16_t *)(void *)at = (uint16_t)v;
		break;
	case WIRE_u32:
		*(uint32_t *)(void *)at = (uint32_t)v;
		break;
	case WIRE_u64:
	case WIRE_i64:
		*(uint64_t *)(void *)at = v;
		break;
	case WIRE_flag:
		*(bool *)at = v != 0;
		break;
	case WIRE_str:
	case WIRE_list: {
		const size_t n = strlen(text) / 2;
		if (hex_decode(str_of(text), (uint8_t *)strings, n) == 0)
			*(struct str *)(void *)at = str_make(strings, n);
		break;
	}
	}
}

/* "NAME FIELD=VALUE …" into record; the strings' bytes go into `strings`. */
static const struct msg_info *parse_record(char *text, char *record, char *strings)
{
	char *save = NULL, *word = strtok_r(text, " ", &save);
	const struct msg_info *info = word ? find_message(word) : NULL;

	while (info && (word = strtok_r(NULL, " ", &save))) {
		char *value = strchr(word, '=');
		if (!value)
			return NULL;
		*value++ = '\0';
		for (size_t i = 0; i < info->wire->n; i++)
			if (strcmp(info->wire->fields[i].name, word) == 0) {
				set_field(&info->wire->fields[i], record + info->wire->fields[i].offset, value,
					  strings);
				strings += strlen(value) / 2;
			}
	}
	return info;
}

/* --- irond's side --- */

static void on_ping(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct standin *s = user;

	s->irond = peer;
	if (!s->silent)
		ipc_reply_result(peer, m->txn, 0, "", 0);
}

static void on_stream_open(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct msg_stream answer = {.token = IPC_RECORD(m, msg_stream_open)->token};
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	ipc_reply(peer, m->txn, MSG_TYPE_msg_stream, &answer, pair, 1);
	if (send(pair[1], "\001hello", 6, 0) < 0)
		log_warn("stream", NULL);
	close(pair[0]);
	close(pair[1]);
}

static void on_any(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct standin *s = user;

	print_record(s, "msg", m->info, m->record, m->nfds);
	if (m->txn)
		ipc_reply_result(peer, m->txn, s->refuse ? -EACCES : 0, s->refuse ? "told to refuse" : "", 0);
}

/* It has nothing that irond would need again. */
static void on_adopt(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct standin *s = user;

	s->irond = peer;
	if (!s->silent)
		on_any(peer, m, user);
}

static const struct ipc_rule rules[] = {
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_peer, 1, IPC_NOTICE, on_any},
	{MSG_TYPE_msg_stream_open, 0, IPC_REQUEST, on_stream_open},
	{MSG_TYPE_msg_stream, 1, IPC_NOTICE, on_any},
	{MSG_TYPE_msg_vm_attach, 4, IPC_REQUEST, on_any},
	{MSG_TYPE_msg_vm_detach, 0, IPC_REQUEST, on_any},
	{MSG_TYPE_msg_vm_shutdown, 0, IPC_REQUEST, on_any},
	{MSG_TYPE_msg_image, 0, IPC_NOTICE, on_any},
	{MSG_TYPE_msg_images_end, 0, IPC_NOTICE, on_any},
	{MSG_TYPE_msg_vm_exited, 0, IPC_NOTICE, on_any},
	{MSG_TYPE_msg_root_key_create, 0, IPC_REQUEST, on_any},
	{MSG_TYPE_msg_root_workspaces_get, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_api_tls, 2, IPC_NOTICE, on_any},
	{MSG_TYPE_msg_adopt, 0, IPC_REQUEST, on_adopt},
	{MSG_TYPE_msg_vm_end_get, 0, IPC_REQUEST, on_any},
	{MSG_TYPE_msg_end, 0, IPC_NOTICE, role_parent_end},
};

static void on_away(bool away, void *user)
{
	struct standin *s = user;

	if (away)
		s->irond = NULL;
}

/* --- the test's side --- */

static bool on_answer(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct standin *s = user;

	if (!m) {
		fputs("lost\n", s->driver);
		fflush(s->driver);
		return true;
	}
	print_record(s, "answer", m->info, m->record, m->nfds);
	return m->info->type != MSG_TYPE_msg_role_row && m->info->type != MSG_TYPE_msg_vm_row;
}

static void do_line(struct standin *s, char *line)
{
	static char strings[8192];
	_Alignas(16) char record[MSG_RECORD_MAX] = {0};
	char *rest = line;
	const char *word = strsep(&rest, " ");
	const struct msg_info *info;
	int r = 0;

	if (strcmp(word, "silent") == 0)
		s->silent = true;
	else if (strcmp(word, "refuse") == 0)
		s->refuse = true;
	else if (strcmp(word, "exit") == 0)
		exit(rest ? atoi(rest) : 0);
	else if (!rest || !(info = parse_record(rest, record, strings)))
		r = -EINVAL;
	else if (strcmp(word, "call") == 0)
		r = ipc_call(s->irond, (enum msg_type)info->type, record, NULL, 0, 0, on_answer, s);
	else
		r = ipc_notify(s->irond, (enum msg_type)info->type, record, NULL, 0);
	if (r < 0) {
		fprintf(s->driver, "error %d\n", -r);
		fflush(s->driver);
	}
}

static void on_driver(evutil_socket_t fd, short what, void *user)
{
	struct standin *s = user;
	ssize_t n = read(fd, s->line + s->len, sizeof s->line - 1 - s->len);
	char *end;

	if (n <= 0)
		exit(0);
	s->len += (size_t)n;
	while ((end = memchr(s->line, '\n', s->len))) {
		*end++ = '\0';
		do_line(s, s->line);
		s->len -= (size_t)(end - s->line);
		memmove(s->line, end, s->len);
	}
}

int main(int argc, char **argv)
{
	static uint8_t space[MSG_MAX];
	_Alignas(16) char record[MSG_RECORD_MAX];
	struct standin s = {0};
	struct role_args args;
	const struct msg_info *info;
	int fds[MSG_MAX_FDS], fd;
	uint32_t txn;
	size_t nfds;

	if (role_args_parse("standin", argc, argv, &args) < 0 ||
	    ipc_recv_blocking(ROLE_CHANNEL_FD, 5000, space, &info, &txn, record, fds, &nfds) < 0)
		return 1;
	_cleanup_free_ char *path = xasprintf("%s/driver.sock", args.state_dir);
	if (unix_connect(path, &fd) < 0 || !(s.driver = fdopen(dup(fd), "w")))
		return 1;
	/* of the role's walls only its user: by it irond knows it again */
	if (setresgid(args.gid, args.gid, args.gid) < 0 || setresuid(args.uid, args.uid, args.uid) < 0)
		return 1;
	fprintf(s.driver, "hello %s %lu %d\n", argv[0], args.id, getpid());
	print_record(&s, "msg", info, record, nfds);
	s.base = event_base_new();
	s.parent = role_parent_create(s.base, rules, ARRAY_SIZE(rules), on_away, &s);
	struct event *driver = event_new(s.base, fd, EV_READ | EV_PERSIST, on_driver, &s);
	if (!s.parent || !driver || event_add(driver, NULL) < 0)
		return 1;
	event_base_dispatch(s.base);
	return 0;
}
