/* How a configuration is read. The text is loaded twice: as a libyaml document, which knows lines and which keys are
 * there, and by libcyaml into struct conf. Unknown keys are found in the document; what libcyaml refuses it places
 * itself. Keys that the document lacks are then taken from the defaults, which went through the same parser, and every
 * value is checked. */
#include "conf/conf.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <yaml.h>

#include "conf/conf_check.h"
#include "conf/conf_table.h"

#define TEXT_MAX ((size_t)1 << 20)

static const cyaml_schema_value_t string_entry = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, 4096)};

static const cyaml_schema_field_t shape_fields[] = {
	CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct conf_shape, name, 1, 63),
	CYAML_FIELD_UINT("vcpus", CYAML_FLAG_DEFAULT, struct conf_shape, vcpus),
	CYAML_FIELD_UINT("memory_mib", CYAML_FLAG_DEFAULT, struct conf_shape, memory_mib),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t shape_entry = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_shape, shape_fields)};

static const cyaml_schema_field_t private_fields[] = {
	CYAML_FIELD_STRING_PTR("cidr", CYAML_FLAG_POINTER, struct conf_private, cidr, 1, 49),
	CYAML_FIELD_SEQUENCE("hosts", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct conf_private, hosts, &string_entry, 0, 64),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t private_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_private, private_fields)};

