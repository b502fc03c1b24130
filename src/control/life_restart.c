/* What follows an end that nobody asked for.
 *
 * restart: always starts it again, after a pause that doubles from one second. Five times in ten minutes, then the VM is
 * failed and stays so: what ends at once each time is not helped by another start. When it was is in the store, so that
 * an iron-control that dies with its VMs does not count anew. */
#include <stdarg.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/life_internal.h"

#define RESTARTS_MAX 5
#define RESTARTS_WITHIN_MS (10 * 60 * 1000)
#define IROND_ENDS_MS 5000

static bool is_always(struct life *f)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm vm;

	return store_vm_lookup(f->lives->store, f->id, &a, &vm) == 0 && vm.row.restart == VM_RESTART_ALWAYS;
}

static int note(struct life *f, int64_t now)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = f->lives->store;

	int r = store_begin(s, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_restart_note(s, f->id, now, now - RESTARTS_WITHIN_MS);
	return r ? r : store_commit(&tx);
}

static void append(char *reason, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void append(char *reason, size_t size, const char *fmt, ...)
{
	size_t n = strlen(reason);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason + n, size - n, fmt, ap);
	va_end(ap);
}

static unsigned pause_ms(const struct life *f, unsigned restarts)
{
	return restarts ? f->lives->config.restart_pause_ms << MIN(restarts - 1, RESTARTS_MAX - 1U) : 0;
}

bool life_restart_again(struct life *f, enum restart_when when, char *reason, size_t size)
{
	int64_t now = real_ms();
	unsigned n = 0;

	if (!is_always(f))
		return false;
	if (when != RESTART_COUNTED)
		return true;
	int r = store_restarts_count(f->lives->store, f->id, now - RESTARTS_WITHIN_MS, &n);
	if (r == 0 && n >= RESTARTS_MAX) {
		append(reason, size, "; restart: always started it %d times in %d minutes and leaves it now", RESTARTS_MAX,
		       RESTARTS_WITHIN_MS / 60000);
		return false;
	}
	if (r == 0)
		r = note(f, now);
	if (r) { /* what cannot be counted could go on for ever */
		append(reason, size, "; restart: always needs the database, which failed (%d)", r);
		return false;
	}
	append(reason, size, "; it is started again in %u s (restart: always)", pause_ms(f, n + 1) / 1000);
	return true;
}

unsigned life_restart_pause_ms(struct life *f)
{
	unsigned n = 0;

	if (store_restarts_count(f->lives->store, f->id, real_ms() - RESTARTS_WITHIN_MS, &n))
		n = RESTARTS_MAX;
	return pause_ms(f, n);
}

void life_end_unasked(struct life *f, enum vm_state state, const char *action, const char *text, enum restart_when when)
{
	char reason[512];

	snprintf(reason, sizeof reason, "%.400s", text);
	life_begin(f, JOB_CLEAN);
	f->follow_start = f->automatic = life_restart_again(f, when, reason, sizeof reason);
	if (!f->automatic && when == RESTART_COUNTED && is_always(f))
		state = VM_FAILED; /* past the limit, a guest that powers itself off too */
	life_set_state(f, state, reason);
	life_note(f, action, reason);
	if (f->automatic)
		life_set_state(f, VM_STARTING, NULL);
	if (f->automatic && when == RESTART_LATER)
		life_timer(f, IROND_ENDS_MS);
	else
		life_run(f);
}
