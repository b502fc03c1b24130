#include "control/request.h"

#include <errno.h>
#include <stdarg.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "control/auth.h"
#include "control/kept.h"
#include "control/links.h"
#include "control/ops.h"
#include "model/name.h"

#define CROWDED_MS 10

static struct ipc_peer *asker(const struct request *r)
{
	return r->root ? links_irond(r->control->links) : links_get(r->control->links, ROLE_API, 0);
}

static void request_free(struct request *r)
{
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
	if (r->deadline)
		event_free(r->deadline);
	if (r->again)
		event_free(r->again);
	if (r->work)
		r->work_free(r->work);
	kept_forget(r);
	buf_finish(&r->bytes);
	explicit_bzero(r->root_answer, sizeof r->root_answer);
	free(r);
}

void request_discard(struct request *r)
{
	request_free(r);
}

static struct request *request_create(struct control *c, uint32_t txn, const struct msg_info *info, const void *record)
{
	struct request *r = xcalloc(1, sizeof *r);

	*r = (struct request){.control = c, .txn = txn, .info = info, .new_id = id_random()};
	r->next = c->requests;
	r->prev = &c->requests;
	if (r->next)
		r->next->prev = &r->next;
	c->requests = r;
	if (wire_encode(info->wire, record, &r->bytes) || wire_decode(info->wire, buf_str(&r->bytes), r->record)) {
		request_free(r);
		return NULL;
	}
	return r;
}

/* --- answers --- */

void request_row(struct request *r, enum msg_type type, const void *row)
{
	if (r->root) {
		if (type == MSG_TYPE_row_key)
			str_copy(((const struct row_key *)row)->key, r->root_answer, sizeof r->root_answer);
		return;
	}
	kept_row(r, type, row);
	int code = ipc_reply(asker(r), r->txn, type, row, NULL, 0);
	if (code && code != -EPIPE)
		log_limited(LOG_LEVEL_ERROR, 1, "answer lost", "type=%u code=%d", (unsigned)type, code);
}

static void reply_done(struct request *r, const struct msg_done *done)
{
	if (r->root)
		ipc_reply_result(asker(r), r->txn, done->status < 300 ? 0 : -EINVAL,
				 done->status < 300 ? r->root_answer : r->failure, 0);
	else
		ipc_reply(asker(r), r->txn, MSG_TYPE_msg_done, done, NULL, 0);
	request_free(r);
}

static void finish(struct request *r, const struct msg_done *done)
{
	static const struct msg_done not_kept = {
		.status = 503, .code = STR("unavailable"), .message = STR("the database does not take the Idempotency-Key; try again"),
		.retry_after_s = 2};

	reply_done(r, kept_end(r, done) ? &not_kept : done);
}

void request_replay(struct request *r, const struct msg_done *done)
{
	struct msg_done again = *done;

	again.replayed = true;
	finish(r, &again);
}

void request_done(struct request *r, uint16_t status)
{
	finish(r, &(struct msg_done){.status = status});
}

void request_done_page(struct request *r, bool has_more, struct str cursor)
{
	finish(r, &(struct msg_done){.status = 200, .has_more = has_more, .cursor = cursor});
}

void request_done_value(struct request *r, uint64_t value)
{
	finish(r, &(struct msg_done){.status = 200, .value = value});
}

void request_fail(struct request *r, enum api_code code, const char *fmt, ...)
{
	struct msg_done done = {.status = code_status(code), .code = str_of(code_text(code))};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->failure, sizeof r->failure, fmt, ap);
	va_end(ap);
	done.message = str_of(r->failure);
	if (done.status == 429)
		done.retry_after_s = 30;
	if (done.status == 503)
		done.retry_after_s = 2;
	finish(r, &done);
}

void request_fail_store(struct request *r, int code, const char *what)
{
	log_limited(LOG_LEVEL_ERROR, 5, "store", "what=%s code=%d", log_quote(what), code);
	if (code == -ENOSPC)
		request_fail(r, CODE_NO_ROOM, "the database's disk is full; nothing was changed");
	else if (code == -EUCLEAN)
		request_fail(r, CODE_UNAVAILABLE, "the database is damaged; see iron-control's log");
	else if (code == -EBUSY)
		request_fail(r, CODE_UNAVAILABLE, "the database is busy; try again");
	else
		request_fail(r, CODE_INTERNAL, "the database failed; see iron-control's log");
}

void request_fail_list(struct request *r, int code, const char *what)
{
	if (code == -EINVAL)
		request_fail(r, CODE_VALIDATION_ERROR, "cursor must be one that an earlier answer gave");
	else
		request_fail_store(r, code, what);
}

/* --- the record --- */

