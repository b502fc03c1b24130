#include "api/archive.h"

#include <errno.h>

#define REST_MAX ((size_t)128 << 10) /* a piece and what is left of the one before */

void archive_init(struct archive *a, bool from_guest)
{
	*a = (struct archive){.rest = BUF_MAX(REST_MAX)};
	tar_reader_init(&a->reader);
	a->reader.strict = from_guest;
}

void archive_finish(struct archive *a)
{
	tar_reader_finish(&a->reader);
	buf_finish(&a->rest);
}

static int judge(const struct tar_entry *e, struct error *reterr)
{
	char name[TAR_NAME_MAX + 1], target[TAR_NAME_MAX + 1];
	struct str shown = {e->name.p, MIN(e->name.len, (size_t)200)};

	if (tar_name_clean(e->name, name))
		return error_set(reterr, -EPERM, "unsafe: %.*s: the name leads out of the archive's directory", STR_ARG(shown));
	if (e->kind == TAR_OTHER)
		return error_set(reterr, -EPERM, "unsafe: %.*s: neither a file, a directory nor a link", STR_ARG(shown));
	if ((e->kind == TAR_LINK && tar_link_leads_out(name, e->target)) ||
	    (e->kind == TAR_HARD_LINK && tar_name_clean(e->target, target)))
		return error_set(reterr, -EPERM, "unsafe: %.*s: a link that leads out of the archive's directory", STR_ARG(shown));
	return 0;
}

/* An extractor that is told to go on behind the end would find more entries there. */
static int only_zeros(struct str s, struct error *reterr)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i])
			return error_set(reterr, -EBADMSG, "bad_archive: there is something behind its end");
	return 0;
}

static int read_all(struct archive *a, struct str *in, struct error *reterr)
{
	struct tar_entry entry;
	struct str data;

	while (!a->ended) {
		int event = tar_read(&a->reader, in, &entry, &data);
		if (event == 0)
			return 0;
		if (event < 0)
			return error_set(reterr, -EBADMSG, "bad_archive: not a tar archive, or of a form that is not read here");
		int r = event == TAR_ENTRY ? judge(&entry, reterr) : 0;
		if (r)
			return r;
		a->ended = event == TAR_END;
	}
	int r = only_zeros(*in, reterr);
	in->len = 0;
	return r;
}

int archive_push(struct archive *a, struct str data, struct error *reterr)
{
	bool joined = a->rest.len > 0;

	if (joined && buf_append_str(&a->rest, data))
		return error_set(reterr, -EBADMSG, "bad_archive: it cannot be read");
	struct str in = joined ? buf_str(&a->rest) : data;
	int r = read_all(a, &in, reterr);
	if (r)
		return r;
	if (joined)
		buf_consume(&a->rest, a->rest.len - in.len);
	else if (in.len && buf_append_str(&a->rest, in))
		return error_set(reterr, -EBADMSG, "bad_archive: it cannot be read");
	return 0;
}

bool archive_is_whole(const struct archive *a)
{
	return a->ended;
}
