#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/recipe.h"

static struct recipe *parse(const char *text)
{
	struct recipe *r = NULL;
	struct error e = {0};

	if (recipe_parse("r.yaml", str_of(text), -1, &r, &e) < 0)
		fail_msg("%s", e.text);
	return r;
}

static void a_whole_recipe(void **state)
{
	struct recipe *r = parse("name: tools\n"
				 "from: base\n"
				 "packages: [jq, libstdc++6]\n"
				 "files:\n"
				 "  - path: /etc/app.conf\n"
				 "    mode: 0640\n"
				 "    owner: root:adm\n"
				 "    content: |\n"
				 "      a: b\n"
				 "  - {path: /opt/empty, content: \"\", owner: agent}\n"
				 "scripts:\n"
				 "  - run: |\n"
				 "      echo one\n"
				 "egress: [packages.example.com, \"*.example.com\", 192.0.2.7]\n"
				 "disk_gib: 8\n"
				 "vcpus: 2\n"
				 "memory_mib: 2048\n"
				 "timeout_s: 60\n");

	assert_string_equal(r->name, "tools");
	assert_string_equal(r->from, "base");
	assert_int_equal(r->packages.n, 2);
	assert_string_equal(r->packages.v[1], "libstdc++6");
	assert_int_equal(r->files.n, 2);
	assert_string_equal(r->files.v[0].path, "/etc/app.conf");
	assert_int_equal(r->files.v[0].mode, 0640);
	assert_string_equal(r->files.v[0].group, "adm");
	assert_memory_equal(r->files.v[0].content.data, "a: b\n", 5);
	assert_string_equal(r->files.v[1].user, "agent");
	assert_string_equal(r->files.v[1].group, "agent");
	assert_int_equal(r->files.v[1].content.len, 0);
	assert_int_equal(r->files.v[1].mode, 0644);
	assert_int_equal(r->scripts.n, 1);
	assert_int_equal(r->egress.n, 3);
	assert_int_equal(r->disk_gib, 8);
	assert_int_equal(r->timeout_s, 60);
	recipe_destroy(r);
}

static void what_is_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"", "r.yaml:1: it is empty"},
		{"- a\n", "r.yaml:1: expected `key: value` lines"},
		{"name: x\npackages: [jq]\npakages: [jq]\n", "r.yaml:3: unknown key 'pakages'"},
		{"name: x\npackages: [jq]\nname: y\n", "r.yaml:3: the same key twice"},
		{"name: x\nfiles:\n  - path: /a\n    content: x\n    owners: root\n", "r.yaml:5: unknown key 'files[0].owners'"},
		{"name: x\n\"na\\e\": 1\n", "unknown key '?'"},
		{"packages: [jq]\n", "a recipe needs a name"},
		{"name: base\npackages: [jq]\n", "r.yaml:1: name: expected"},
		{"name: ../x\npackages: [jq]\n", "name: expected"},
		{"name: .hidden\npackages: [jq]\n", "name: expected"},
		{"name: \"a\\0b\"\npackages: [jq]\n", "NUL"},
		{"name: [a]\npackages: [jq]\n", "name: expected a text"},
		{"name: x\n", "nothing is added"},
		{"name: x\nfrom: mini\npackages: [jq]\n", "r.yaml:2: from: expected"},
		{"name: x\nfrom: x\nscripts: [{run: a}]\n", "from itself"},
		{"name: x\nfrom: y\npackages: [jq]\n", "packages go in only"},
		{"name: x\npackages: [--allow-unauthenticated]\n", "packages[0]: expected the name of a Debian package"},
		{"name: x\npackages: [\"jq vim\"]\n", "packages[0]"},
		{"name: x\npackages: jq\n", "packages: expected a list"},
		{"name: x\negress: [packages.example.com]\npackages: [jq]\n", "there is no script"},
		{"name: x\nscripts: [{run: a}]\negress: [\"*\"]\n", "egress[0]: expected a host name"},
		{"name: x\nscripts: [{run: a}]\negress: [\"http://x.org/\"]\n", "egress[0]: expected a host name"},
		{"name: x\nscripts: [{run: \"\"}]\n", "something in it"},
		{"name: x\nscripts: [{run: a, source: b}]\n", "either run or source"},
		{"name: x\nfiles: [{path: /a}]\n", "content or source"},
		{"name: x\nfiles: [{content: a}]\n", "needs a path"},
		{"name: x\nfiles: [{path: a, content: a}]\n", "files[0].path: expected an absolute path"},
		{"name: x\nfiles: [{path: /a/../b, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: /a/./b, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: /a//b, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: /a/, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: /, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: \"/a\\nb\", content: a}]\n", "not '/a\\x0ab'"},
		{"name: x\nfiles: [{path: /proc/a, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: /run/a, content: a}]\n", "files[0].path"},
		{"name: x\nfiles: [{path: /a, content: a}, {path: /a, content: b}]\n", "files[1]: the same path twice"},
		{"name: x\nfiles: [{path: /a, content: a, mode: 0888}]\n", "files[0].mode: expected three or four octal"},
		{"name: x\nfiles: [{path: /a, content: a, mode: 17777}]\n", "files[0].mode"},
		{"name: x\nfiles: [{path: /a, content: a, owner: \"a b\"}]\n", "files[0].owner"},
		{"name: x\nfiles: [{path: /a, content: a, owner: \"a:\"}]\n", "files[0].owner"},
		{"name: x\nfiles: [{path: /a, content: a, owner: \"a:b:c\"}]\n", "files[0].owner"},
		{"name: x\nfiles: [{path: /a, source: ../../etc/shadow}]\n", "files[0].source: expected a relative path"},
		{"name: x\nfiles: [{path: /a, source: /etc/shadow}]\n", "files[0].source"},
		{"name: x\npackages: [jq]\ndisk_gib: 65\n", "r.yaml:3: disk_gib: expected a number from 4 to 64"},
		{"name: x\npackages: [jq]\ndisk_gib: -4\n", "disk_gib"},
		{"name: x\npackages: [jq]\nvcpus: many\n", "vcpus"},
		{"name: x\npackages: [jq\n", "r.yaml:3: not YAML"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct recipe *r = NULL;
		struct error e = {0};
		int code = recipe_parse("r.yaml", str_of(bad[i].text), -1, &r, &e);
		if (code != -EINVAL || r || !strstr(e.text, bad[i].says))
			fail_msg("case %zu: %d '%s', expected '%s'", i, code, e.text, bad[i].says);
	}
}