static void on_recorded(int code, void *arg)
{
	struct request *r = arg;

	r->waiting = false;
	if (r->dropped) {
		request_free(r);
		return;
	}
	if (code) {
		log_limited(LOG_LEVEL_ERROR, 1, "not on record", "op=%s code=%d", op_info_get(r->who.op)->name, code);
		request_fail(r, CODE_UNAVAILABLE,
			     "the audit journal does not take records, so nothing was changed; try again");
		return;
	}
	r->recorded = true;
	r->entry->handle(r);
}

static struct record_event event_of(const struct request *r, const char *kind, const char *action, uint64_t vm)
{
	return (struct record_event){
		.kind = str_of(kind),
		.action = str_of(action),
		.workspace = r->workspace,
		.vm = vm,
		.key = r->key,
		.address = r->root ? STR("root") : r->who.address,
	};
}

static bool on_record(struct request *r, const struct record_event *e, bool durable)
{
	if (r->recorded)
		return true;
	r->waiting = true;
	int code = journal_write(r->control->journal, e, durable, on_recorded, r);
	if (code)
		on_recorded(code, r);
	return false;
}

static bool record(struct request *r, const char *kind, const char *action, uint64_t vm, struct detail *detail,
		   bool durable)
{
	_cleanup_(detail_finish) struct detail none = {0};
	struct record_event e = event_of(r, kind, action, vm);

	if (r->recorded)
		return true;
	if (!detail)
		detail = &none;
	if (r->who.client.len)
		detail_add(detail, "client", r->who.client);
	e.outcome = STR("accepted");
	e.detail = detail_end(detail);
	return on_record(r, &e, durable);
}

bool request_on_record(struct request *r, const char *kind, const char *action, uint64_t vm, struct detail *detail)
{
	return record(r, kind, action, vm, detail, true);
}

bool request_on_record_soon(struct request *r, const char *kind, const char *action, uint64_t vm, struct detail *detail)
{
	return record(r, kind, action, vm, detail, false);
}

void request_note_outcome(struct request *r, const char *kind, const char *action, uint64_t vm, const char *outcome)
{
	_cleanup_(detail_finish) struct detail d = {0};
	struct record_event e = event_of(r, kind, action, vm);

	if (r->who.client.len)
		detail_add(&d, "client", r->who.client);
	e.outcome = str_of(outcome);
	e.detail = detail_end(&d);
	journal_note(r->control->journal, &e);
}

/* --- waiting --- */

/* The handler; or once more whether it may begin. */
static void request_run(struct request *r)
{
	if (!r->begun && !kept_begin(r))
		return;
	r->begun = true;
	r->entry->handle(r);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct request *r = arg;

	r->expired = true;
	request_run(r);
}

void request_wait_vm(struct request *r, uint64_t vm, unsigned wait_ms)
{
	struct timeval tv = {.tv_sec = wait_ms / 1000, .tv_usec = (long)(wait_ms % 1000) * 1000};

	r->waits_vm = vm;
	if (r->deadline)
		return;
	r->deadline = evtimer_new(r->control->base, on_deadline, r);
	if (!r->deadline || evtimer_add(r->deadline, &tv))
		request_fail(r, CODE_INTERNAL, "no timer");
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct request *r = arg;

	r->entry->handle(r);
}

void request_again(struct request *r)
{
	static const struct timeval now;

	if (!r->again)
		r->again = evtimer_new(r->control->base, on_again, r);
	if (!r->again || evtimer_add(r->again, &now))
		request_fail(r, CODE_INTERNAL, "no timer");
}

void requests_wake(struct control *c, uint64_t vm)
{
	for (struct request *r = c->requests; r; r = r->next)
		if (r->waits_vm == vm && !r->waiting) {
			r->woken = true;
			event_active(c->wake, 0, 0);
		}
}

/* Many that waited for one thing do not all answer at once to an iron-api that is slow to read. */
static bool crowded(const struct request *r)
{
	static const struct timeval later = {.tv_usec = CROWDED_MS * 1000L};
	struct ipc_peer *api = r->root ? NULL : asker(r);

	if (!api || ipc_peer_queued(api) <= LINKS_API_QUEUE)
		return false;
	event_add(r->control->wake, &later);
	return true;
}

/* A handler may free any request by what it changes: begin anew after each. */
void requests_run_woken(struct control *c)
{
	struct request *r = c->requests;

	while (r) {
		if (!r->woken || r->waiting || crowded(r)) {
			r = r->next;
			continue;
		}
		r->woken = false;
		request_run(r);
		r = c->requests;
	}
}

/* Whether the workers took it or were replaced: from now on nothing passes that it forbids. */
static void on_policy(int code, void *arg)
{
	struct request *r = arg;

	r->waiting = false;
	if (r->dropped)
		request_free(r);
	else
		r->entry->handle(r);
}

