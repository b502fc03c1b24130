#pragma once
/* How often one key and one address may ask: token buckets, which fill at a rate and hold what ten seconds bring. Bounded
 * tables: when one is full, the bucket that was used longest ago gives way, and begins full when it comes back.
 *
 * Failed authentications are counted by address, at a slower rate. An address that has used them up still gets through with
 * a key that was good lately; with any other it is refused before anybody looks the key up. */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define RATES_KEY_SIZE 32 /* SHA-256 of a key */

struct rates;

/* Rates in a second; 0: none. */
struct rates *rates_create(uint32_t per_key, uint32_t per_address, uint32_t failures_per_address);
void rates_destroy(struct rates *l); /* NULL allowed */

/* Takes one. 0, or in how many seconds there is one again (at least 1). */
unsigned rates_take_address(struct rates *l, struct str address, uint64_t now_ms);
/* key NULL: the request carried none. Only a key that was good has a bucket of its own. */
unsigned rates_take_key(struct rates *l, const uint8_t key[RATES_KEY_SIZE], struct str address, uint64_t now_ms);
/* What became of it. */
void rates_note_good(struct rates *l, const uint8_t key[RATES_KEY_SIZE], uint64_t now_ms);
void rates_note_failure(struct rates *l, struct str address, uint64_t now_ms);
/* The key was good and is so no more. */
void rates_note_bad(struct rates *l, const uint8_t key[RATES_KEY_SIZE]);
