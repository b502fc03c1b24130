#pragma once
/* Who asks: the key of a request, by its hash. */
#include "control/control_internal.h"

struct request;

/* Sets the request's key, workspace and scopes. -EACCES: unknown, revoked or expired. */
int auth_check(struct control *c, struct str key_hash, struct request *r);

/* A new key: "iron_live_" and 32 random characters of [0-9A-Za-z], and its SHA-256. */
#define KEY_TEXT_SIZE 43
void key_generate(char ret_text[KEY_TEXT_SIZE], uint8_t ret_hash[STORE_KEY_HASH_SIZE]);
