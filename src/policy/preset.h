#pragma once
/* Named groups of rules for what is often needed: each expands to ordinary rules that carry its name. Some are built in;
 * those of package sources are the operator's (egress.packages of iron.yaml), since every site has its own mirrors. */
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/vec.h"
#include "codec/msg_egress.h"

#define PRESET_PACKAGES_MAX 24 /* entries of egress.packages */
#define PRESET_RULES_MAX 32    /* of one preset: a built-in one's and all of those */
#define PRESETS_RULES_MAX 64   /* of all together */

/* A name of the Internet that may be reached by HTTPS; ports, methods and paths: separated by "|", NULL: 443, all, all. */
struct preset_rule {
	const char *host, *ports, *methods, *paths;
};
struct preset {
	const char *name, *summary;
	struct preset_rule rules[PRESET_RULES_MAX]; /* up to one without a host */
};

/* All that there are, by name. */
struct presets {
	VEC(struct preset) v;
	VEC(char *) texts; /* what those of packages point to */
};

/* packages: wire list of "NAME=HOST" or "NAME=HOST:PORT", of each of which HOST may be read from at 443, or PORT. -EINVAL,
 * with the entry; -E2BIG: more than PRESET_PACKAGES_MAX. ret is to be finished either way. */
int presets_make(struct str packages, struct presets *ret, struct error *reterr);
void presets_finish(struct presets *p);

/* NULL: there is none of that name. */
const struct preset *preset_find(const struct presets *p, struct str name);
/* Appends its rules to a wire list: encoded rec_rules in canonical form, of no id and no time. -EINVAL: one of them is no
 * rule. */
int preset_expand(const struct preset *p, struct buf *list);
