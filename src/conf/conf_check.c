#include "conf/conf_check.h"

#include <errno.h>
#include <stdio.h>

#include "base/text.h"
#include "codec/hostname.h"
#include "codec/ip.h"

static int refuse(const char *value, char ret_bad[128])
{
	_cleanup_(buf_finish) struct buf shown = {0};

	escape_terminal(str_of(value), &shown);
	snprintf(ret_bad, 128, "%.*s", (int)MIN(shown.len, (size_t)100), shown.data ? (char *)shown.data : "");
	return -EINVAL;
}

/* --- what one string must be: each answers whether it is --- */

static bool is_path(const char *v)
{
	return v[0] == '/' && !strstr(v, "/../") && str_is_printable_utf8(str_of(v)) && !strchr(v, '"');
}

static bool is_relative(const char *v)
{
	return v[0] && v[0] != '/' && !strstr(v, "..") && str_is_printable_utf8(str_of(v));
}

static bool is_name(const char *v)
{
	for (const char *p = v; *p; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || (*p == '-' && p != v)))
			return false;
	return v[0] != '\0';
}

static bool is_sandbox(const char *v)
{
	return strcmp(v, "full") == 0 || strcmp(v, "degraded") == 0;
}

static bool is_log_level(const char *v)
{
	return strcmp(v, "debug") == 0 || strcmp(v, "info") == 0 || strcmp(v, "warn") == 0 || strcmp(v, "error") == 0;
}

static bool is_host_or_empty(const char *v)
{
	struct host h;
	return !*v || host_parse(str_of(v), &h) == 0;
}

static bool is_listen(const char *v)
{
	struct host h;
	uint16_t port;
	return authority_parse(str_of(v), &h, &port) == 0 && h.ip.family && port;
}

static bool is_listen_or_empty(const char *v)
{
	return !*v || is_listen(v);
}

static bool is_resolver(const char *v)
{
	struct str address = str_of(v), head;
	uint64_t port;
	struct ip ip;

	if (!str_split(&address, '#', &head) || ip_parse(head, &ip))
		return false;
	return !address.p || (str_parse_u64(address, 65535, &port) == 0 && port);
}

static bool is_cidr(const char *v)
{
	struct cidr c;
	return cidr_parse(str_of(v), &c) == 0;
}

static bool is_allowed_host(const char *v)
{
	char name[HOSTNAME_SIZE];
	return hostname_parse_idn(str_of(strncmp(v, "*.", 2) == 0 ? v + 2 : v), name) == 0;
}

/* One host of a preset. */
static bool is_package(const char *v)
{
	const char *is = strchr(v, '=');
	_cleanup_free_ char *name = is ? str_dup(str_make(v, (size_t)(is - v))) : NULL;
	struct host h;
	uint16_t port;

	return is && is - v <= 63 && is_name(name) && authority_parse(str_of(is + 1), &h, &port) == 0 && h.ip.family == 0;
}

/* Which test holds for which key. */
static const struct {
	const char *name;
	bool (*is)(const char *v);
} tests[] = {
	{"listen", is_listen},         {"public_host", is_host_or_empty}, {"cert_file", is_path},
	{"key_file", is_path},         {"state_dir", is_path},            {"run_dir", is_path},
	{"instance", is_name},         {"cgroup_root", is_relative},      {"sandbox", is_sandbox},
	{"log_level", is_log_level},   {"default_image", is_name},        {"resolvers", is_resolver},
	{"extra_ca_files", is_path},   {"never_dial", is_cidr},           {"metrics_listen", is_listen_or_empty},
	{"packages", is_package},
};

static int check_string(const struct conf_option *o, const char *v, char ret_bad[128])
{
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		if (strcmp(tests[i].name, o->name) == 0 && !tests[i].is(v))
			return refuse(v, ret_bad);
	return 0;
}

static int check_synthetic(struct conf *c, char ret_bad[128])
{
	struct cidr range;

	if (cidr_parse(str_of(c->egress.synthetic_range), &range) || range.base.family != 4 || range.prefix < 8 ||
	    range.prefix > 18)
		return refuse(c->egress.synthetic_range, ret_bad);
	c->egress.synthetic_base = ip_v4(&range.base);
	c->egress.synthetic_prefix = range.prefix;
	return 0;
}

static int check_shapes(const struct conf *c, char ret_bad[128])
{
	if (c->shapes_count == 0)
		return refuse("an empty list", ret_bad);
	for (unsigned i = 0; i < c->shapes_count; i++) {
		const struct conf_shape *s = &c->shapes[i];
		if (!is_name(s->name) || s->vcpus < 1 || s->vcpus > 32 || s->memory_mib < 256 || s->memory_mib > 262144)
			return refuse(s->name, ret_bad);
		for (unsigned k = 0; k < i; k++)
			if (strcmp(s->name, c->shapes[k].name) == 0)
				return refuse(s->name, ret_bad);
	}
	return 0;
}

static int check_privates(const struct conf *c, char ret_bad[128])
{
	for (unsigned i = 0; i < c->egress.private_allow_count; i++) {
		const struct conf_private *p = &c->egress.private_allow[i];
		if (!is_cidr(p->cidr))
			return refuse(p->cidr, ret_bad);
		for (unsigned k = 0; k < p->hosts_count; k++)
			if (!is_allowed_host(p->hosts[k]))
				return refuse(p->hosts[k], ret_bad);
	}
	return 0;
}

int conf_check(const struct conf_option *o, struct conf *c, char ret_bad[128])
{
	const char *at = (const char *)c + o->offset;

	switch (o->kind) {
	case CONF_u32: {
		uint32_t v = *(const uint32_t *)(const void *)at;
		if (v < o->low || v > o->high) {
			snprintf(ret_bad, 128, "%u", v);
			return -EINVAL;
		}
		return 0;
	}
	case CONF_flag:
		return 0;
	case CONF_str:
		if (strcmp(o->name, "synthetic_range") == 0)
			return check_synthetic(c, ret_bad);
		return check_string(o, *(char *const *)(const void *)at, ret_bad);
	case CONF_strs: {
		char *const *v = *(char **const *)(const void *)at;
		unsigned n = *(const unsigned *)(const void *)((const char *)c + o->count_offset);
		if (n < o->low || (strcmp(o->name, "listen") == 0 && n == 0))
			return refuse("an empty list", ret_bad);
		for (unsigned i = 0; i < n; i++)
			if (check_string(o, v[i], ret_bad))
				return -EINVAL;
		return 0;
	}
	case CONF_shapes:
		return check_shapes(c, ret_bad);
	case CONF_privates:
		return check_privates(c, ret_bad);
	}
	return -EINVAL;
}