#define F_str(S, name, lo, hi) CYAML_FIELD_STRING_PTR(#name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, S, name, lo, hi),
#define F_u32(S, name, lo, hi) CYAML_FIELD_UINT(#name, CYAML_FLAG_OPTIONAL, S, name),
#define F_flag(S, name, lo, hi) CYAML_FIELD_BOOL(#name, CYAML_FLAG_OPTIONAL, S, name),
#define F_strs(S, name, lo, hi)                                                                                        \
	CYAML_FIELD_SEQUENCE(#name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, S, name, &string_entry, lo, hi),
#define F_shapes(S, name, lo, hi)                                                                                      \
	CYAML_FIELD_SEQUENCE(#name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, S, name, &shape_entry, lo, hi),
#define F_privates(S, name, lo, hi)                                                                                    \
	CYAML_FIELD_SEQUENCE(#name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, S, name, &private_entry, lo, hi),

#define K_TOP(kind, sec, name, def, lo, hi, expected, doc) F_##kind(struct conf, name, lo, hi)
#define K_TLS(kind, sec, name, def, lo, hi, expected, doc) F_##kind(struct conf_tls, name, lo, hi)
#define K_EGRESS(kind, sec, name, def, lo, hi, expected, doc) F_##kind(struct conf_egress, name, lo, hi)
#define K_LIMITS(kind, sec, name, def, lo, hi, expected, doc) F_##kind(struct conf_limits, name, lo, hi)
#define K_AUDIT(kind, sec, name, def, lo, hi, expected, doc) F_##kind(struct conf_audit, name, lo, hi)

static const cyaml_schema_field_t tls_fields[] = {CONF_TLS(K_TLS) CYAML_FIELD_END};
static const cyaml_schema_field_t egress_fields[] = {CONF_EGRESS(K_EGRESS) CYAML_FIELD_END};
static const cyaml_schema_field_t limits_fields[] = {CONF_LIMITS(K_LIMITS) CYAML_FIELD_END};
static const cyaml_schema_field_t audit_fields[] = {CONF_AUDIT(K_AUDIT) CYAML_FIELD_END};
static const cyaml_schema_field_t top_fields[] = {
	CONF_TOP(K_TOP)
	CYAML_FIELD_MAPPING("tls", CYAML_FLAG_OPTIONAL, struct conf, tls, tls_fields),
	CYAML_FIELD_MAPPING("egress", CYAML_FLAG_OPTIONAL, struct conf, egress, egress_fields),
	CYAML_FIELD_MAPPING("limits", CYAML_FLAG_OPTIONAL, struct conf, limits, limits_fields),
	CYAML_FIELD_MAPPING("audit", CYAML_FLAG_OPTIONAL, struct conf, audit, audit_fields),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t top = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct conf, top_fields)};

#define SECTION_top ""
#define SECTION_tls "tls"
#define SECTION_egress "egress"
#define SECTION_limits "limits"
#define SECTION_audit "audit"
#define AT_top(name) offsetof(struct conf, name)
#define AT_tls(name) offsetof(struct conf, tls.name)
#define AT_egress(name) offsetof(struct conf, egress.name)
#define AT_limits(name) offsetof(struct conf, limits.name)
#define AT_audit(name) offsetof(struct conf, audit.name)
/* where a list's count is: the field <name>_count */
#define COUNT_str(sec, name) 0
#define COUNT_u32(sec, name) 0
#define COUNT_flag(sec, name) 0
#define COUNT_strs(sec, name) AT_##sec(name##_count)
#define COUNT_shapes(sec, name) AT_##sec(name##_count)
#define COUNT_privates(sec, name) AT_##sec(name##_count)
#define K_OPTION(kind_, sec, name_, def, lo, hi, expected_, doc_)                                                      \
	{.section = SECTION_##sec,                                                                                     \
	 .name = #name_,                                                                                               \
	 .kind = CONF_##kind_,                                                                                         \
	 .offset = AT_##sec(name_),                                                                                    \
	 .count_offset = COUNT_##kind_(sec, name_),                                                                    \
	 .low = (lo),                                                                                                  \
	 .high = (hi),                                                                                                 \
	 .fallback = (def),                                                                                            \
	 .expected = (expected_),                                                                                      \
	 .doc = (doc_)},
static const struct conf_option options[] = {CONF_TABLE(K_OPTION)};
static const char *const sections[] = {"tls", "egress", "limits", "audit"};

/* The value node of `key` in a mapping, or NULL. */
static yaml_node_t *node_get(yaml_document_t *doc, yaml_node_t *map, const char *key)
{
	if (!map || map->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		yaml_node_t *k = yaml_document_get_node(doc, p->key);
		if (k && k->type == YAML_SCALAR_NODE && strcmp((char *)k->data.scalar.value, key) == 0)
			return yaml_document_get_node(doc, p->value);
	}
	return NULL;
}

static yaml_node_t *option_node(yaml_document_t *doc, const struct conf_option *o)
{
	yaml_node_t *map = yaml_document_get_root_node(doc);
	if (*o->section)
		map = node_get(doc, map, o->section);
	return node_get(doc, map, o->name);
}

static bool is_known(const char *section, const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strcmp(options[i].section, section) == 0 && strcmp(options[i].name, key) == 0)
			return true;
	for (size_t i = 0; !*section && i < ARRAY_SIZE(sections); i++)
		if (strcmp(sections[i], key) == 0)
			return true;
	return false;
}

static int check_keys(const char *name, yaml_document_t *doc, yaml_node_t *map, const char *section, struct error *reterr)
{
	if (!map)
		return 0;
	if (map->type != YAML_MAPPING_NODE)
		return error_set(reterr, -EINVAL, "%s:%zu: expected `key: value` lines%s%s", name, map->start_mark.line + 1,
				 *section ? " in " : "", section);
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		yaml_node_t *k = yaml_document_get_node(doc, p->key);
		const char *key = k && k->type == YAML_SCALAR_NODE ? (char *)k->data.scalar.value : "?";
		if (!is_known(section, key))
			return error_set(reterr, -EINVAL, "%s:%zu: unknown key '%s%s%.64s'; iron.yaml(5) lists them all", name,
					 k ? k->start_mark.line + 1 : 0, section, *section ? "." : "", key);
	}
	for (size_t i = 0; !*section && i < ARRAY_SIZE(sections); i++) {
		int r = check_keys(name, doc, node_get(doc, map, sections[i]), sections[i], reterr);
		if (r)
			return r;
	}
	return 0;
}

