#include "codec/hostname.h"

#include <errno.h>

#include "base/cleanup.h"

/* The byte in canonical form, 0 when a name cannot hold it. */
static char name_byte(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c + 32);
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
		return c;
	return 0;
}

static bool is_digits(struct str s, bool hex)
{
	for (size_t i = 0; i < s.len; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (hex && s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return true;
}

/* What the WHATWG URL standard calls "ends in a number": inet_aton and friends would read the name as an address. */
static bool is_number(struct str label)
{
	if (label.len && is_digits(label, false))
		return true;
	return str_has_prefix(label, STR("0x")) && is_digits(str_make(label.p + 2, label.len - 2), true);
}

int hostname_parse(struct str s, char ret[HOSTNAME_SIZE])
{
	char name[HOSTNAME_SIZE];
	size_t label = 0;

	if (s.len && s.p[s.len - 1] == '.')
		s.len--;
	if (s.len == 0 || s.len > HOSTNAME_MAX)
		return -EINVAL;
	for (size_t i = 0; i < s.len; i++) {
		name[i] = s.p[i] == '.' ? '.' : name_byte(s.p[i]);
		if (name[i] == 0)
			return -EINVAL;
		if (name[i] == '.') {
			if (i == label)
				return -EINVAL;
			label = i + 1;
		}
		if (i + 1 - label > 63)
			return -EINVAL;
	}
	if (label == s.len || is_number(str_make(name + label, s.len - label)))
		return -EINVAL;
	memcpy(ret, name, s.len);
	ret[s.len] = '\0';
	return 0;
}

bool hostname_is_canonical(struct str s)
{
	char name[HOSTNAME_SIZE];
	return hostname_parse(s, name) == 0 && str_eq(str_of(name), s);
}

bool hostname_in(struct str name, struct str suffix)
{
	return str_has_suffix(name, suffix) &&
	       (name.len == suffix.len || name.p[name.len - suffix.len - 1] == '.');
}

enum hostname_kind hostname_kind(struct str name)
{
	static const struct str special[] = {
		STR("local"),   STR("lan"),  STR("internal"),  STR("home.arpa"), STR("onion"),
		STR("invalid"), STR("arpa"), STR("use-application-dns.net"),
	};

	if (hostname_in(name, STR("localhost")))
		return HOSTNAME_LOCALHOST;
	if (str_eq(name, STR("iron.internal")))
		return HOSTNAME_IRON;
	if (str_chr(name, '.') < 0)
		return HOSTNAME_SPECIAL;
	for (size_t i = 0; i < ARRAY_SIZE(special); i++)
		if (hostname_in(name, special[i]))
			return HOSTNAME_SPECIAL;
	return HOSTNAME_ORDINARY;
}

int host_parse(struct str s, struct host *ret)
{
	struct host h = {0};

	if (ip_parse(s, &h.ip) == 0)
		ip_format(&h.ip, h.name);
	else if (hostname_parse(s, h.name))
		return -EINVAL;
	*ret = h;
	return 0;
}

/* [IPv6], with *s moved past it. */
static int take_bracketed(struct str *s, struct host *ret)
{
	ptrdiff_t end = str_chr(*s, ']');
	if (end < 0)
		return -EINVAL;
	struct str inner = str_make(s->p + 1, (size_t)end - 1);
	if (str_chr(inner, ':') < 0 || host_parse(inner, ret))
		return -EINVAL;
	*s = str_make(s->p + end + 1, s->len - (size_t)end - 1);
	return 0;
}

static int take_unbracketed(struct str *s, struct host *ret)
{
	ptrdiff_t colon = str_chr(*s, ':');
	size_t n = colon < 0 ? s->len : (size_t)colon;

	if (host_parse(str_make(s->p, n), ret))
		return -EINVAL;
	*s = str_make(s->p + n, s->len - n);
	return 0;
}

int authority_parse(struct str s, struct host *ret_host, uint16_t *ret_port)
{
	struct host h;
	uint64_t port = 0;

	if (s.len == 0 || (s.p[0] == '[' ? take_bracketed(&s, &h) : take_unbracketed(&s, &h)))
		return -EINVAL;
	if (s.len) {
		if (s.p[0] != ':' || str_parse_u64(str_make(s.p + 1, s.len - 1), UINT16_MAX, &port) || port == 0)
			return -EINVAL;
	}
	*ret_host = h;
	*ret_port = (uint16_t)port;
	return 0;
}
