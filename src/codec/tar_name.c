/* What a name or a link in an archive may reach. */
#include <errno.h>

#include "codec/tar.h"

int tar_name_clean(struct str name, char ret[TAR_NAME_MAX + 1])
{
	char clean[TAR_NAME_MAX + 1];
	struct str part;
	size_t n = 0;

	if (name.len == 0 || name.len > TAR_NAME_MAX || name.p[0] == '/' || memchr(name.p, '\0', name.len))
		return -EINVAL;
	while (str_split(&name, '/', &part)) {
		if (str_eq(part, STR("..")))
			return -EINVAL;
		if (part.len == 0 || str_eq(part, STR(".")))
			continue;
		if (n)
			clean[n++] = '/';
		memcpy(clean + n, part.p, part.len);
		n += part.len;
	}
	clean[n] = '\0';
	memcpy(ret, clean, n + 1);
	return 0;
}

bool tar_link_leads_out(const char *name, struct str target)
{
	size_t above = 0;
	bool named = false;
	struct str part;

	for (const char *p = name; *p; p++)
		above += *p == '/';
	if (target.len == 0 || target.p[0] == '/' || memchr(target.p, '\0', target.len))
		return true;
	while (str_split(&target, '/', &part)) {
		if (part.len == 0 || str_eq(part, STR(".")))
			continue;
		if (!str_eq(part, STR(".."))) {
			named = true;
			continue;
		}
		if (named || above == 0)
			return true;
		above--;
	}
	return false;
}
