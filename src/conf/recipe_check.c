#include "conf/recipe_check.h"

#include <errno.h>

#include "codec/hostname.h"
#include "conf/recipe.h"

#define PATH_BYTES 1024

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_image_name(struct str s)
{
	if (s.len == 0 || s.len > RECIPE_NAME_MAX || s.p[0] == '-' || s.p[s.len - 1] == '-')
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '-')
			return false;
	return true;
}

bool recipe_is_name(struct str s)
{
	return is_image_name(s) && !str_eq(s, STR("base")) && !str_eq(s, STR("mini"));
}

bool recipe_is_from(struct str s)
{
	return is_image_name(s) && !str_eq(s, STR("mini"));
}

bool recipe_is_package(struct str s)
{
	if (s.len < 2 || s.len > 128 || (!is_lower(s.p[0]) && !is_digit(s.p[0])))
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '+' && s.p[i] != '-' && s.p[i] != '.')
			return false;
	return true;
}

/* Neither empty nor dots: "a//b", "a/", "./a", "a/..". */
static bool has_plain_parts(struct str s)
{
	struct str part;

	while (str_split(&s, '/', &part))
		if (part.len == 0 || part.len > 255 || str_eq(part, STR(".")) || str_eq(part, STR("..")))
			return false;
	return true;
}

bool recipe_is_path(struct str s)
{
	/* where what is written is gone at the next boot */
	static const char *const mounts[] = {"dev", "proc", "run", "sys"};

	if (s.len < 2 || s.len > PATH_BYTES || s.p[0] != '/' || s.p[s.len - 1] == ' ' || !str_is_printable_utf8(s))
		return false;
	const struct str rest = str_make(s.p + 1, s.len - 1);
	struct str tail = rest, first;
	str_split(&tail, '/', &first);
	for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++)
		if (str_eq(first, str_of(mounts[i])))
			return false;
	return has_plain_parts(rest);
}

bool recipe_is_source(struct str s)
{
	return s.len > 0 && s.len <= PATH_BYTES && s.p[0] != '/' && str_is_printable_utf8(s) && has_plain_parts(s);
}

static bool is_account(struct str s)
{
	if (s.len == 0 || s.len > 32 || (!is_lower(s.p[0]) && s.p[0] != '_'))
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '_' && s.p[i] != '-')
			return false;
	return true;
}

bool recipe_is_owner(struct str s)
{
	struct str user;

	return str_split(&s, ':', &user) && is_account(user) && (!s.p || is_account(s));
}

bool recipe_is_host(struct str s)
{
	struct host h;

	if (str_has_prefix(s, STR("*.")))
		s = str_make(s.p + 2, s.len - 2);
	return host_parse(s, &h) == 0;
}

int recipe_mode_parse(struct str s, uint32_t *ret)
{
	uint32_t mode = 0;

	if (s.len < 3 || s.len > 4)
		return -EINVAL;
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] < '0' || s.p[i] > '7')
			return -EINVAL;
		mode = mode << 3 | (uint32_t)(s.p[i] - '0');
	}
	*ret = mode;
	return 0;
}