static int load_document(const char *name, struct str text, yaml_document_t *ret, struct error *reterr)
{
	yaml_parser_t parser;

	if (!yaml_parser_initialize(&parser))
		return error_set(reterr, -ENOMEM, "%s: out of memory", name);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.len);
	int ok = yaml_parser_load(&parser, ret);
	int r = ok ? 0
		   : error_set(reterr, -EINVAL, "%s:%zu: not YAML: %s", name, parser.problem_mark.line + 1,
			       parser.problem ? parser.problem : "cannot be read");
	yaml_parser_delete(&parser);
	return r;
}

/* libcyaml's first complaint, and the innermost line of its backtrace. */
struct complaint {
	char what[256];
	unsigned line;
};

static void on_cyaml_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args) __attribute__((format(printf, 3, 0)));
static void on_cyaml_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	struct complaint *c = ctx;
	char text[256];

	vsnprintf(text, sizeof text, fmt, args);
	text[strcspn(text, "\n")] = '\0';
	const char *line = strstr(text, "(line: ");
	if (!c->what[0])
		snprintf(c->what, sizeof c->what, "%s", strncmp(text, "Load: ", 6) == 0 ? text + 6 : text);
	else if (line && !c->line)
		c->line = (unsigned)strtoul(line + 7, NULL, 10);
}

/* At the line that libcyaml names: which option is that, and what should it be? */
static const struct conf_option *option_at(yaml_document_t *doc, unsigned line)
{
	const struct conf_option *best = NULL;
	size_t best_line = 0;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		yaml_node_t *n = option_node(doc, &options[i]);
		if (n && n->start_mark.line + 1 <= line && (!best || n->start_mark.line >= best_line)) {
			best = &options[i];
			best_line = n->start_mark.line;
		}
	}
	return best;
}

static int load_struct(const char *name, struct str text, yaml_document_t *doc, struct conf **ret, struct error *reterr)
{
	struct complaint complaint = {0};
	cyaml_config_t config = {
		.log_fn = on_cyaml_log, .log_ctx = &complaint, .mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR};

	cyaml_err_t e = cyaml_load_data((const uint8_t *)text.p, text.len, &config, &top, (cyaml_data_t **)ret, NULL);
	if (e == CYAML_OK)
		return 0;
	const struct conf_option *o = option_at(doc, complaint.line);
	if (!o)
		return error_set(reterr, -EINVAL, "%s:%u: %s", name, complaint.line, complaint.what);
	return error_set(reterr, -EINVAL, "%s:%u: %s%s%s: expected %s (%s)", name, complaint.line, o->section,
			 *o->section ? "." : "", o->name, o->expected, complaint.what);
}

static void move_value(struct conf *to, struct conf *from, const struct conf_option *o)
{
	char *t = (char *)to + o->offset, *f = (char *)from + o->offset;

	switch (o->kind) {
	case CONF_u32:
		*(uint32_t *)(void *)t = *(uint32_t *)(void *)f;
		break;
	case CONF_flag:
		*(bool *)t = *(bool *)f;
		break;
	case CONF_strs:
	case CONF_shapes:
	case CONF_privates:
		*(unsigned *)(void *)((char *)to + o->count_offset) = *(unsigned *)(void *)((char *)from + o->count_offset);
		*(unsigned *)(void *)((char *)from + o->count_offset) = 0;
		__attribute__((fallthrough));
	case CONF_str:
		*(void **)(void *)t = *(void **)(void *)f;
		*(void **)(void *)f = NULL;
		break;
	}
}

static int load_defaults(struct conf **ret)
{
	_cleanup_(buf_finish) struct buf text = {0};
	const char *section = "";

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct conf_option *o = &options[i];
		if (strcmp(section, o->section) != 0) {
			section = o->section;
			buf_printf(&text, "%s:\n", section);
		}
		buf_printf(&text, "%s%s: %s\n", *section ? "  " : "", o->name, o->fallback);
	}
	yaml_document_t doc;
	int r = load_document("defaults", buf_str(&text), &doc, NULL);
	if (r)
		return r;
	r = load_struct("defaults", buf_str(&text), &doc, ret, NULL);
	yaml_document_delete(&doc);
	return r;
}

