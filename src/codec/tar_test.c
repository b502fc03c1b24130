#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/tar.h"

static void add(struct buf *b, struct tar_entry e, struct str data)
{
	static const char zeros[TAR_BLOCK];

	e.size = data.len;
	assert_int_equal(tar_write(&e, b), 0);
	buf_append_str(b, data);
	buf_append(b, zeros, tar_padding(data.len));
}

/* Reads the archive, `step` bytes more each time; a line for each entry. */
static int list_as(bool strict, struct str archive, size_t step, struct buf *out)
{
	struct tar_reader r;
	struct tar_entry e;
	struct str in = str_make(archive.p, 0), data;
	size_t have = 0;
	int event;

	tar_reader_init(&r);
	r.strict = strict;
	for (;;) {
		event = tar_read(&r, &in, &e, &data);
		if (event < 0 || event == TAR_END)
			break;
		if (event == TAR_ENTRY)
			buf_printf(out, "%d %.*s>%.*s %llu %o %lld %.*s:", e.kind, STR_ARG(e.name), STR_ARG(e.target),
				   (unsigned long long)e.size, e.mode, (long long)e.mtime, STR_ARG(e.user));
		if (event == TAR_DATA)
			buf_append_str(out, data);
		if (event)
			continue;
		if (have == archive.len)
			break;
		size_t more = MIN(step, archive.len - have);
		have += more;
		in.len += more;
	}
	tar_reader_finish(&r);
	return event;
}

static int list(struct str archive, size_t step, struct buf *out)
{
	return list_as(false, archive, step, out);
}

static void test_round_trip_in_any_pieces(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char longer[301] = {0};
	char expected[1024];

	memset(longer, 'n', 300);
	add(&b, (struct tar_entry){.kind = TAR_DIRECTORY, .name = STR("d/"), .mode = 0755, .mtime = 7, .user = STR("me")},
	    STR_NONE);
	add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("d/f"), .mode = 0640}, STR("hello"));
	add(&b, (struct tar_entry){.kind = TAR_FILE, .name = str_of(longer)}, STR("x"));
	add(&b, (struct tar_entry){.kind = TAR_LINK, .name = STR("l"), .target = str_of(longer)}, STR_NONE);
	add(&b, (struct tar_entry){.kind = TAR_HARD_LINK, .name = STR("h"), .target = STR("d/f")}, STR_NONE);
	assert_int_equal(tar_write_end(&b), 0);
	assert_int_equal(b.len % TAR_BLOCK, 0);
	snprintf(expected, sizeof expected,
		 "2 d/> 0 755 7 me:1 d/f> 5 640 0 :hello1 %s> 1 0 0 :x3 l>%s 0 0 0 :4 h>d/f 0 0 0 :", longer, longer);
	for (size_t step = 1; step < 3000; step += 97) {
		_cleanup_(buf_finish) struct buf text = {0};
		assert_int_equal(list_as(step % 2, buf_str(&b), step, &text), TAR_END);
		assert_true(str_eq(buf_str(&text), str_of(expected)));
	}
}

static void test_cut_asks_for_more(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};

	add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("f")}, STR("data"));
	tar_write_end(&b);
	for (size_t n = 0; n < b.len; n++) {
		_cleanup_(buf_finish) struct buf text = {0};
		assert_int_equal(list(str_make(b.data, n), 512, &text), 0);
	}
}

static void test_not_archives(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0}, text = {0};

	add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("f")}, STR("data"));
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		b.data[i] ^= 0x15;
		assert_int_equal(list(str_make(b.data, TAR_BLOCK), 512, &text), -EBADMSG);
		b.data[i] ^= 0x15;
	}
	assert_int_equal(list(str_make(b.data, TAR_BLOCK), 512, &text), 0);
}

/* Something of the first header is said otherwise. */
static void put(uint8_t *header, size_t at, const char *bytes, size_t n)
{
	unsigned sum = 0;

	memcpy(header + at, bytes, n);
	memset(header + 148, ' ', 8);
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += header[i];
	snprintf((char *)header + 148, 7, "%06o", sum);
}

/* A header of that type, and what is behind it. */
static void add_as(struct buf *b, char type, const char *name, struct str data)
{
	size_t at = b->len;

	add(b, (struct tar_entry){.kind = TAR_FILE, .name = str_of(name)}, data);
	put(b->data + at, 156, &type, 1);
}

/* A pax header with this text before a file. */
static int with_pax(const char *pax, char type, struct buf *text)
{
	_cleanup_(buf_finish) struct buf b = {0}, strictly = {0};

	add_as(&b, type, "x", str_of(pax));
	add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("plain")}, STR("12345"));
	tar_write_end(&b);
	assert_int_equal(list_as(true, buf_str(&b), 512, &strictly), -EBADMSG); /* none of these is tar_write's own */
	return list(buf_str(&b), 512, text);
}

