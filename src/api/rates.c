#include "api/rates.h"

#include <openssl/sha.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"

/* Set-associative: a name lives in one of the WAYS places of its set. */
#define SETS 1024
#define WAYS 4
#define HOLDS_S 10

struct bucket {
	uint64_t name;	 /* 0: free */
	uint64_t at_ms;	 /* when `tokens` was true */
	uint64_t tokens; /* thousandths */
};

struct table {
	uint64_t rate; /* tokens a second, 0: no limit */
	struct bucket v[SETS][WAYS];
};

struct rates {
	uint64_t seed; /* so that nobody can choose whom to meet in a set */
	struct table keys, addresses, failures;
};

struct rates *rates_create(uint32_t per_key, uint32_t per_address, uint32_t failures_per_address)
{
	struct rates *l = xcalloc(1, sizeof *l);

	if (getrandom(&l->seed, sizeof l->seed, 0) != (ssize_t)sizeof l->seed)
		abort();
	l->keys.rate = per_key;
	l->addresses.rate = per_address;
	l->failures.rate = failures_per_address;
	return l;
}

void rates_destroy(struct rates *l)
{
	free(l);
}

static uint64_t name_of(const struct rates *l, struct str s)
{
	uint8_t in[8 + 64], digest[SHA256_DIGEST_LENGTH];
	uint64_t name;

	s.len = MIN(s.len, (size_t)64);
	memcpy(in, &l->seed, 8);
	memcpy(in + 8, s.p, s.len);
	SHA256(in, 8 + s.len, digest);
	memcpy(&name, digest, 8);
	return name ? name : 1;
}

static struct bucket *find(struct table *t, uint64_t name)
{
	struct bucket *set = t->v[name % SETS];

	for (size_t i = 0; i < WAYS; i++)
		if (set[i].name == name)
			return &set[i];
	return NULL;
}

static struct bucket *find_or_make(struct table *t, uint64_t name, uint64_t now_ms)
{
	struct bucket *b = find(t, name), *set = t->v[name % SETS];

	if (b)
		return b;
	b = &set[0];
	for (size_t i = 1; i < WAYS; i++)
		if (set[i].at_ms < b->at_ms)
			b = &set[i];
	*b = (struct bucket){.name = name, .at_ms = now_ms, .tokens = t->rate * HOLDS_S * 1000};
	return b;
}

static void fill(const struct table *t, struct bucket *b, uint64_t now_ms)
{
	uint64_t passed_ms = MIN(now_ms - b->at_ms, (uint64_t)HOLDS_S * 1000);

	b->at_ms = now_ms;
	b->tokens = MIN(b->tokens + passed_ms * t->rate, t->rate * HOLDS_S * 1000);
}

/* In how many seconds there is a token. */
static unsigned missing(const struct table *t, const struct bucket *b)
{
	return b->tokens >= 1000 ? 0 : (unsigned)((1000 - b->tokens + t->rate * 1000 - 1) / (t->rate * 1000));
}

static unsigned take(struct table *t, struct bucket *b, uint64_t now_ms)
{
	fill(t, b, now_ms);
	unsigned wait_s = missing(t, b);
	if (!wait_s)
		b->tokens -= 1000;
	return wait_s;
}

unsigned rates_take_address(struct rates *l, struct str address, uint64_t now_ms)
{
	struct table *t = &l->addresses;

	return t->rate ? take(t, find_or_make(t, name_of(l, address), now_ms), now_ms) : 0;
}

unsigned rates_take_key(struct rates *l, const uint8_t key[RATES_KEY_SIZE], struct str address, uint64_t now_ms)
{
	struct bucket *b = key ? find(&l->keys, name_of(l, str_make(key, RATES_KEY_SIZE))) : NULL;

	if (b)
		return l->keys.rate ? take(&l->keys, b, now_ms) : 0;
	b = l->failures.rate ? find(&l->failures, name_of(l, address)) : NULL;
	if (!b)
		return 0;
	fill(&l->failures, b, now_ms);
	return missing(&l->failures, b);
}

void rates_note_good(struct rates *l, const uint8_t key[RATES_KEY_SIZE], uint64_t now_ms)
{
	find_or_make(&l->keys, name_of(l, str_make(key, RATES_KEY_SIZE)), now_ms);
}

void rates_note_failure(struct rates *l, struct str address, uint64_t now_ms)
{
	struct table *t = &l->failures;

	if (t->rate)
		take(t, find_or_make(t, name_of(l, address), now_ms), now_ms);
}

void rates_note_bad(struct rates *l, const uint8_t key[RATES_KEY_SIZE])
{
	struct bucket *b = find(&l->keys, name_of(l, str_make(key, RATES_KEY_SIZE)));

	if (b)
		*b = (struct bucket){0};
}
