#pragma once
/* Named groups of rules for what is often needed: each expands to ordinary rules that carry its name. */
#include <stdint.h>

#include "base/buf.h"
#include "codec/msg_egress.h"

#define PRESET_RULES_MAX 12 /* of one preset */
#define PRESETS_RULES_MAX 64 /* of all together */

/* A name of the Internet that may be reached by HTTPS; ports, methods and paths: separated by "|", NULL: 443, all, all. */
struct preset_rule {
	const char *host, *ports, *methods, *paths;
};
struct preset {
	const char *name, *summary;
	struct preset_rule rules[PRESET_RULES_MAX]; /* up to one without a host */
};

/* Up to one without a name. */
extern const struct preset presets[];

/* NULL: there is none of that name. */
const struct preset *preset_find(struct str name);
/* Appends its rules to a wire list: encoded rec_rules in canonical form, of no id and no time. -EINVAL: the table is wrong. */
int preset_expand(const struct preset *p, struct buf *list);
