#include "policy/preset.h"

#include <errno.h>

#include "policy/rule.h"

/* Where programs only read, only reading is allowed: what is published goes out by a rule that says so. */
#define READ "GET|HEAD"

const struct preset presets[] = {
	{"alpine", "Alpine's packages (apk)", {{"dl-cdn.alpinelinux.org", "80|443", READ, NULL}}},
	{"anthropic", "The Claude API", {{"api.anthropic.com", NULL, NULL, NULL}}},
	{"crates",
	 "Rust: crates.io and the tool chains (cargo, rustup), reading only",
	 {{"index.crates.io", NULL, READ, NULL},
	  {"static.crates.io", NULL, READ, NULL},
	  {"crates.io", NULL, READ, NULL},
	  {"static.rust-lang.org", NULL, READ, NULL}}},
	{"debian",
	 "Debian's packages (apt)",
	 {{"deb.debian.org", "80|443", READ, NULL}, {"security.debian.org", "80|443", READ, NULL}}},
	{"docker-hub",
	 "Images of Docker Hub, pulling only",
	 {{"registry-1.docker.io", NULL, READ, NULL},
	  {"auth.docker.io", NULL, "GET|POST", NULL},
	  {"production.cloudflare.docker.com", NULL, READ, NULL},
	  {"docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com", NULL, READ, NULL}}},
	{"github",
	 "GitHub by HTTPS: git, the API, releases and raw files, also writing",
	 {{"github.com", NULL, NULL, NULL},
	  {"api.github.com", NULL, NULL, NULL},
	  {"codeload.github.com", NULL, NULL, NULL},
	  {"uploads.github.com", NULL, NULL, NULL},
	  {"*.githubusercontent.com", NULL, NULL, NULL}}},
	{"gitlab", "gitlab.com by HTTPS: git and the API, also writing", {{"gitlab.com", NULL, NULL, NULL}}},
	{"go",
	 "Go's modules and their checksums, reading only",
	 {{"proxy.golang.org", NULL, READ, NULL},
	  {"sum.golang.org", NULL, READ, NULL},
	  {"storage.googleapis.com", NULL, READ, "/proxy-golang-org-prod/*"}}},
	{"huggingface",
	 "Hugging Face: models and data sets, also writing",
	 {{"huggingface.co", NULL, NULL, NULL}, {"*.huggingface.co", NULL, NULL, NULL}, {"*.hf.co", NULL, NULL, NULL}}},
	{"maven", "Maven Central, reading only", {{"repo.maven.apache.org", NULL, READ, NULL}, {"repo1.maven.org", NULL, READ, NULL}}},
	{"npm",
	 "npm's and Yarn's packages and npm audit, no publishing",
	 {{"registry.npmjs.org", NULL, READ, NULL},
	  {"registry.npmjs.org", NULL, "POST", "/-/npm/v1/security/*"},
	  {"registry.yarnpkg.com", NULL, READ, NULL}}},
	{"openai", "The OpenAI API", {{"api.openai.com", NULL, NULL, NULL}}},
	{"pypi",
	 "Python's packages (pip), reading only",
	 {{"pypi.org", NULL, READ, NULL}, {"files.pythonhosted.org", NULL, READ, NULL}}},
	{"rubygems", "Ruby's gems, reading only", {{"rubygems.org", NULL, READ, NULL}, {"index.rubygems.org", NULL, READ, NULL}}},
	{"ubuntu",
	 "Ubuntu's packages (apt)",
	 {{"archive.ubuntu.com", "80|443", READ, NULL},
	  {"security.ubuntu.com", "80|443", READ, NULL},
	  {"ports.ubuntu.com", "80|443", READ, NULL}}},
	{0},
};

const struct preset *preset_find(struct str name)
{
	for (const struct preset *p = presets; p->name; p++)
		if (str_eq(str_of(p->name), name))
			return p;
	return NULL;
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