static void test_extended_headers(void **state)
{
	_cleanup_(buf_finish) struct buf text = {0};

	assert_int_equal(with_pax("13 path=name\n19 mtime=12345.678\n9 q=zzzz\n", 'x', &text), TAR_END);
	assert_true(str_eq(buf_str(&text), STR("1 name> 5 0 12345 :12345")));
	buf_clear(&text);
	assert_int_equal(with_pax("gnu-name", 'L', &text), TAR_END);
	assert_true(str_eq(buf_str(&text), STR("1 gnu-name> 5 0 0 :12345")));
	buf_clear(&text);
	assert_int_equal(with_pax("18 comment=of git\n", 'g', &text), TAR_END);
	assert_true(str_eq(buf_str(&text), STR("1 plain> 5 0 0 :12345")));
	static const char *const bad[] = {"13 path=nam\n",     "14 path=name\n", "13 path=name",        "x path=n\n",
					  "7 path\n",          "8 path=\n",      "8 =value\n",          "0 path=name\n",
					  "99999 path=name\n", "12 size=-1\n",   "27 GNU.sparse.size=12345\n"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(with_pax(bad[i], 'x', &text), -EBADMSG);
	assert_int_equal(with_pax("data", 'S', &text), -EBADMSG);
}

/* Two extended headers and an entry; how it is listed. */
static int after_two(const char *two, const char *first, const char *second, enum tar_kind kind, bool strict)
{
	_cleanup_(buf_finish) struct buf b = {0}, text = {0};
	struct str target = kind == TAR_LINK ? STR("t") : STR_NONE;

	add_as(&b, two[0], "x", str_of(first));
	add_as(&b, two[1], "x", str_of(second));
	add(&b, (struct tar_entry){.kind = kind, .name = STR("plain"), .target = target}, STR_NONE);
	tar_write_end(&b);
	return list_as(strict, buf_str(&b), 512, &text);
}

/* What Python, GNU tar and this reader would take for different things is none of them. */
static void test_two_meanings(void **state)
{
	static const struct {
		const char *two, *first, *second;
		enum tar_kind kind;
		int event;
	} cases[] = {
		{"xL", "19 path=../../evil\n", "safe", TAR_FILE, -EBADMSG},
		{"Lx", "safe", "19 path=../../evil\n", TAR_FILE, -EBADMSG},
		{"xK", "17 linkpath=/etc\n", "safe", TAR_LINK, -EBADMSG},
		{"Kx", "safe", "17 linkpath=/etc\n", TAR_LINK, -EBADMSG},
		{"xx", "19 path=../../evil\n", "13 path=safe\n", TAR_FILE, -EBADMSG},
		{"xx", "19 path=../../evil\n", "11 mtime=1\n", TAR_FILE, -EBADMSG},
		{"LL", "../../evil", "safe", TAR_FILE, -EBADMSG},
		{"gx", "19 path=../../evil\n", "13 path=safe\n", TAR_FILE, -EBADMSG},
		{"gx", "17 linkpath=/etc\n", "13 path=safe\n", TAR_LINK, -EBADMSG},
		{"gx", "12 size=512\n", "13 path=safe\n", TAR_FILE, -EBADMSG},
		{"xg", "13 path=safe\n", "11 mtime=1\n", TAR_FILE, -EBADMSG},
		{"xx", "13 path=safe\n19 path=../../evil\n", "11 mtime=1\n", TAR_FILE, -EBADMSG},
		{"gx", "11 mtime=1\n", "13 path=safe\n", TAR_FILE, TAR_END},
		{"KL", "safe", "safe", TAR_LINK, TAR_END},
		{"LK", "safe", "safe", TAR_LINK, TAR_END},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *two = cases[i].two, *first = cases[i].first, *second = cases[i].second;
		assert_int_equal(after_two(two, first, second, cases[i].kind, false), cases[i].event);
		assert_int_equal(after_two(two, first, second, cases[i].kind, true), -EBADMSG);
	}
}

static void test_names_twice_in_one_header(void **state)
{
	_cleanup_(buf_finish) struct buf text = {0};

	assert_int_equal(with_pax("13 path=safe\n19 path=../../evil\n", 'x', &text), -EBADMSG);
	assert_int_equal(with_pax("10 size=5\n10 size=5\n", 'x', &text), -EBADMSG);
}

/* An extended header that nothing follows. */
static void test_extended_before_the_end(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0}, text = {0};

	add_as(&b, 'x', "x", STR("13 path=safe\n"));
	tar_write_end(&b);
	assert_int_equal(list(buf_str(&b), 512, &text), -EBADMSG);
}

