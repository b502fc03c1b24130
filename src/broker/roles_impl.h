#pragma once
/* Between roles.c (the life of a role) and roles_adopt.c (one that an irond before this one started). */
#include "base/id.h"
#include "broker/roles.h"
#include "broker/run_record.h"

struct role_proc {
	const struct role_host *host;
	struct role_setup setup;
	enum role_state state;
	bool wanted; /* to be started again when it dies */
	pid_t pid;
	int pidfd;
	struct ipc_peer *peer;
	struct event *ended, *timer; /* timer: restart when DOWN, SIGKILL when STOPPING */
	unsigned restarts, backoff_ms;
	uint64_t started_mono_ms, incarnation;
	int64_t started_at;
	bool adopted;   /* this process, or the latest, is another irond's */
	uint64_t links; /* which it came with: a bit set of enum role */
	char reason[160]; /* why its channel was closed by us */
	char of[ID_TEXT_SIZE + 12]; /* for logs: " vm=vm_…", " workspace=ws_…", "" */
	char file[ID_TEXT_SIZE + 16]; /* of its record and its socket, below run_dir/roles: "egress-ws_…" */
};

/* Those that outlive irond. */
bool role_can_be_adopted(const struct role_proc *r);
char *role_socket_path(const struct role_proc *r);
char *role_program(const struct role_proc *r);
/* Writes down what is known of the process that was just started. */
int role_note(const struct role_proc *r);
/* The record and the socket go. */
void role_forget(const struct role_proc *r);

/* --- roles.c --- */
int role_watch(struct role_proc *r, struct error *reterr);
/* The channel's other end is a process of this role's. */
int role_open_channel(struct role_proc *r, int fd, struct error *reterr);
void role_is_up(struct role_proc *r);
void role_finish_process(struct role_proc *r);
