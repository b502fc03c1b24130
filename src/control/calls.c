#include "control/calls.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/map.h"
#include "model/op.h"

#define STREAMS_MAX 1024
#define TELL_S 5
#define BURST 60 /* then one every two seconds: a client that polls is told of all the same */
#define PER_S 0.5
#define BURST_KEYLESS 40
#define PER_S_KEYLESS 2.0
#define IDLE_MS 120000 /* then a bucket is full again, and forgotten */

/* Calls of one kind. Texts are those of the last one that was only counted. */
struct stream {
	uint64_t id, key, workspace;
	uint16_t op, status;
	double tokens;
	uint64_t filled_ms;
	uint64_t count, longest_us;
	char method[17], path[256], client[129], address[65];
};

struct calls {
	struct journal *journal;
	struct store *store;
	struct map streams;
	struct stream rest; /* of all that there is no room for: never a bucket of its own */
	struct event *tell;
};

/* --- what is told --- */

static uint64_t vm_of(struct str path)
{
	static const char before[] = "/v1/vms/";
	struct str rest, segment;
	uint64_t vm;

	if (!str_has_prefix(path, STR("/v1/vms/")))
		return 0;
	rest = str_make(path.p + sizeof before - 1, path.len - (sizeof before - 1));
	return str_split(&rest, '/', &segment) && id_parse("vm_", segment, &vm) == 0 ? vm : 0;
}

static void write_event(struct calls *c, const struct stream *s, struct detail *d, uint64_t vm, struct str address)
{
	const struct op_info *op = op_info_get(s->op);
	char status[8];

	snprintf(status, sizeof status, "%u", s->status);
	struct record_event e = {
		.kind = STR(EVENT_API),
		.action = str_of(op ? op->name : "none"),
		.workspace = s->workspace,
		.vm = vm,
		.key = s->key,
		.address = address,
		.outcome = str_of(status),
		.detail = detail_end(d),
	};
	journal_note(c->journal, &e);
}

static void tell_call(struct calls *c, const struct stream *s, const struct msg_api_record *m)
{
	_cleanup_(detail_finish) struct detail d = {0};

	detail_add(&d, "method", m->method);
	detail_add(&d, "path", m->path);
	detail_add(&d, "client", m->client);
	detail_add_u64(&d, "duration_us", m->duration_us);
	write_event(c, s, &d, s->key ? vm_of(m->path) : 0, m->address);
}

static void tell_count(struct calls *c, struct stream *s)
{
	_cleanup_(detail_finish) struct detail d = {0};

	if (s->count == 0)
		return;
	detail_add_u64(&d, "count", s->count);
	if (s->method[0]) {
		detail_add(&d, "method", str_of(s->method));
		detail_add(&d, "path", str_of(s->path));
		detail_add(&d, "client", str_of(s->client));
		detail_add_u64(&d, "longest_us", s->longest_us);
	}
	write_event(c, s, &d, 0, str_of(s->address));
	s->count = s->longest_us = 0;
}

/* --- what is counted --- */

static void copy(struct str s, char *ret, size_t size)
{
	s.len = MIN(s.len, size - 1);
	memcpy(ret, s.p ? s.p : "", s.len);
	ret[s.len] = '\0';
}

static void count(struct stream *s, const struct msg_api_record *m)
{
	s->count++;
	s->longest_us = MAX(s->longest_us, (uint64_t)m->duration_us);
	copy(m->method, s->method, sizeof s->method);
	copy(m->path, s->path, sizeof s->path);
	copy(m->client, s->client, sizeof s->client);
	copy(m->address, s->address, sizeof s->address);
}

static bool take_token(struct stream *s, uint64_t now_ms)
{
	double most = s->key ? BURST : BURST_KEYLESS, per_ms = (s->key ? PER_S : PER_S_KEYLESS) / 1000.0;

	s->tokens = MIN(most, s->tokens + (double)(now_ms - s->filled_ms) * per_ms);
	s->filled_ms = now_ms;
	if (s->tokens < 1)
		return false;
	s->tokens--;
	return true;
}

static struct stream *stream_get(struct calls *c, const struct stream *kind)
{
	uint64_t id = kind->key * 0x9e3779b97f4a7c15ULL + ((uint64_t)kind->op << 16 | kind->status) + 1;
	struct stream *s = map_get(&c->streams, id);

	if (s)
		return s->key == kind->key && s->op == kind->op && s->status == kind->status ? s : NULL;
	if (c->streams.n >= STREAMS_MAX)
		return NULL;
	s = xcalloc(1, sizeof *s);
	*s = *kind;
	s->id = id;
	s->tokens = kind->key ? BURST : BURST_KEYLESS;
	s->filled_ms = mono_ms();
	map_put(&c->streams, id, s);
	return s;
}

static bool is_change(const struct stream *s, struct str method)
{
	return s->key && s->status < 300 && !str_eq(method, STR("GET")) && !str_eq(method, STR("HEAD"));
}

void calls_note(struct calls *c, const struct msg_api_record *m)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct stream kind = {.op = m->op, .status = m->status};
	struct store_key key = {0};

	if (m->key_hash.len == STORE_KEY_HASH_SIZE)
		store_key_find_any(c->store, (const uint8_t *)m->key_hash.p, &a, &key);
	kind.key = key.row.id;
	kind.workspace = key.workspace;
	if (m->count) { /* once a life of iron-control's: not kept for later, when there may be another */
		kind.count = m->count;
		tell_count(c, &kind);
		return;
	}
	if (is_change(&kind, m->method)) {
		tell_call(c, &kind, m);
		return;
	}
	if (!kind.key)
		kind.op = OP_COUNT;
	struct stream *s = stream_get(c, &kind);
	if (s && take_token(s, mono_ms())) {
		kind.op = m->op;
		tell_call(c, &kind, m);
		return;
	}
	if (!s) {
		s = &c->rest;
		s->op = OP_COUNT;
		s->status = m->status;
	}
	count(s, m);
}

/* --- time --- */

static void tell_all(struct calls *c)
{
	struct map_slot *slot;

	for (size_t i = 0; map_next(&c->streams, &i, &slot);)
		tell_count(c, slot->value);
	tell_count(c, &c->rest);
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
	struct calls *c = arg;
	struct map_slot *slot;
	uint64_t now = mono_ms();

	tell_all(c);
	for (size_t i = 0; map_next(&c->streams, &i, &slot);) {
		struct stream *s = slot->value;
		if (now - s->filled_ms < IDLE_MS)
			continue;
		map_remove(&c->streams, s->id);
		free(s);
		i = 0;
	}
}

struct calls *calls_create(struct event_base *base, struct journal *journal, struct store *store)
{
	struct calls *c = xcalloc(1, sizeof *c);

	*c = (struct calls){.journal = journal, .store = store};
	c->tell = event_new(base, -1, EV_PERSIST, on_tell, c);
	if (!c->tell || event_add(c->tell, &(struct timeval){.tv_sec = TELL_S}))
		abort();
	return c;
}

void calls_destroy(struct calls *c)
{
	struct map_slot *slot;

	if (!c)
		return;
	event_free(c->tell);
	for (size_t i = 0; map_next(&c->streams, &i, &slot);)
		free(slot->value);
	map_finish(&c->streams);
	free(c);
}
