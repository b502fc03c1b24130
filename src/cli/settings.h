#pragma once
/* Where the API is and with which key: flags, then IRON_API_URL and IRON_API_KEY, then ~/.config/iron/config.yaml
 * (api_url, api_key, tls_sha256: the SHA-256 of the server's certificate, which is then trusted by it alone). */
#include "base/error.h"

struct settings {
	char *url;  /* without a final slash and without /v1 */
	char *key;  /* may be empty */
	char *pin;  /* 64 hex digits, or empty */
};

/* url, key: from flags, or NULL. -EINVAL names the file and line; -ENOENT says how to get a configuration. */
int settings_load(const char *url, const char *key, struct settings *ret, struct error *reterr);
void settings_finish(struct settings *s);
