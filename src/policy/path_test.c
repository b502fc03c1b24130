#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "policy/path.h"

struct path_case {
	const char *pattern, *path;
	bool allow, deny;
};

static void check(const struct path_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct path p = path_examine(str_of(cases[i].path));
		if (path_allow_matches(str_of(cases[i].pattern), &p) != cases[i].allow)
			fail_msg("allow %s, %s", cases[i].pattern, cases[i].path);
		if (path_deny_matches(str_of(cases[i].pattern), &p) != cases[i].deny)
			fail_msg("deny %s, %s", cases[i].pattern, cases[i].path);
	}
}

/* Where there is nothing to disagree about, allow and deny agree. */
static void test_plain(void **state)
{
	static const struct path_case cases[] = {
		{"/", "/", true, true},
		{"/", "/x", false, false},
		{"/x", "/x", true, true},
		{"/x", "/xy", false, false},
		{"/x", "/", false, false},
		{"/x/*", "/x", true, true},
		{"/x/*", "/x/", true, true},
		{"/x/*", "/x/y", true, true},
		{"/x/*", "/x/y/z", true, true},
		{"/x/*", "/xy", false, false},
		{"/x/*", "/y", false, false},
		{"/*", "/", true, true},
		{"/*", "/x/y", true, true},
		{"/x/*/z", "/x/y/z", true, true},
		{"/x/*/z", "/x//z", false, true}, /* merged it is "/x/z" */
		{"/x/*/z", "/x/y/y/z", false, false},
		{"/x*", "/x", true, true},
		{"/x*", "/xyz", true, true},
		{"/x*", "/xyz/w", false, false},
		{"/*.git/info", "/repo.git/info", true, true},
		{"/*.git/info", "/a.git.git/info", true, true},
		{"/*.git/info", "/repo.gitx/info", false, false},
		{"/a*b*c", "/aXbXbc", true, true},
		{"/a*b*c", "/aXbXbcd", false, false},
		{"/*a/*b/*", "/xa/yb/z/w", true, true},
		{"/*a/*b/*", "/xa/yb", true, true},
		{"/*a/*b/*", "/xa/yc", false, false},
		{"/repos/*/pulls/*", "/repos/a/pulls", true, true},
		{"/repos/*/pulls/*", "/repos/a/b/pulls", false, false},
		{"/%2A", "/*", true, true},
		{"/%2A", "/x", false, false},
		{"/x%20y", "/x%20y", true, true},
		{"/x y", "/x%20y", true, true},
		{"/b\xc3\xbc", "/b%C3%BC", true, true},
		{"/b%c3%bc", "/b%C3%BC", true, true},
	};
	check(cases, ARRAY_SIZE(cases));
}

/* Spellings of the same thing. */
static void test_escapes(void **state)
{
	static const struct path_case cases[] = {
		{"/admin", "/%61dmin", true, true},
		{"/admin", "/%61%64%6D%69%6e", true, true},
		{"/%61dmin", "/admin", true, true},
		{"/a-b", "/a%2Db", true, true},
		/* a separator to some: an allow must hold for both, a deny for one */
		{"/a/b", "/a%2Fb", false, true},
		{"/a%2Fb", "/a%2fb", true, true},
		{"/a%2Fb", "/a/b", false, true},
		{"/a/*", "/a%2Fb", false, true},
		{"/projects/*", "/projects/group%2Fname/issues", true, true},
		{"/projects/*/issues", "/projects/group%2Fname/issues", false, true},
		{"/projects/group%2Fname/issues", "/projects/group%2Fname/issues", true, true},
		{"/@scope%2fpkg", "/@scope%2Fpkg", true, true},
		{"/@scope/*", "/@scope%2Fpkg", false, true},
		/* empty segments */
		{"/admin", "//admin", false, true},
		{"/admin/x", "/admin//x", false, true},
		{"/web/*", "/web/https://x.com/", true, true},
		{"/a/b", "/a%2F/b", false, true},
		{"/a/b", "/a/%2Fb", false, true},
		{"/x", "/;a/x", false, true},
		/* parameters */
		{"/admin", "/admin;v=1", false, true},
		{"/admin/x", "/admin;v=1/x", false, true},
		{"/admin/x", "/admin%3Bv=1/x", false, true},
		{"/admin;v=1", "/admin;v=1", true, true},
		{"/admin;v=1", "/admin;v=2", false, true},
		{"/admin/*", "/admin/x;v=1", true, true},
		{"/admin", "/;/admin", false, true},
		{"/a/c", "/a;x%2Fb/c", false, true}, /* to one the parameter ends at %2F, to another it goes on */
		/* a slash at the end, and case */
		{"/admin", "/admin/", false, true},
		{"/admin/", "/admin", false, true},
		{"/admin", "/admin%2F", false, true},
		{"/admin", "/admin//", false, true},
		{"/admin", "/ADMIN", false, true},
		{"/Admin/*", "/aDMIN/x", false, true},
		{"/admin", "/%41dmin", false, true},
	};
	check(cases, ARRAY_SIZE(cases));
}

