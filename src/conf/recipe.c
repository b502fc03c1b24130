/* Theory of operation
 *
 * The text becomes a libyaml document, which is walked by tables: a key that a table does not have is refused with its line,
 * as is one that comes twice, so that no misspelt one is silently without effect. What a `source` names is opened beneath the
 * sources' directory by the kernel's own resolution (openat2), which neither `..` nor a link leads out of. */
#include "conf/recipe.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <yaml.h>

#include "base/text.h"
#include "conf/recipe_check.h"

#define MAX_LIST 256
#define DEFAULT_TIMEOUT_S 3600

struct walk {
	const char *name; /* of the recipe's file */
	yaml_document_t doc;
	int dir_fd;
	size_t total; /* bytes of files and scripts so far */
	struct recipe *r;
	struct error *reterr;
};

/* What is being read: "files[3].path". */
struct where {
	const yaml_node_t *node;
	char text[64];
};

static int fail(struct walk *w, const struct where *at, const char *what)
{
	return error_set(w->reterr, -EINVAL, "%s:%zu: %s%s%s", w->name, at->node->start_mark.line + 1, at->text,
			 at->text[0] ? ": " : "", what);
}

static struct where where_key(const struct where *parent, const char *key, const yaml_node_t *node)
{
	struct where at = {.node = node};

	snprintf(at.text, sizeof at.text, "%.40s%s%.20s", parent->text, parent->text[0] ? "." : "", key);
	return at;
}

static struct where where_item(const struct where *parent, size_t i, const yaml_node_t *node)
{
	struct where at = {.node = node};

	snprintf(at.text, sizeof at.text, "%.40s[%zu]", parent->text, i);
	return at;
}

/* --- values --- */

/* NUL cannot be in it: as text of C it would end there. */
static int get_text(struct walk *w, const struct where *at, struct str *ret)
{
	const yaml_node_t *n = at->node;

	if (n->type != YAML_SCALAR_NODE)
		return fail(w, at, "expected a text");
	*ret = str_make(n->data.scalar.value, n->data.scalar.length);
	return memchr(ret->p, '\0', ret->len) ? fail(w, at, "holds a NUL byte") : 0;
}

static int get_checked(struct walk *w, const struct where *at, bool (*check)(struct str), const char *expected, char **ret)
{
	_cleanup_(buf_finish) struct buf shown = {0};
	char reason[256];
	struct str s;

	int r = get_text(w, at, &s);
	if (r < 0)
		return r;
	if (check(s)) {
		free(*ret);
		*ret = str_dup(s);
		return 0;
	}
	escape_terminal(str_make(s.p, MIN(s.len, (size_t)60)), &shown);
	snprintf(reason, sizeof reason, "expected %s, not '%.*s'", expected, (int)MIN(shown.len, (size_t)80),
		 shown.len ? (char *)shown.data : "");
	return fail(w, at, reason);
}

static int get_number(struct walk *w, const struct where *at, uint32_t low, uint32_t high, uint32_t *ret)
{
	char reason[96];
	uint64_t v = 0;
	struct str s;

	int r = get_text(w, at, &s);
	if (r < 0)
		return r;
	if (str_parse_u64(s, high, &v) < 0 || v < low) {
		snprintf(reason, sizeof reason, "expected a number from %u to %u", low, high);
		return fail(w, at, reason);
	}
	*ret = (uint32_t)v;
	return 0;
}

static int count_bytes(struct walk *w, const struct where *at, size_t n, size_t most)
{
	if (n > most || n > RECIPE_TOTAL_MAX_BYTES - w->total) {
		fail(w, at, n > most ? "too large" : "too large together with what came before (32 MiB)");
		return -EFBIG;
	}
	w->total += n;
	return 0;
}

static int get_content(struct walk *w, const struct where *at, size_t most, struct buf *ret)
{
	struct str s;
	int r = get_text(w, at, &s);

	if (r == 0)
		r = count_bytes(w, at, s.len, most);
	buf_clear(ret);
	return r < 0 ? r : buf_append_str(ret, s);
}

static int read_all(int fd, size_t n, struct buf *ret)
{
	while (ret->len < n) {
		void *p = buf_reserve(ret, n - ret->len);
		ssize_t k = p ? read(fd, p, n - ret->len) : -1;
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO;
		buf_commit(ret, (size_t)k);
	}
	return 0;
}