static void too_much(void **state)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct recipe *r = NULL;
	struct error e = {0};

	buf_append_z(&text, "name: x\npackages: [");
	for (int i = 0; i < 257; i++)
		buf_printf(&text, "p%d,", i);
	buf_append_z(&text, "]\n");
	assert_int_equal(recipe_parse("r.yaml", buf_str(&text), -1, &r, &e), -EINVAL);
	assert_non_null(strstr(e.text, "more than 256"));
	buf_clear(&text);
	buf_append_z(&text, "name: x\nfiles: [{path: /a, content: \"");
	while (text.len <= RECIPE_MAX_BYTES)
		buf_append_z(&text, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	buf_append_z(&text, "\"}]\n");
	e = (struct error){0};
	assert_int_equal(recipe_parse("r.yaml", buf_str(&text), -1, &r, &e), -EFBIG);
	/* aliases do not multiply: what they stand for is counted each time */
	e = (struct error){0};
	const char *nested = "name: x\nfiles: &f [*f]\n";
	assert_int_equal(recipe_parse("r.yaml", str_of(nested), -1, &r, &e), -EINVAL);
	assert_null(r);
}

struct place {
	char dir[64];
};

static void put(const struct place *p, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", p->dir, name);
	_cleanup_fclose_ FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
}

static int load(const struct place *p, const char *source, struct recipe **ret, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/r.yaml", p->dir);
	_cleanup_free_ char *text = xasprintf("name: x\nfiles: [{path: /a, source: %s}]\n", source);

	put(p, "r.yaml", text);
	*reterr = (struct error){0};
	return recipe_load(path, NULL, ret, reterr);
}

static void sources_stay_below(void **state)
{
	struct place p;
	struct recipe *r = NULL;
	struct error e;
	struct stat st;

	snprintf(p.dir, sizeof p.dir, "/tmp/iron-test-recipe-XXXXXX");
	assert_non_null(mkdtemp(p.dir));
	int dir = open(p.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(mkdirat(dir, "sub", 0755) == 0);
	put(&p, "sub/inside", "hello");
	assert_true(symlinkat("sub/inside", dir, "good") == 0 && symlinkat("/etc/passwd", dir, "absolute") == 0 &&
		    symlinkat("../../etc/passwd", dir, "upward") == 0 && symlinkat("/etc", dir, "out") == 0 &&
		    mkfifoat(dir, "fifo", 0600) == 0);
	assert_int_equal(load(&p, "sub/inside", &r, &e), 0);
	assert_memory_equal(r->files.v[0].content.data, "hello", 5);
	assert_string_equal(r->files.v[0].source, "sub/inside");
	recipe_destroy(take_ptr(r));
	assert_int_equal(load(&p, "good", &r, &e), 0);
	recipe_destroy(take_ptr(r));
	static const char *const bad[] = {"absolute", "upward", "out/passwd", "fifo", "sub", "absent"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (load(&p, bad[i], &r, &e) != -EINVAL || r)
			fail_msg("%s is read", bad[i]);
	/* huge, and sparse so that it costs nothing to say so */
	int big = openat(dir, "big", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(ftruncate(big, (off_t)RECIPE_FILE_MAX_BYTES + 1) == 0 && fstat(big, &st) == 0);
	close(big);
	assert_int_equal(load(&p, "big", &r, &e), -EFBIG);
	assert_non_null(strstr(e.text, "too large"));
	/* the recipe itself is a file too */
	_cleanup_free_ char *fifo = xasprintf("%s/fifo", p.dir);
	assert_int_equal(recipe_load(fifo, NULL, &r, &e), -EINVAL);
	static const char *const names[] = {"sub/inside", "good", "absolute", "upward", "out", "fifo", "big", "r.yaml"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(unlinkat(dir, names[i], 0), 0);
	assert_int_equal(unlinkat(dir, "sub", AT_REMOVEDIR), 0);
	close(dir);
	assert_int_equal(rmdir(p.dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_recipe),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(too_much),
		cmocka_unit_test(sources_stay_below),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