/* No allow but the one for everything, and every deny. */
static void test_dubious(void **state)
{
	static const char *const paths[] = {
	        "",
	        "*",
	        "x",
	        "/..",
	        "/.",
	        "/a/../b",
	        "/a/./b",
	        "/a/..",
	        "/%2e%2e/b",
	        "/.%2E/b",
	        "/a/%2e",
	        "/a%2F..%2Fb",
	        "/a/..%2Fb",
	        "/..;x/b",
	        "/.;/b",
	        "/%2e%2e;a=b/c",
	        "/...",
	        "/a/.. /b",
	        "/a/..%20/b",
	        "/ ",
	        "/%20/b",
	        "/a\\b",
	        "/a%5Cb",
	        "/a%5cb",
	        "/..\\b",
	        "/%",
	        "/%2",
	        "/%zz",
	        "/%2g",
	        "/a%",
	        "/%00",
	        "/a%0d%0a",
	        "/%7f",
	        "/%1b",
	        "/%252e%252e/b",
	        "/%252F",
	        "/%25%32%46",
	        "/%2561dmin",
	        "/\xff",
	        "/%ff",
	        "/%c0%af",
	        "/%c0%ae",
	        "/%e0%80%af",
	        "/%ed%a0%80",
	        "/%c2%80",
	        "/%u002e",
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct path p = path_examine(str_of(paths[i]));
		if (!p.dubious)
			fail_msg("%s is not dubious", paths[i]);
		assert_true(path_allow_matches(STR("/*"), &p));
		assert_false(path_allow_matches(STR("/a/*"), &p));
		assert_true(path_deny_matches(STR("/never/seen"), &p));
	}
	static char longest[8193];
	memset(longest, 'a', sizeof longest);
	longest[0] = '/';
	assert_true(path_examine(str_make(longest, 8193)).dubious);
	assert_false(path_examine(str_make(longest, 8192)).dubious);
}

static void test_not_dubious(void **state)
{
	static const char *const paths[] = {"/",         "/a..b",    "/..a",   "/.well-known/x", "/a.",
	                                    "/x/100%25", "/x%25zz",  "/a//b",  "/a;b",           "/%20x",
	                                    "/a+b",      "/a:b@c,d", "/~u/(x)"};
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (path_examine(str_of(paths[i])).dubious)
			fail_msg("%s is dubious", paths[i]);
}

static void test_patterns(void **state)
{
	static const char *const good[] = {"/",      "/*",   "/x",   "/x/*",       "/x/*/y", "/a*b*/*",
	                                   "/a%2Fb", "/a b", "/a;b", "/b\xc3\xbc", "/x/",    "/1*2*3*4*5*6*7*8*"};
	static const char *const bad[] = {"",        "x",     "*",       "x/*",    "/a?b",  "/a#b",
	                                  "/**",     "/a**b", "/a/../b", "/./x",   "/a//b", "/a\\b",
	                                  "/%zz",    "/%00",  "/\n",     "/%252e", "/\xff", "/1*2*3*4*5*6*7*8*9*",
	                                  "/a%2F/b", "/;x/y"};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (path_pattern_check(str_of(good[i]), NULL))
			fail_msg("%s is refused", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = {0};
		if (path_pattern_check(str_of(bad[i]), &e) != -EINVAL || !e.text[0])
			fail_msg("%s is taken", bad[i]);
	}
	static char longest[1025];
	memset(longest, 'a', sizeof longest);
	longest[0] = '/';
	assert_int_equal(path_pattern_check(str_make(longest, 1024), NULL), 0);
	assert_int_equal(path_pattern_check(str_make(longest, 1025), NULL), -EINVAL);
}

/* Whatever an allow and a deny of one pattern say of one path: what is allowed by it is denied by it too. A deny that
 * matched less than the allow of the same words would leave a gap. */
static void test_deny_covers_allow(void **state)
{
	static const char alphabet[] = {'/', 'a', '*', ';', '.', '%', '2', 'F', 'A'};
	char pattern[5], path[6];

	for (unsigned i = 0; i < 9 * 9 * 9 * 9; i++) {
		unsigned v = i;
		pattern[0] = '/';
		for (size_t k = 1; k < 5; k++, v /= 9)
			pattern[k] = alphabet[v % 9];
		if (path_pattern_check(str_make(pattern, 5), NULL))
			continue;
		for (unsigned j = 0; j < 9 * 9 * 9 * 9; j += 7) {
			v = j;
			path[0] = '/';
			for (size_t k = 1; k < 5; k++, v /= 9)
				path[k] = alphabet[v % 9];
			struct path p = path_examine(str_make(path, 5));
			if (path_allow_matches(str_make(pattern, 5), &p) &&
			    !path_deny_matches(str_make(pattern, 5), &p))
				fail_msg("%.5s %.5s", pattern, path);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_plain),    cmocka_unit_test(test_escapes),
	        cmocka_unit_test(test_dubious),  cmocka_unit_test(test_not_dubious),
	        cmocka_unit_test(test_patterns), cmocka_unit_test(test_deny_covers_allow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