/* source: a path that stays below the directory, whatever is a link in it. */
static int get_source(struct walk *w, const struct where *at, size_t most, char **ret_name, struct buf *ret)
{
	const struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
				     .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	char reason[160];
	struct stat st;

	int r = get_checked(w, at, recipe_is_source, "a relative path without ..", ret_name);
	if (r < 0)
		return r;
	if (w->dir_fd < 0)
		return fail(w, at, "there is no directory to read it from");
	_cleanup_close_ int fd = (int)syscall(SYS_openat2, w->dir_fd, *ret_name, &how, sizeof how);
	if (fd < 0 || fstat(fd, &st) < 0) {
		snprintf(reason, sizeof reason, "it cannot be read: %s",
			 errno == EXDEV ? "a link leads out of the recipe's directory" : strerror(errno));
		return fail(w, at, reason);
	}
	if (!S_ISREG(st.st_mode))
		return fail(w, at, "it is not a file");
	if ((r = count_bytes(w, at, (size_t)st.st_size, most)) < 0)
		return r;
	buf_clear(ret);
	if (read_all(fd, (size_t)st.st_size, ret) < 0)
		return fail(w, at, "it cannot be read whole");
	return 0;
}

/* --- mappings and lists --- */

struct key {
	const char *name;
	int (*read)(struct walk *w, const struct where *at, void *into);
};

