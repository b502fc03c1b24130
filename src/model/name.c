#include "model/name.h"

#include <errno.h>

#include "base/text.h"

bool name_is_like_id(struct str s)
{
	static const char *const prefixes[] = {"vm_",  "egr_", "ee_",  "sec_", "snap_", "img_",	 "usr_",
					       "ws_",  "key_", "pub_", "ses_", "agt_",	"exec_", "op_"};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (str_has_prefix(s, str_of(prefixes[i])))
			return true;
	return false;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

int vm_name_check(const char *field, struct str s, struct error *reterr)
{
	bool ok = s.len >= 1 && s.len <= 63 && is_alnum(s.p[0]) && is_alnum(s.p[s.len - 1]);

	for (size_t i = 0; ok && i < s.len; i++)
		ok = is_alnum(s.p[i]) || s.p[i] == '-';
	if (!ok)
		return error_set(reterr, -EINVAL,
		                 "%s must be 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
		                 field);
	return 0;
}

int text_check(const char *field, struct str s, size_t max, struct error *reterr)
{
	if (s.len > max)
		return error_set(reterr, -EINVAL, "%s must be at most %zu bytes, not %zu", field, max, s.len);
	if (!str_is_printable_utf8(s))
		return error_set(reterr, -EINVAL, "%s must be UTF-8 without control characters", field);
	return 0;
}

int object_name_check(const char *field, struct str s, struct error *reterr)
{
	if (s.len == 0)
		return error_set(reterr, -EINVAL, "%s must not be empty", field);
	int r = text_check(field, s, 63, reterr);
	if (r)
		return r;
	if (s.p[0] == ' ' || s.p[s.len - 1] == ' ')
		return error_set(reterr, -EINVAL, "%s must not begin or end with a space", field);
	if (name_is_like_id(s))
		return error_set(reterr, -EINVAL, "%s must not begin like an id (vm_, egr_, key_ ...)", field);
	return 0;
}

int label_parse(struct str s, struct str *ret_key, struct str *ret_value, struct error *reterr)
{
	ptrdiff_t eq = str_chr(s, '=');

	if (eq <= 0)
		return error_set(reterr, -EINVAL, "labels must be KEY=VALUE with a key that is not empty");
	struct str key = {s.p, (size_t)eq}, value = {s.p + eq + 1, s.len - (size_t)eq - 1};
	int r = text_check("labels: a key", key, LABEL_KEY_MAX, reterr);
	if (r == 0)
		r = text_check("labels: a value", value, LABEL_VALUE_MAX, reterr);
	if (r)
		return r;
	*ret_key = key;
	*ret_value = value;
	return 0;
}

/* The blob begins with the type's name as an SSH string (RFC 4253, 6.6), so a type that was typed over is noticed. */
static bool blob_names(struct str blob, struct str type)
{
	if (blob.len < 4 + type.len)
		return false;
	const uint8_t *b = (const uint8_t *)blob.p;
	uint32_t n = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
	return n == type.len && memcmp(b + 4, type.p, type.len) == 0;
}

int public_key_check(const char *field, struct str s, struct error *reterr)
{
	static const char *const types[] = {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
					    "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com",
					    "sk-ecdsa-sha2-nistp256@openssh.com"};
	_cleanup_(buf_finish) struct buf blob = {.max = 16384};
	struct str rest = s, type, base64;

	int r = text_check(field, s, 16384, reterr);
	if (r)
		return r;
	if (str_split(&rest, ' ', &type) && str_split(&rest, ' ', &base64))
		for (size_t i = 0; i < ARRAY_SIZE(types); i++)
			if (str_eq(type, str_of(types[i])) && base64_decode(base64, &blob) == 0 &&
			    blob_names(buf_str(&blob), type))
				return 0;
	return error_set(reterr, -EINVAL,
	                 "%s must be one OpenSSH public key line without options, as in id_ed25519.pub", field);
}
