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
static int list(struct str archive, size_t step, struct buf *out)
{
	struct tar_reader r;
	struct tar_entry e;
	struct str in = str_make(archive.p, 0), data;
	size_t have = 0;
	int event;

	tar_reader_init(&r);
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
		assert_int_equal(list(buf_str(&b), step, &text), TAR_END);
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

/* A pax header with this text before a file. */
static int with_pax(const char *pax, char type, struct buf *text)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct tar_entry e = {.kind = TAR_FILE, .name = STR("x")};
	unsigned sum = 0;

	add(&b, e, str_of(pax));
	b.data[156] = (uint8_t)type;
	memset(b.data + 148, ' ', 8);
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += b.data[i];
	snprintf((char *)b.data + 148, 7, "%06o", sum);
	add(&b, (struct tar_entry){.kind = TAR_FILE, .name = STR("plain")}, STR("12345"));
	tar_write_end(&b);
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
	assert_int_equal(with_pax("13 path=name\n", 'g', &text), TAR_END);
	assert_true(str_eq(buf_str(&text), STR("1 plain> 5 0 0 :12345")));
	static const char *const bad[] = {"13 path=nam\n",     "14 path=name\n", "13 path=name",        "x path=n\n",
					  "7 path\n",          "8 path=\n",      "8 =value\n",          "0 path=name\n",
					  "99999 path=name\n", "12 size=-1\n",   "27 GNU.sparse.size=12345\n"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(with_pax(bad[i], 'x', &text), -EBADMSG);
	assert_int_equal(with_pax("data", 'S', &text), -EBADMSG);
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
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_links),
	};
	return cmocka_run_group_tests_name("tar", tests, NULL, NULL);
}