static int read_mapping(struct walk *w, const struct where *at, const struct key *keys, size_t n, void *into)
{
	uint64_t seen = 0;

	if (at->node->type != YAML_MAPPING_NODE)
		return fail(w, at, "expected `key: value` lines");
	for (yaml_node_pair_t *p = at->node->data.mapping.pairs.start; p < at->node->data.mapping.pairs.top; p++) {
		const yaml_node_t *k = yaml_document_get_node(&w->doc, p->key);
		const char *text = k->type == YAML_SCALAR_NODE ? (const char *)k->data.scalar.value : "";
		struct where here = where_key(at, "", k), value;
		size_t i = 0;
		while (i < n && strcmp(keys[i].name, text) != 0)
			i++;
		if (i == n)
			return error_set(w->reterr, -EINVAL, "%s:%zu: unknown key '%s%s%.64s'; iron-recipe(5) lists them all",
					 w->name, k->start_mark.line + 1, at->text, at->text[0] ? "." : "",
					 str_is_printable_utf8(str_of(text)) ? text : "?");
		if (seen & 1ULL << i)
			return fail(w, &here, "the same key twice");
		seen |= 1ULL << i;
		value = where_key(at, keys[i].name, yaml_document_get_node(&w->doc, p->value));
		int r = keys[i].read(w, &value, into);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_list(struct walk *w, const struct where *at, int (*item)(struct walk *, const struct where *))
{
	const yaml_node_t *n = at->node;

	if (n->type != YAML_SEQUENCE_NODE)
		return fail(w, at, "expected a list");
	if (n->data.sequence.items.top - n->data.sequence.items.start > MAX_LIST)
		return fail(w, at, "more than 256 entries");
	for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
		struct where here = where_item(at, (size_t)(i - n->data.sequence.items.start),
					       yaml_document_get_node(&w->doc, *i));
		int r = item(w, &here);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- files --- */

static int file_path(struct walk *w, const struct where *at, void *into)
{
	struct recipe_file *f = into;

	return get_checked(w, at, recipe_is_path, "an absolute path without . and .., not below /dev, /proc, /run or /sys",
			   &f->path);
}

static int file_mode(struct walk *w, const struct where *at, void *into)
{
	struct recipe_file *f = into;
	struct str s;

	int r = get_text(w, at, &s);
	return r < 0 ? r : recipe_mode_parse(s, &f->mode) < 0 ? fail(w, at, "expected three or four octal digits") : 0;
}

static int file_owner(struct walk *w, const struct where *at, void *into)
{
	_cleanup_free_ char *owner = NULL;
	struct recipe_file *f = into;
	struct str rest, user;

	int r = get_checked(w, at, recipe_is_owner, "USER or USER:GROUP", &owner);
	if (r < 0)
		return r;
	rest = str_of(owner);
	str_split(&rest, ':', &user);
	free(f->user);
	free(f->group);
	f->user = str_dup(user);
	f->group = str_dup(rest.p ? rest : user);
	return 0;
}

static int file_content(struct walk *w, const struct where *at, void *into)
{
	struct recipe_file *f = into;

	if (f->given)
		return fail(w, at, "either content or source, not both");
	f->given = true;
	return get_content(w, at, RECIPE_FILE_MAX_BYTES, &f->content);
}

static int file_source(struct walk *w, const struct where *at, void *into)
{
	struct recipe_file *f = into;

	if (f->given)
		return fail(w, at, "either content or source, not both");
	f->given = true;
	return get_source(w, at, RECIPE_FILE_MAX_BYTES, &f->source, &f->content);
}

static void file_finish(struct recipe_file *f)
{
	free(f->path);
	free(f->user);
	free(f->group);
	free(f->source);
	buf_finish(&f->content);
}

static int read_file(struct walk *w, const struct where *at)
{
	static const struct key keys[] = {{"path", file_path},
					  {"mode", file_mode},
					  {"owner", file_owner},
					  {"content", file_content},
					  {"source", file_source}};
	struct recipe_file f = {.mode = 0644, .user = xstrdup("root"), .group = xstrdup("root"),
				.content = BUF_MAX(RECIPE_FILE_MAX_BYTES + 1)};

	int r = read_mapping(w, at, keys, ARRAY_SIZE(keys), &f);
	if (r == 0 && !f.path)
		r = fail(w, at, "a file needs a path");
	if (r == 0 && !f.given)
		r = fail(w, at, "a file needs content or source");
	for (size_t i = 0; r == 0 && i < w->r->files.n; i++)
		if (strcmp(w->r->files.v[i].path, f.path) == 0)
			r = fail(w, at, "the same path twice");
	if (r < 0)
		file_finish(&f);
	else
		VEC_PUSH(&w->r->files, f);
	return r;
}

/* --- scripts --- */

static int script_run(struct walk *w, const struct where *at, void *into)
{
	struct recipe_script *s = into;

	return s->text.len ? fail(w, at, "either run or source, not both")
			   : get_content(w, at, RECIPE_MAX_BYTES, &s->text);
}

static int script_source(struct walk *w, const struct where *at, void *into)
{
	struct recipe_script *s = into;

	return s->text.len ? fail(w, at, "either run or source, not both")
			   : get_source(w, at, RECIPE_MAX_BYTES, &s->source, &s->text);
}

static void script_finish(struct recipe_script *s)
{
	free(s->source);
	buf_finish(&s->text);
}

static int read_script(struct walk *w, const struct where *at)
{
	static const struct key keys[] = {{"run", script_run}, {"source", script_source}};
	struct recipe_script s = {0};

	int r = read_mapping(w, at, keys, ARRAY_SIZE(keys), &s);
	if (r == 0 && s.text.len == 0)
		r = fail(w, at, "a script needs run or source, with something in it");
	if (r < 0)
		script_finish(&s);
	else
		VEC_PUSH(&w->r->scripts, s);
	return r;
}

/* --- the whole --- */

static int read_package(struct walk *w, const struct where *at)
{
	_cleanup_free_ char *name = NULL;
	int r = get_checked(w, at, recipe_is_package, "the name of a Debian package", &name);

	if (r == 0)
		VEC_PUSH(&w->r->packages, take_ptr(name));
	return r;
}

static int read_host(struct walk *w, const struct where *at)
{
	_cleanup_free_ char *host = NULL;
	int r = get_checked(w, at, recipe_is_host, "a host name, *.NAME, or an address", &host);

	if (r == 0)
		VEC_PUSH(&w->r->egress, take_ptr(host));
	return r;
}

#define LIST_READER(name, item)                                                                                        \
	static int top_##name(struct walk *w, const struct where *at, void *into)                                      \
	{                                                                                                              \
		return read_list(w, at, item);                                                                         \
	}
LIST_READER(packages, read_package)
LIST_READER(files, read_file)
LIST_READER(scripts, read_script)
LIST_READER(egress, read_host)

#define NUMBER_READER(name, low, high)                                                                                 \
	static int top_##name(struct walk *w, const struct where *at, void *into)                                      \
	{                                                                                                              \
		return get_number(w, at, low, high, &w->r->name);                                                      \
	}
NUMBER_READER(disk_gib, 4, RECIPE_MAX_DISK_GIB)
NUMBER_READER(vcpus, 1, 32)
NUMBER_READER(memory_mib, 256, 262144)
NUMBER_READER(timeout_s, 1, 86400)

static int top_name(struct walk *w, const struct where *at, void *into)
{
	return get_checked(w, at, recipe_is_name, "1 to 48 of a-z, 0-9 and -, other than base and mini", &w->r->name);
}

static int top_from(struct walk *w, const struct where *at, void *into)
{
	return get_checked(w, at, recipe_is_from, "base, or the name of an image that a recipe made", &w->r->from);
}

static int check_whole(struct walk *w, const struct where *at)
{
	const struct recipe *r = w->r;

	if (!r->name)
		return fail(w, at, "a recipe needs a name");
	if (strcmp(r->from, r->name) == 0)
		return fail(w, at, "an image cannot be made from itself");
	if (strcmp(r->from, "base") != 0 && r->packages.n)
		return fail(w, at, "packages go in only where it is from: base; name them in that image's recipe, or install "
				   "them by a script");
	if (r->egress.n && r->scripts.n == 0)
		return fail(w, at, "egress is what scripts may reach, and there is no script");
	if (r->packages.n + r->files.n + r->scripts.n == 0)
		return fail(w, at, "nothing is added: name packages, files or scripts");
	return 0;
}

static int read_top(struct walk *w)
{
	static const struct key keys[] = {{"name", top_name},
					  {"from", top_from},
					  {"packages", top_packages},
					  {"files", top_files},
					  {"scripts", top_scripts},
					  {"egress", top_egress},
					  {"disk_gib", top_disk_gib},
					  {"vcpus", top_vcpus},
					  {"memory_mib", top_memory_mib},
					  {"timeout_s", top_timeout_s}};
	const struct where at = {.node = yaml_document_get_root_node(&w->doc)};

	if (!at.node)
		return error_set(w->reterr, -EINVAL, "%s:1: it is empty; iron-recipe(5) has an example", w->name);
	int r = read_mapping(w, &at, keys, ARRAY_SIZE(keys), NULL);
	return r < 0 ? r : check_whole(w, &at);
}

static int document_load(struct walk *w, struct str text)
{
	yaml_parser_t parser;

	if (!yaml_parser_initialize(&parser))
		return error_set(w->reterr, -ENOMEM, "%s: out of memory", w->name);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.len);
	int r = yaml_parser_load(&parser, &w->doc)
			? 0
			: error_set(w->reterr, -EINVAL, "%s:%zu: not YAML: %s", w->name, parser.problem_mark.line + 1,
				    parser.problem ? parser.problem : "cannot be read");
	yaml_parser_delete(&parser);
	return r;
}

int recipe_parse(const char *name, struct str text, int dir_fd, struct recipe **ret, struct error *reterr)
{
	struct walk w = {.name = name, .dir_fd = dir_fd, .reterr = reterr};

	if (text.len > RECIPE_MAX_BYTES)
		return error_set(reterr, -EFBIG, "%s: larger than 1 MiB", name);
	int r = document_load(&w, text);
	if (r < 0)
		return r;
	w.r = xcalloc(1, sizeof *w.r);
	w.r->from = xstrdup("base");
	w.r->timeout_s = DEFAULT_TIMEOUT_S;
	buf_append_str(&w.r->text, text);
	r = read_top(&w);
	yaml_document_delete(&w.doc);
	if (r < 0)
		recipe_destroy(w.r);
	else
		*ret = w.r;
	return r;
}

static int open_sources(const char *path, const char *sources)
{
	_cleanup_free_ char *copy = xstrdup(path);
	int fd = open(sources ? sources : dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int recipe_load(const char *path, const char *sources, struct recipe **ret, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(RECIPE_MAX_BYTES);
	struct stat st;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(reterr, -EINVAL, "%s is not a file", path);
	if ((size_t)st.st_size > RECIPE_MAX_BYTES)
		return error_set(reterr, -EFBIG, "%s: larger than 1 MiB", path);
	_cleanup_close_ int dir = open_sources(path, sources);
	if (dir < 0 && dir != -ENOENT)
		return error_set(reterr, dir, "%s: its directory: %s", path, strerror(-dir));
	int r = read_all(fd, (size_t)st.st_size, &text);
	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	return recipe_parse(path, buf_str(&text), dir < 0 ? -1 : dir, ret, reterr);
}

void recipe_destroy(struct recipe *r)
{
	if (!r)
		return;
	free(r->name);
	free(r->from);
	for (size_t i = 0; i < r->packages.n; i++)
		free(r->packages.v[i]);
	for (size_t i = 0; i < r->egress.n; i++)
		free(r->egress.v[i]);
	for (size_t i = 0; i < r->files.n; i++)
		file_finish(&r->files.v[i]);
	for (size_t i = 0; i < r->scripts.n; i++)
		script_finish(&r->scripts.v[i]);
	VEC_FINISH(&r->packages);
	VEC_FINISH(&r->egress);
	VEC_FINISH(&r->files);
	VEC_FINISH(&r->scripts);
	buf_finish(&r->text);
	free(r);
}
