#include "policy/host_pattern.h"

#include <errno.h>

#include "base/cleanup.h"

/* Why a text is no host, for the mistakes that people make. */
static int refuse(struct str s, struct error *reterr)
{
	if (s.len == 0)
		return error_set(reterr, -EINVAL, "is empty");
	if (str_chr(s, '/') >= 0)
		return error_set(reterr, -EINVAL, "takes a host alone, not a URL or a CIDR");
	if (str_chr(s, ':') >= 0 || str_chr(s, '[') >= 0)
		return error_set(reterr, -EINVAL, "takes a host without brackets or a port (ports go into `ports`)");
	if (str_chr(s, '*') >= 0)
		return error_set(reterr, -EINVAL, "a star may stand alone or as `*.` before a name, nowhere else");
	return error_set(reterr, -EINVAL, "is neither a host name nor an IP address");
}

int host_pattern_parse(struct str s, int (*parse_name)(struct str s, char ret[HOSTNAME_SIZE]), struct host_pattern *ret,
		       struct error *reterr)
{
	struct host_pattern p = {0};

	if (str_eq(s, STR("*"))) {
		p.kind = HOST_ANY;
	} else if (str_has_prefix(s, STR("*."))) {
		p.kind = HOST_SUFFIX;
		if (parse_name(str_make(s.p + 2, s.len - 2), p.host.name))
			return refuse(s, reterr);
	} else if (ip_parse(s, &p.host.ip) == 0) {
		p.kind = HOST_LITERAL;
		ip_format(&p.host.ip, p.host.name);
	} else if (parse_name(s, p.host.name)) {
		return refuse(s, reterr);
	}
	*ret = p;
	return 0;
}

bool host_pattern_covers(const struct host_pattern *p, struct str name)
{
	switch (p->kind) {
	case HOST_EXACT:
		return str_eq(name, str_of(p->host.name));
	case HOST_SUFFIX:
		return hostname_in(name, str_of(p->host.name));
	case HOST_ANY:
		return true;
	case HOST_LITERAL:
		return false;
	}
	return false;
}

void host_pattern_format(const struct host_pattern *p, char ret[HOST_PATTERN_SIZE])
{
	const char *prefix = p->kind == HOST_ANY ? "*" : p->kind == HOST_SUFFIX ? "*." : "";
	snprintf(ret, HOST_PATTERN_SIZE, "%s%s", prefix, p->host.name);
}
