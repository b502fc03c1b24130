/* What the guest says on a stream. It is hostile: each frame is held to what the stream was opened with, to how far
 * it is, and to what was said before, so that a client may trust the order, the counts and the sizes, but no name. */
#include <errno.h>

#include "vm/bridge_internal.h"

static bool is_file(const struct stream *s, uint8_t op)
{
	return s->request == AGENT_FILE && s->op == op;
}

static bool on_started(struct stream *s, struct str payload)
{
	if (s->started || s->request != AGENT_EXEC)
		return false;
	s->started = true;
	bridge_deliver(s, STREAM_STARTED, STR_NONE);
	return true;
}

/* Bytes are expected: of a running process, behind the row of an ATTACH, behind the INFO of a file. */
static bool has_output(const struct stream *s, enum stream_kind kind)
{
	if (s->request == AGENT_EXEC)
		return s->started && !s->detach;
	if (s->request == AGENT_ATTACH)
		return s->rows > 0;
	return kind == STREAM_STDOUT && (is_file(s, FILE_READ) || is_file(s, FILE_PACK)) && s->rows > 0;
}

static bool use_credit(struct stream *s, size_t n)
{
	if (n > s->may_receive)
		return false;
	s->may_receive -= (uint32_t)n;
	return true;
}

static bool on_output(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (!has_output(s, kind) || !use_credit(s, payload.len))
		return false;
	if (s->counted && payload.len > s->bytes_left)
		return false;
	if (s->counted)
		s->bytes_left -= payload.len;
	s->offset += payload.len;
	bridge_deliver(s, kind, payload);
	return true;
}

static bool on_stdout(struct stream *s, struct str payload)
{
	return on_output(s, STREAM_STDOUT, payload);
}

static bool on_stderr(struct stream *s, struct str payload)
{
	return on_output(s, STREAM_STDERR, payload);
}

/* The first says where the output begins; a further one of an ATTACH, that bytes are missing before what follows. */
static bool may_be_row(const struct stream *s, const struct stream_exec_row *x)
{
	if (s->request == AGENT_EXECS)
		return s->rows < BRIDGE_ROWS_MAX;
	return s->request == AGENT_ATTACH && x->exec == s->exec && (s->rows == 0 || x->offset > s->offset);
}

static bool on_exec_row(struct stream *s, struct str payload)
{
	struct stream_exec_row x;

	if (wire_decode(&stream_exec_row_wire, payload, &x) || x.offset > x.output || !use_credit(s, payload.len))
		return false;
	if (!may_be_row(s, &x))
		return false;
	if (s->rows < UINT32_MAX)
		s->rows++;
	s->offset = x.offset;
	bridge_deliver(s, STREAM_EXEC_ROW, payload);
	return true;
}

/* The next entry of a LIST: each name once, in order, and one that can be a name. */
static bool take_entry(struct stream *s, const struct stream_file_info *x)
{
	bool can_be = x->name.len && str_chr(x->name, '/') < 0 && !str_eq(x->name, STR(".")) &&
		      !str_eq(x->name, STR(".."));

	if (s->more || s->rows >= s->limit || !can_be || str_cmp(str_of(s->name), x->name) >= 0)
		return false;
	s->more = x->more;
	return str_copy(x->name, s->name, sizeof s->name) == 0;
}

static bool on_info(struct stream *s, struct str payload)
{
	struct stream_file_info x;

	if (s->request != AGENT_FILE || wire_decode(&stream_file_info_wire, payload, &x) || x.kind == 0 ||
	    !use_credit(s, payload.len))
		return false;
	if (s->op == FILE_LIST) {
		if (!take_entry(s, &x))
			return false;
	} else if (s->op == FILE_REMOVE || s->rows || x.name.len || x.more || (s->takes_input && !s->eof)) {
		return false;
	}
	s->rows++;
	s->counted = s->op == FILE_READ && x.kind == FILE_REGULAR;
	s->bytes_left = x.size;
	bridge_deliver(s, STREAM_INFO, payload);
	return true;
}

static void last_word(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (s->state == ORPHAN) {
		s->dead = true;
		return;
	}
	bridge_deliver(s, kind, payload);
	if (s->fd >= 0)
		bridge_end(s);
	else
		s->dead = true;
}

static bool on_exit_frame(struct stream *s, struct str payload)
{
	struct stream_exit x;
	bool runs = (s->request == AGENT_EXEC && s->started && !s->detach) ||
		    (s->request == AGENT_ATTACH && s->follow && s->rows > 0);

	if (!runs || wire_decode(&stream_exit_wire, payload, &x))
		return false;
	last_word(s, STREAM_EXIT, payload);
	return true;
}

static bool is_done(const struct stream *s)
{
	if (s->request == AGENT_EXEC)
		return s->detach && s->started;
	if (s->request == AGENT_ATTACH)
		return !s->follow && s->rows > 0;
	if (s->request != AGENT_FILE || s->op == FILE_LIST || s->op == FILE_REMOVE)
		return true;
	return s->rows == 1 && (!s->counted || s->bytes_left == 0);
}

static bool on_done(struct stream *s, struct str payload)
{
	if (!is_done(s))
		return false;
	last_word(s, STREAM_DONE, STR_NONE);
	return true;
}

static bool on_error_frame(struct stream *s, struct str payload)
{
	static const char *const codes[] = {
		"exec_failed",  "no_such_user",    "no_such_directory", "bad_request", "limit",     "no_such_exec",
		"ended",        "no_such_file",    "not_a_directory",   "exists",      "not_empty", "is_a_directory",
		"denied",       "no_room",         "bad_path",          "unsafe",      "io",        "bad_archive",
	};
	struct stream_error x;
	bool late = s->started || (s->request == AGENT_ATTACH && s->rows);

	if (late || wire_decode(&stream_error_wire, payload, &x))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (str_eq(x.code, str_of(codes[i]))) {
			last_word(s, STREAM_ERROR, payload);
			return true;
		}
	}
	return false;
}

static bool on_credit(struct stream *s, struct str payload)
{
	uint32_t n;

	if (agent_credit_decode(payload, &n) || n > AGENT_WINDOW - s->may_send)
		return false;
	s->may_send += n;
	bridge_resume(s);
	return true;
}

static bool on_closed(struct stream *s, struct str payload)
{
	if (s->state != ORPHAN)
		return false;
	s->dead = true;
	return true;
}

bool bridge_on_guest(struct stream *s, enum agent_type type, struct str payload)
{
	static const struct {
		enum agent_type type;
		bool (*handle)(struct stream *s, struct str payload);
	} handlers[] = {
		{AGENT_STDOUT, on_stdout},     {AGENT_STDERR, on_stderr},   {AGENT_CREDIT, on_credit},
		{AGENT_STARTED, on_started},   {AGENT_EXIT, on_exit_frame}, {AGENT_ERROR, on_error_frame},
		{AGENT_EXEC_ROW, on_exec_row}, {AGENT_INFO, on_info},       {AGENT_DONE, on_done},
		{AGENT_CLOSED, on_closed},
	};

	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
		if (handlers[i].type == type)
			return handlers[i].handle(s, payload);
	return false;
}
