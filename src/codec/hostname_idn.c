#include <errno.h>
#include <idn2.h>

#include "base/cleanup.h"
#include "codec/hostname.h"

/* Longest text worth converting: 253 characters of at most 4 bytes, and a dot. */
#define IDN_TEXT_MAX (4 * HOSTNAME_MAX + 4)

static bool is_ascii(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return false;
	return true;
}

/* "xn--" labels in what is already ASCII stay as they are: they are compared as bytes, never shown decoded. */
int hostname_parse_idn(struct str s, char ret[HOSTNAME_SIZE])
{
	char text[IDN_TEXT_MAX + 1];
	char *ascii = NULL;

	if (is_ascii(s))
		return hostname_parse(s, ret);
	if (str_copy(s, text, sizeof text))
		return -EINVAL;
	/* Not IDN2_USE_STD3_ASCII_RULES: it drops what those rules refuse ("ü x.de" becomes "üx.de"). */
	if (idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return -EINVAL;
	int r = hostname_parse(str_of(ascii), ret);
	idn2_free(ascii);
	return r;
}