void request_wait_policy(struct request *r, uint64_t vm)
{
	r->waiting = true;
	if (vm)
		dist_change_vm(r->control->dist, vm, on_policy, r);
	else
		dist_change_workspace(r->control->dist, r->workspace, on_policy, r);
}

void requests_drop(struct control *c, bool root)
{
	struct request *next;

	for (struct request *r = c->requests; r; r = next) {
		next = r->next;
		if (r->root != root)
			continue;
		if (r->waiting)
			r->dropped = true;
		else
			request_free(r);
	}
}

/* --- arrival --- */

static bool admitted(struct request *r)
{
	const struct op_info *op = op_info_get(r->who.op);

	if (r->entry->open_to_all)
		return true;
	if (auth_check(r->control, r->who.key_hash, r)) {
		request_fail(r, CODE_UNAUTHORIZED,
			     r->who.key_hash.len ? "this key is unknown, expired or revoked; ask an admin for a new one"
						 : "send a key: Authorization: Bearer iron_live_...");
		return false;
	}
	if (!scope_covers(r->scopes, op->scope)) {
		for (unsigned i = 0; i < SCOPE_COUNT; i++)
			if (op->scope == 1U << i) {
				request_fail(r, CODE_SCOPE_MISSING,
					     "this key lacks the scope %s; use one that has it", scope_text(i));
				return false;
			}
	}
	return true;
}

void request_receive(struct control *c, const struct ipc_msg *m)
{
	struct request *r = request_create(c, m->txn, m->info, m->record);

	if (!r)
		return;
	struct str bytes = buf_str(&r->bytes);
	wire_decode_prefix(&msg_req_wire, &bytes, &r->who);
	r->entry = op_entry_find(r->who.op);
	if (!r->entry || r->entry->type != m->info->type) {
		log_limited(LOG_LEVEL_ERROR, 1, "an operation in the wrong record", "op=%u type=%u",
		            (unsigned)r->who.op, (unsigned)m->info->type);
		request_fail(r, CODE_INTERNAL, "iron-api and iron-control disagree; are both of one version?");
		return;
	}
	if (!c->ready && !r->entry->open_to_all)
		request_fail(r, CODE_UNAVAILABLE, "iron is starting; try again");
	else if (admitted(r))
		request_run(r);
}

/* Counts of the whole host, of nobody's workspace: there is no key, and iron-api asks where no client of the API could. */
void request_receive_metrics(struct control *c, const struct ipc_msg *m)
{
	static const struct op_entry entry = {OP_HOST, MSG_TYPE_msg_metrics_get, op_metrics, true, .keeps = false};
	struct request *r = request_create(c, m->txn, m->info, m->record);

	if (!r)
		return;
	r->who.op = OP_HOST;
	r->entry = &entry;
	if (c->ready)
		request_run(r);
	else
		request_fail(r, CODE_UNAVAILABLE, "iron is starting; try again");
}

/* The workspace that root names, made when there is none. False: answered. Kept even when the key is then refused: an
 * empty workspace holds nothing of anyone's. */
static bool find_root_workspace(struct request *r, struct str name)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	_cleanup_(arena_finish) struct arena a = {0};
	struct store *s = r->control->store;
	struct store_workspace w = {.id = id_random(), .name = name, .created_at = real_ms()};
	struct error e = {0};

	r->workspace = r->control->default_workspace;
	if (name.len == 0)
		return true;
	if (vm_name_check("workspace", name, &e)) {
		request_fail(r, CODE_VALIDATION_ERROR, "%s", e.text);
		return false;
	}
	int code = store_workspace_find(s, name, &a, &w);
	if (code == -ENOENT) {
		code = store_begin(s, STORE_FULL, &tx);
		if (code == 0)
			code = store_workspace_create(s, &w);
		if (code == 0)
			code = store_commit(&tx);
	}
	if (code)
		request_fail_store(r, code, "workspace");
	r->workspace = w.id;
	return code == 0;
}

void request_receive_root_key(struct control *c, const struct ipc_msg *m)
{
	const struct msg_root_key_create *asked = IPC_RECORD(m, msg_root_key_create);
	struct msg_key_create record = {
		.op = OP_KEY_CREATE,
		.name = asked->name,
		.scopes = asked->scopes ? asked->scopes : SCOPE_ALL,
		.expires_at = asked->expires_at,
	};
	struct request *r = request_create(c, m->txn, msg_info_find(MSG_TYPE_msg_key_create), &record);

	if (!r)
		return;
	r->root = true;
	r->who.op = OP_KEY_CREATE;
	r->scopes = SCOPE_ALL;
	if (!find_root_workspace(r, asked->workspace))
		return;
	r->entry = op_entry_find(OP_KEY_CREATE);
	request_run(r);
}