static int check_values(const char *name, yaml_document_t *doc, struct conf *c, struct error *reterr)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct conf_option *o = &options[i];
		char bad[128];
		if (conf_check(o, c, bad) == 0)
			continue;
		yaml_node_t *n = option_node(doc, o);
		return error_set(reterr, -EINVAL, "%s:%zu: %s%s%s: expected %s, not '%s'", name, n ? n->start_mark.line + 1 : 0,
				 o->section, *o->section ? "." : "", o->name, o->expected, bad);
	}
	return 0;
}

static int complete(const char *name, yaml_document_t *doc, struct conf *c, struct error *reterr)
{
	struct conf *defaults = NULL;

	int r = load_defaults(&defaults);
	if (r)
		return error_set(reterr, r, "the built-in defaults do not parse");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (!option_node(doc, &options[i]))
			move_value(c, defaults, &options[i]);
	conf_destroy(defaults);
	return check_values(name, doc, c, reterr);
}

int conf_parse(const char *name, struct str text, struct conf **ret, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf whole = {0};
	struct conf *c = NULL;
	yaml_document_t doc;

	/* a document without content would load as no mapping at all */
	buf_append_str(&whole, text);
	int r = load_document(name, text, &doc, reterr);
	if (r)
		return r;
	yaml_node_t *root = yaml_document_get_root_node(&doc);
	bool empty = !root || (root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0);
	if (!empty)
		r = check_keys(name, &doc, root, "", reterr);
	if (r == 0)
		r = load_struct(name, empty ? STR("{}") : buf_str(&whole), &doc, &c, reterr);
	if (r == 0)
		r = complete(name, &doc, c, reterr);
	yaml_document_delete(&doc);
	if (r) {
		conf_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

int conf_load(const char *path, struct conf **ret, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(TEXT_MAX);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		int r = -errno;
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	}
	for (;;) {
		void *to = buf_reserve(&text, 4096);
		if (!to)
			return error_set(reterr, -EINVAL, "%s: larger than 1 MiB", path);
		ssize_t n = read(fd, to, 4096);
		if (n < 0)
			return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
		if (n == 0)
			break;
		buf_commit(&text, (size_t)n);
	}
	return conf_parse(path, buf_str(&text), ret, reterr);
}

void conf_destroy(struct conf *c)
{
	cyaml_config_t config = {.mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR};
	if (c)
		cyaml_free(&config, &top, c, 0);
}

int conf_write_example(struct buf *out)
{
	const char *section = "";

	buf_printf(out, "# iron.yaml: every key, its meaning and its default. iron.yaml(5); checked by `irond reload`.\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct conf_option *o = &options[i];
		const char *indent = *o->section ? "  " : "";
		if (strcmp(section, o->section) != 0) {
			section = o->section;
			buf_printf(out, "\n#%s:\n", section);
		}
		buf_printf(out, "\n%s# %s\n%s# %c%s.\n#%s%s: %s\n", indent, o->doc, indent,
			   (char)(o->expected[0] >= 'a' && o->expected[0] <= 'z' ? o->expected[0] - 32 : o->expected[0]),
			   o->expected + 1, indent, o->name, o->fallback);
	}
	return out->failed ? -EMSGSIZE : 0;
}

int conf_write_mdoc(struct buf *out)
{
	buf_printf(out, ".Bl -tag -width Ds\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct conf_option *o = &options[i];
		buf_printf(out, ".It Cm %s%s%s\n%s\nExpected: %s.\nDefault:\n.Ql %s .\n", o->section, *o->section ? "." : "",
			   o->name, o->doc, o->expected, *o->fallback ? o->fallback : "empty");
	}
	buf_printf(out, ".El\n");
	return out->failed ? -EMSGSIZE : 0;
}
