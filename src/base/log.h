#pragma once
/* Logging in logfmt, one line a write(2), to stderr: ts=… level=… role=… msg="…" key=value…
 * Only programs and the top of a handler log above debug; libraries return an error instead. Values are quoted and
 * escaped, so a hostile string stays on its line. Where a peer can cause a line, use log_limited. */
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* role: a string literal; it and the level hold for the process. */
void log_init(const char *role, enum log_level min);

/* kv: a format whose output is already logfmt pairs made with the LOG_* helpers, or NULL. Example:
 *   log_info("vm started", "vm=%s uid=%u", id, uid);
 * Strings from outside go through log_quote. */
void log_write(enum log_level level, const char *msg, const char *kv, ...) __attribute__((format(printf, 3, 4)));
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

/* s quoted for logfmt in a rotating static buffer (8 of them, 256 bytes each, cut with "..."). */
const char *log_quote(const char *s);

/* An id as people know it ("vm_0c3n9m5k2r7tq"), in another such ring of 8. prefix as for id_format. */
const char *log_id(const char *prefix, uint64_t id);

/* At most `burst` lines a second a call site; the first line of the next second carries suppressed=N. */
struct log_limit {
	uint64_t second;
	unsigned count, suppressed;
};
int log_allowed(struct log_limit *l, unsigned burst);
#define log_limited(level, burst, ...)                                                                                 \
	do {                                                                                                           \
		static struct log_limit _limit;                                                                        \
		if (log_allowed(&_limit, (burst)))                                                                     \
			log_write((level), __VA_ARGS__);                                                               \
	} while (0)