static void test_prefixes(void **state)
{
	for (int strict = 0; strict < 2; strict++) {
		_cleanup_(buf_finish) struct buf b = {0}, text = {0};
		add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("f")}, STR_NONE);
		tar_write_end(&b);
		put(b.data, 345, "a/b", 3);
		assert_int_equal(list_as(strict, buf_str(&b), 512, &text), strict ? -EBADMSG : TAR_END);
		if (!strict)
			assert_true(str_eq(buf_str(&text), STR("1 a/b/f> 0 0 0 :")));
		put(b.data, 257, "ustar  ", 8);
		assert_int_equal(list_as(strict, buf_str(&b), 512, &text), -EBADMSG);
		put(b.data, 257, "ustar\0\0\0", 8);
		assert_int_equal(list_as(strict, buf_str(&b), 512, &text), -EBADMSG);
		put(b.data, 345, "\0\0\0", 3);
		put(b.data, 257, "ustar  ", 8);
		assert_int_equal(list_as(strict, buf_str(&b), 512, &text), strict ? -EBADMSG : TAR_END);
	}
}

/* Headers in the body of what has none: of a directory, also of one from before ustar, and of links. */
static void test_bodies_of_no_file(void **state)
{
	static const char types[] = {'\0', '5', '1', '2'};

	for (size_t i = 0; i < sizeof types; i++) {
		_cleanup_(buf_finish) struct buf inner = {0}, b = {0}, text = {0};
		add_as(&inner, '3', "device", STR_NONE);
		add_as(&b, types[i], "d/", buf_str(&inner));
		put(b.data, 157, "t", 1);
		tar_write_end(&b);
		assert_int_equal(list(buf_str(&b), 512, &text), -EBADMSG);
		assert_int_equal(list_as(true, buf_str(&b), 512, &text), -EBADMSG);
		assert_int_equal(text.len, 0);
	}
}

/* What others write and means the same is still not what tar_write writes. */
static void test_strictly_own(void **state)
{
	static const struct {
		size_t at;
		const char *bytes;
		size_t n;
	} others[] = {
		{156, "7", 1},	     {156, "\0", 1},	    {156, "S", 1},		 {156, "L", 1},	    {156, "g", 1},
		{100, "000644 ", 8}, {108, "     0 ", 8}, {124, "\x80\0\0\0\0\0\0\0\0\0\0\4", 12}, {157, "t", 1},
		{329, "0000000", 8}, {500, "x", 1},	    {2, "x", 1},		 {518, "x", 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		_cleanup_(buf_finish) struct buf b = {0}, text = {0};
		add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("f"), .mode = 0644}, STR("data"));
		tar_write_end(&b);
		assert_int_equal(list_as(true, buf_str(&b), 512, &text), TAR_END);
		if (others[i].at < TAR_BLOCK)
			put(b.data, others[i].at, others[i].bytes, others[i].n);
		else
			b.data[others[i].at] = 'x';
		assert_int_equal(list_as(true, buf_str(&b), 512, &text), -EBADMSG);
	}
}

static void test_names(void **state)
{
	static const char *const bad[] = {"", "/", "/etc/passwd", "..", "a/..", "../a", "a/../b", "a/.."};
	char clean[TAR_NAME_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tar_name_clean(str_of(bad[i]), clean), -EINVAL);
	assert_int_equal(tar_name_clean(STR("a\0b"), clean), -EINVAL);
	assert_int_equal(tar_name_clean(STR("./a//b/./..c/"), clean), 0);
	assert_string_equal(clean, "a/b/..c");
	assert_int_equal(tar_name_clean(STR("./"), clean), 0);
	assert_string_equal(clean, "");
}

static void test_links(void **state)
{
	static const struct {
		const char *name, *target;
		bool out;
	} cases[] = {
		{"l", "f", false},       {"l", "d/f", false},      {"l", "/etc", true},      {"l", "..", true},
		{"d/l", "../f", false},  {"d/l", "../../f", true}, {"d/l", "..", false},     {"l", "d/..", true},
		{"d/l", "./../f", false}, {"d/e/l", "../../f", false}, {"l", "", true},      {"d/l", "../x/../y", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(tar_link_leads_out(cases[i].name, str_of(cases[i].target)), cases[i].out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip_in_any_pieces),
		cmocka_unit_test(test_cut_asks_for_more),
		cmocka_unit_test(test_not_archives),
		cmocka_unit_test(test_extended_headers),
		cmocka_unit_test(test_two_meanings),
		cmocka_unit_test(test_names_twice_in_one_header),
		cmocka_unit_test(test_extended_before_the_end),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_bodies_of_no_file),
		cmocka_unit_test(test_strictly_own),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_links),
	};
	return cmocka_run_group_tests_name("tar", tests, NULL, NULL);
}
