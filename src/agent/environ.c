#include "agent/environ.h"

#include <errno.h>

#include "codec/wire.h"

void environ_finish(struct environ *e)
{
	for (size_t i = 0; i < e->vars.n; i++)
		free(e->vars.v[i]);
	VEC_FINISH(&e->vars);
}

static size_t find(const struct environ *e, struct str name)
{
	for (size_t i = 0; i < e->vars.n; i++)
		if (e->vars.v[i] && str_has_prefix(str_of(e->vars.v[i]), name) && e->vars.v[i][name.len] == '=')
			return i;
	return e->vars.n;
}

static bool is_assignment(struct str s)
{
	return str_chr(s, '=') > 0 && memchr(s.p, '\0', s.len) == NULL;
}

int environ_set(struct environ *e, struct str assignment)
{
	if (!is_assignment(assignment))
		return -EINVAL;
	size_t i = find(e, str_make(assignment.p, (size_t)str_chr(assignment, '=')));
	if (i == e->vars.n)
		VEC_PUSH(&e->vars, NULL);
	free(e->vars.v[i]);
	e->vars.v[i] = str_dup(assignment);
	return 0;
}

const char *environ_get(const struct environ *e, const char *name)
{
	size_t i = find(e, str_of(name));
	return i < e->vars.n ? e->vars.v[i] + strlen(name) + 1 : NULL;
}

char **environ_array(struct environ *e)
{
	VEC_PUSH(&e->vars, NULL);
	e->vars.n--;
	return e->vars.v;
}

static void set_pair(struct environ *e, const char *name, const char *value)
{
	_cleanup_free_ char *s = xasprintf("%s=%s", name, value);
	environ_set(e, str_of(s));
}

void environ_set_login(struct environ *e, const struct user *u)
{
	set_pair(e, "HOME", u->home[0] ? u->home : "/");
	set_pair(e, "USER", u->name);
	set_pair(e, "LOGNAME", u->name);
	set_pair(e, "SHELL", u->shell);
	set_pair(e, "PATH",
		 u->uid == 0 ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
			     : "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games");
	set_pair(e, "LANG", "C.UTF-8");
}

/* One value, to the end of its line; a quoted part may span lines. *text is moved past it. */
static void parse_value(struct str *text, struct buf *out)
{
	char quote = '\0';
	size_t i = 0;

	for (; i < text->len; i++) {
		char c = text->p[i];
		if (quote ? c == quote : c == '\'' || c == '"')
			quote = quote ? '\0' : c;
		else if (!quote && c == '\n')
			break;
		else if (!quote && c == '\\' && i + 1 < text->len)
			buf_append_byte(out, (uint8_t)text->p[++i]);
		else
			buf_append_byte(out, (uint8_t)c);
	}
	*text = str_make(text->p + i, text->len - i);
}

static bool is_name(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];
		if (!(c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (i && c >= '0' && c <= '9')))
			return false;
	}
	return s.len > 0;
}

static void skip_line(struct str *text)
{
	struct str line;
	str_split(text, '\n', &line);
}

void environ_parse(struct environ *e, struct str text)
{
	_cleanup_(buf_finish) struct buf var = BUF_MAX(ENVIRON_MAX);

	while (text.len) {
		size_t blank = 0;
		while (blank < text.len && (text.p[blank] == ' ' || text.p[blank] == '\t' || text.p[blank] == '\n'))
			blank++;
		text = str_make(text.p + blank, text.len - blank);
		if (str_has_prefix(text, STR("export ")))
			text = str_make(text.p + 7, text.len - 7);
		ptrdiff_t equals = str_chr(text, '=');
		if (equals <= 0 || !is_name(str_make(text.p, (size_t)equals))) {
			skip_line(&text);
			continue;
		}
		buf_clear(&var);
		buf_append(&var, text.p, (size_t)equals + 1);
		text = str_make(text.p + equals + 1, text.len - (size_t)equals - 1);
		parse_value(&text, &var);
		if (!var.failed)
			environ_set(e, buf_str(&var));
	}
}

static void format_one(struct str assignment, size_t equals, struct buf *out)
{
	buf_append_z(out, "export ");
	buf_append(out, assignment.p, equals);
	buf_append_z(out, "='");
	for (size_t i = equals + 1; i < assignment.len; i++) {
		if (assignment.p[i] == '\'')
			buf_append_z(out, "'\\''");
		else
			buf_append_byte(out, (uint8_t)assignment.p[i]);
	}
	buf_append_z(out, "'\n");
}

int environ_format(struct str list, struct buf *out)
{
	struct str item;

	while (wire_list_next(&list, &item)) {
		ptrdiff_t equals = str_chr(item, '=');
		if (!is_assignment(item) || !is_name(str_make(item.p, (size_t)equals)))
			return -EINVAL;
		format_one(item, (size_t)equals, out);
	}
	return out->failed ? -EMSGSIZE : 0;
}
