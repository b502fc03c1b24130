#include "policy/preset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/hostname.h"
#include "codec/ip.h"
#include "policy/rule.h"

/* Where programs only read, only reading is allowed: what is published goes out by a rule that says so. */
#define READ "GET|HEAD"
#define PACKAGES "Packages from the sources that this host names in iron.yaml, reading only"

static const struct preset built_in[] = {
	{"anthropic", "The Claude API", {{"api.anthropic.com", NULL, NULL, NULL}}},
	{"github",
	 "GitHub by HTTPS: git, the API, releases and raw files, also writing",
	 {{"github.com", NULL, NULL, NULL},
	  {"api.github.com", NULL, NULL, NULL},
	  {"codeload.github.com", NULL, NULL, NULL},
	  {"uploads.github.com", NULL, NULL, NULL},
	  {"*.githubusercontent.com", NULL, NULL, NULL}}},
	{"gitlab", "gitlab.com by HTTPS: git and the API, also writing", {{"gitlab.com", NULL, NULL, NULL}}},
	{"huggingface",
	 "Hugging Face: models and data sets, also writing",
	 {{"huggingface.co", NULL, NULL, NULL}, {"*.huggingface.co", NULL, NULL, NULL}, {"*.hf.co", NULL, NULL, NULL}}},
	{"openai", "The OpenAI API", {{"api.openai.com", NULL, NULL, NULL}}},
};

static struct preset *find(const struct presets *p, struct str name)
{
	for (size_t i = 0; i < p->v.n; i++)
		if (str_eq(str_of(p->v.v[i].name), name))
			return &p->v.v[i];
	return NULL;
}

static const char *keep(struct presets *p, struct str text)
{
	VEC_PUSH(&p->texts, str_dup(text));
	return p->texts.v[p->texts.n - 1];
}

/* The same entry twice is one rule. */
static bool has_rule(const struct preset *p, const char *host, const char *ports, size_t *ret_n)
{
	size_t n = 0;

	for (; n < PRESET_RULES_MAX && p->rules[n].host; n++)
		if (strcmp(p->rules[n].host, host) == 0 && strcmp(p->rules[n].ports ? p->rules[n].ports : "", ports) == 0)
			return true;
	*ret_n = n;
	return false;
}

static int add_package(struct presets *p, struct str entry, struct error *reterr)
{
	struct str rest = entry, name;
	struct host host;
	uint16_t port = 0;
	char digits[8];
	size_t n;

	if (!str_split(&rest, '=', &name) || name.len == 0 || name.len > 63 || authority_parse(rest, &host, &port) ||
	    host.ip.family)
		return error_set(reterr, -EINVAL, "egress.packages: '%.*s' is not NAME=HOST or NAME=HOST:PORT", STR_ARG(entry));
	snprintf(digits, sizeof digits, "%u", port ? port : 443);
	struct preset *to = find(p, name);
	if (!to) {
		VEC_PUSH(&p->v, ((struct preset){.name = keep(p, name), .summary = PACKAGES}));
		to = &p->v.v[p->v.n - 1];
	}
	const char *text = keep(p, str_of(host.name)), *ports = keep(p, str_of(digits));
	if (has_rule(to, text, ports, &n))
		return 0;
	to->rules[n] = (struct preset_rule){.host = text, .ports = ports, .methods = READ};
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct preset *)a)->name, ((const struct preset *)b)->name);
}

int presets_make(struct str packages, struct presets *ret, struct error *reterr)
{
	struct str rest = packages, entry;
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(built_in); i++)
		VEC_PUSH(&ret->v, built_in[i]);
	while (r == 0 && wire_list_next(&rest, &entry))
		r = ++n > PRESET_PACKAGES_MAX ? error_set(reterr, -E2BIG, "egress.packages: more than %d", PRESET_PACKAGES_MAX)
					      : add_package(ret, entry, reterr);
	qsort(ret->v.v, ret->v.n, sizeof ret->v.v[0], by_name);
	return r;
}

void presets_finish(struct presets *p)
{
	for (size_t i = 0; i < p->texts.n; i++)
		free(p->texts.v[i]);
	VEC_FINISH(&p->texts);
	VEC_FINISH(&p->v);
}

const struct preset *preset_find(const struct presets *p, struct str name)
{
	return find(p, name);
}

static int add_texts(const char *texts, struct buf *list)
{
	struct str rest = str_of(texts ? texts : ""), item;
	int r = 0;

	while (r == 0 && texts && str_split(&rest, '|', &item))
		r = wire_list_add(list, item);
	return r;
}

static int add_ports(const char *ports, struct buf *list)
{
	struct str rest = str_of(ports ? ports : "443"), item;
	uint64_t port;
	int r = 0;

	while (r == 0 && str_split(&rest, '|', &item)) {
		r = str_parse_u64(item, UINT16_MAX, &port);
		if (r == 0)
			r = wire_list_add_u64(list, port);
	}
	return r;
}

static int add_rule(const struct preset *p, const struct preset_rule *rule, struct buf *list)
{
	_cleanup_(buf_finish) struct buf ports = {0}, methods = {0}, paths = {0}, canonical = {0};
	struct rec_rule asked = {.host = str_of(rule->host), .preset = str_of(p->name)};
	struct error e = {0};

	if (add_ports(rule->ports, &ports) || add_texts(rule->methods, &methods) || add_texts(rule->paths, &paths))
		return -EINVAL;
	asked.ports = buf_str(&ports);
	asked.methods = buf_str(&methods);
	asked.paths = buf_str(&paths);
	int r = rule_canonicalise(&asked, false, &canonical, &e);
	return r ? r : wire_list_add(list, buf_str(&canonical));
}

int preset_expand(const struct preset *p, struct buf *list)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < PRESET_RULES_MAX && p->rules[i].host; i++)
		r = add_rule(p, &p->rules[i], list);
	return r;
}
