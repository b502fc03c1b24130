/* Any bytes, in pieces of any size: no fault, each turn takes something or asks for more, no more data than was
 * announced; a clean name has no part that leaves, and what can be written is read back, by a strict reader too, which
 * takes nothing that the other does not. */
#include <stdlib.h>

#include "codec/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_written(const struct tar_entry *e, bool strict)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct tar_reader r;
	struct tar_entry again;
	struct str none;

	if (tar_write(e, &b))
		return;
	tar_reader_init(&r);
	r.strict = strict;
	struct str in = buf_str(&b);
	if (tar_read(&r, &in, &again, &none) != TAR_ENTRY || again.kind != e->kind || again.size != e->size ||
	    !str_eq(again.name, e->name) || !str_eq(again.target, e->target) || in.len)
		abort();
	tar_reader_finish(&r);
}

static void check_name(struct str name)
{
	char clean[TAR_NAME_MAX + 1], twice[TAR_NAME_MAX + 1];

	if (tar_name_clean(name, clean) || clean[0] == '\0')
		return;
	if (clean[0] == '/' || strstr(clean, "//") || tar_name_clean(str_of(clean), twice) || strcmp(clean, twice) != 0)
		abort();
}

/* What looks like a header gets the sum that it should have: no fuzzer finds that. */
static void mend_sums(uint8_t *p, size_t n)
{
	for (; n >= TAR_BLOCK; p += TAR_BLOCK, n -= TAR_BLOCK) {
		unsigned sum = 0;
		if (memcmp(p + 257, "ustar", 5) != 0)
			continue;
		memset(p + 148, ' ', 8);
		for (size_t i = 0; i < TAR_BLOCK; i++)
			sum += p[i];
		for (size_t i = 6; i > 0; i--, sum >>= 3)
			p[147 + i] = (uint8_t)('0' + (sum & 7));
	}
}

/* How many entries there were. */
static unsigned read_all(const uint8_t *data, size_t size, bool strict);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *mended = malloc(size + 1);

	if (size)
		memcpy(mended, data, size);
	if (read_all(data, size, true) > read_all(data, size, false))
		abort();
	mend_sums(mended, size);
	if (read_all(mended, size, true) > read_all(mended, size, false))
		abort();
	free(mended);
	return 0;
}

static unsigned read_all(const uint8_t *data, size_t size, bool strict)
{
	unsigned entries = 0;
	size_t step = size ? 1 + data[0] * 7u : 1, have = 0;
	struct str in = str_make(data, 0), piece;
	struct tar_reader r;
	struct tar_entry e = {0};
	uint64_t left = 0;

	tar_reader_init(&r);
	r.strict = strict;
	for (;;) {
		size_t before = in.len;
		int event = tar_read(&r, &in, &e, &piece);
		if (event < 0 || event == TAR_END)
			break;
		if (event == TAR_DATA && (piece.len == 0 || piece.len > left))
			abort();
		if (event == TAR_DATA)
			left -= piece.len;
		if (event == TAR_ENTRY) {
			if (left || in.len >= before)
				abort();
			left = e.size;
			entries++;
			check_name(e.name);
			if (e.kind == TAR_LINK)
				tar_link_leads_out("a/b", e.target);
			check_written(&e, false);
			check_written(&e, true);
		}
		if (event == 0 && have == size)
			break;
		if (event == 0) {
			size_t more = MIN(step, size - have);
			have += more;
			in.len += more;
		}
	}
	tar_reader_finish(&r);
	return entries;
}
