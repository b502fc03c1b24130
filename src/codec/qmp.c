#include "codec/qmp.h"

#include <errno.h>

void qmp_message_finish(struct qmp_message *m)
{
	json_decref(m->data);
	m->data = NULL;
}

int qmp_line_next(struct str *in, struct str *ret_line)
{
	ptrdiff_t end = str_chr(*in, '\n');

	if (end < 0)
		return in->len > QMP_LINE_MAX ? -EMSGSIZE : 0;
	if ((size_t)end > QMP_LINE_MAX)
		return -EMSGSIZE;
	*ret_line = str_trim(str_make(in->p, (size_t)end), "\r");
	*in = str_make(in->p + end + 1, in->len - (size_t)end - 1);
	return 1;
}

/* jansson recurses on nesting, to a depth fixed when it was built; ours is smaller. */
static bool too_deep(struct str line)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < line.len; i++) {
		char c = line.p[i];
		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '{' || c == '[') && ++depth > QMP_DEPTH_MAX)
			return true;
		else if (!quoted && (c == '}' || c == ']') && depth)
			depth--;
	}
	return false;
}

/* Cut to fit, never refused: it is for people. */
static void copy_cut(struct str s, char *ret, size_t size)
{
	size_t n = MIN(s.len, size - 1);
	if (n)
		memcpy(ret, s.p, n);
	ret[n] = '\0';
}

struct str qmp_string(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);
	return json_is_string(v) ? str_make(json_string_value(v), json_string_length(v)) : STR_NONE;
}

bool qmp_flag(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

static int parse_event(const json_t *root, struct qmp_message *m)
{
	struct str name = qmp_string(root, "event");
	json_t *data = json_object_get(root, "data");

	if (name.len == 0 || str_copy(name, m->name, sizeof m->name) || (data && !json_is_object(data)))
		return -EBADMSG;
	m->kind = QMP_EVENT;
	m->seconds = json_integer_value(json_object_get(json_object_get(root, "timestamp"), "seconds"));
	m->data = json_incref(data);
	return 0;
}

static int parse_id(const json_t *root, struct qmp_message *m)
{
	const json_t *id = json_object_get(root, "id");

	if (!id)
		return 0;
	if (!json_is_integer(id) || json_integer_value(id) < 0)
		return -EBADMSG;
	m->has_id = true;
	m->id = (uint64_t)json_integer_value(id);
	return 0;
}

static int parse_error(const json_t *root, const json_t *error, struct qmp_message *m)
{
	struct str name = qmp_string(error, "class");

	if (name.len == 0 || str_copy(name, m->name, sizeof m->name))
		return -EBADMSG;
	copy_cut(qmp_string(error, "desc"), m->text, sizeof m->text);
	m->kind = QMP_ERROR;
	return parse_id(root, m);
}

static int parse_root(const json_t *root, struct qmp_message *m)
{
	json_t *value;

	if (json_object_get(root, "event"))
		return parse_event(root, m);
	if ((value = json_object_get(root, "error")))
		return parse_error(root, value, m);
	m->kind = QMP_RETURN;
	value = json_object_get(root, "return");
	if (!value) {
		m->kind = QMP_GREETING;
		value = json_object_get(root, "QMP");
		if (!json_is_object(value))
			return -EBADMSG;
	}
	m->data = json_incref(value);
	return parse_id(root, m);
}

int qmp_message_parse(struct str line, struct qmp_message *ret)
{
	_cleanup_(qmp_message_finish) struct qmp_message m = {0};

	if (line.len > QMP_LINE_MAX || too_deep(line))
		return -EBADMSG;
	json_t *root = json_loadb(line.p, line.len, JSON_REJECT_DUPLICATES, NULL);
	int r = json_is_object(root) ? parse_root(root, &m) : -EBADMSG;
	json_decref(root);
	if (r)
		return r;
	*ret = m;
	m.data = NULL;
	return 0;
}

int qmp_command_encode(const char *name, const json_t *arguments, uint64_t id, struct buf *out)
{
	size_t start = out->len;
	char *text = NULL;

	buf_printf(out, "{\"execute\":\"%s\",\"id\":%llu", name, (unsigned long long)id);
	if (arguments && (text = json_dumps(arguments, JSON_COMPACT)))
		buf_printf(out, ",\"arguments\":%s", text);
	free(text);
	buf_append_z(out, "}\n");
	if (out->failed || (arguments && !text)) {
		out->len = start;
		return -EMSGSIZE;
	}
	return 0;
}
