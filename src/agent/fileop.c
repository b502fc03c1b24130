#include "agent/fileop.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "agent/filejob.h"

#define INFO_MAX ((size_t)8192) /* more than an INFO or an ERROR is */
#define TURN_MAX 64             /* steps of one before others get their turn */
#define PIPE_SIZE (1024 << 10)

enum { FROM, TO };

struct fileop {
	struct fileop *next;
	struct fileop_set *set;
	struct stream *stream; /* NULL: over */
	pid_t pid;             /* 0: reaped */
	uint8_t op;
	int from, to, gate; /* -1: closed */
	int polled[FILEOP_POLLFDS];
	bool takes_input, eof;
	struct buf in, input; /* from the child, a frame that is not data yet; to it */
	size_t input_at;
	size_t data_left;     /* bytes of a frame of data that are still in the pipe */
};

static void close_all(struct fileop *o)
{
	int *fds[] = {&o->from, &o->to, &o->gate};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(take_fd(*fds[i]));
	buf_finish(&o->in);
	buf_finish(&o->input);
	o->input_at = 0;
}

void fileop_set_finish(struct fileop_set *s)
{
	while (s->head) {
		struct fileop *o = s->head;
		s->head = o->next;
		close_all(o);
		free(o);
	}
	s->n = 0;
}

/* --- to the child --- */

static void drop_input(struct fileop *o)
{
	size_t n = o->input.len - o->input_at;

	if (o->to >= 0)
		close(take_fd(o->to));
	buf_finish(&o->input);
	o->input_at = 0;
	if (n)
		stream_give_credit(o->stream, n);
}

/* The child looks at the gate when its input ends: with a word in it, it commits. */
static void commit(struct fileop *o)
{
	if (o->gate >= 0 && write(o->gate, "1", 1) == 1)
		close(take_fd(o->gate));
	if (o->to >= 0)
		close(take_fd(o->to));
}

static void write_input(struct fileop *o)
{
	while (o->to >= 0 && o->input_at < o->input.len) {
		ssize_t n = write(o->to, o->input.data + o->input_at, o->input.len - o->input_at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) { /* it has given up, and says why */
			drop_input(o);
			return;
		}
		o->input_at += (size_t)n;
		stream_give_credit(o->stream, (size_t)n);
	}
	buf_clear(&o->input);
	o->input_at = 0;
	if (o->eof)
		commit(o);
}

static bool on_stdin(struct fileop *o, struct str data)
{
	if (o->eof || !stream_take_input(o->stream, data.len))
		return false;
	if (o->to < 0) {
		stream_give_credit(o->stream, data.len);
		return true;
	}
	if (o->input.len == o->input_at) {
		ssize_t n = write(o->to, data.p, data.len);
		if (n > 0) {
			stream_give_credit(o->stream, (size_t)n);
			data = str_make(data.p + n, data.len - (size_t)n);
		}
	}
	if (o->input_at) {
		buf_consume(&o->input, o->input_at);
		o->input_at = 0;
	}
	if (buf_append_str(&o->input, data))
		return false;
	write_input(o);
	return true;
}

static bool on_frame(struct stream *st, const struct agent_frame *f)
{
	struct fileop *o = st->user;

	if (!o->takes_input)
		return false;
	if (f->type == AGENT_STDIN)
		return on_stdin(o, f->payload);
	if (f->type != AGENT_STDIN_EOF || o->eof)
		return false;
	o->eof = true;
	write_input(o);
	return true;
}

/* Closing the pipes tells a child that reads or writes; one that does neither is told by a signal. */
static void on_close(struct stream *st)
{
	struct fileop *o = st->user;

	o->stream = NULL;
	close_all(o);
	if (o->pid && o->op == FILE_REMOVE)
		kill(o->pid, SIGTERM);
}

static const struct stream_ops fileop_ops = {on_frame, on_close};

/* --- from the child --- */

/* f: its last word; NULL: it had none. */
static void over(struct fileop *o, const struct agent_frame *f)
{
	struct stream_error e, none = {.code = STR("io"), .message = STR("the process that did it ended early")};
	struct stream *st = o->stream;

	o->stream = NULL;
	if (f && f->type == AGENT_DONE)
		stream_end(st, AGENT_DONE, NULL, NULL);
	else if (f && wire_decode(&stream_error_wire, f->payload, &e) == 0)
		stream_end(st, AGENT_ERROR, &stream_error_wire, &e);
	else
		stream_end(st, AGENT_ERROR, &stream_error_wire, &none);
	close_all(o);
}

/* A whole frame that is not data is in o->in. */
static void take_frame(struct fileop *o, const struct agent_frame *f)
{
	if (f->type == AGENT_DONE || f->type == AGENT_ERROR) {
		over(o, f);
		return;
	}
	stream_send(o->stream, f->type, f->payload);
	buf_clear(&o->in);
}

/* The header of a frame of data is all of it that is kept here: the rest goes from the pipe into the channel. */
static bool is_data(const struct fileop *o, size_t *ret_len)
{
	uint32_t words[2];

	if (o->in.len != AGENT_HEADER_SIZE)
		return false;
	memcpy(words, o->in.data, sizeof words);
	if (le32toh(words[1]) != AGENT_STDOUT)
		return false;
	*ret_len = le32toh(words[0]);
	return true;
}

static void fail_read(struct fileop *o, ssize_t n)
{
	if (n == 0 || (n != -EAGAIN && n != -EINTR))
		over(o, NULL);
}

static bool read_data(struct fileop *o)
{
	struct stream *st = o->stream;

	size_t max = MIN(o->data_left, (size_t)st->may_send);
	ssize_t n = channel_send_from(st->set->channel, AGENT_STDOUT, st->id, o->from, max);
	if (n <= 0) {
		fail_read(o, n);
		return false;
	}
	st->may_send -= (uint32_t)n;
	o->data_left -= (size_t)n;
	return true;
}

/* What is missing of the header, or of the frame that it announces, is read. false: it is not there, or all is over. */
static bool fill_frame(struct fileop *o)
{
	size_t want = AGENT_HEADER_SIZE;
	uint32_t len;

	if (o->in.len >= AGENT_HEADER_SIZE) {
		memcpy(&len, o->in.data, sizeof len);
		want += le32toh(len);
	}
	void *to = buf_reserve(&o->in, want - o->in.len);
	ssize_t n = to ? read(o->from, to, want - o->in.len) : 0;
	if (n <= 0) {
		fail_read(o, n < 0 ? -errno : 0);
		return false;
	}
	buf_commit(&o->in, (size_t)n);
	return true;
}

static bool read_frame(struct fileop *o)
{
	struct agent_frame f;

	if (!fill_frame(o))
		return false;
	if (is_data(o, &o->data_left)) {
		buf_clear(&o->in);
		return true;
	}
	struct str rest = buf_str(&o->in);
	int r = agent_frame_next(&rest, AGENT_GUEST, &f);
	if (r < 0)
		over(o, NULL);
	else if (r == 1)
		take_frame(o, &f);
	return o->stream != NULL;
}

static bool wants_more(const struct fileop *o)
{
	/* INFO's length is not known before it is here: as much credit as the greatest takes. */
	return o->from >= 0 && o->stream && stream_may_send(o->stream, o->data_left ? 1 : INFO_MAX);
}

static void read_child(struct fileop *o)
{
	for (int i = 0; i < TURN_MAX && wants_more(o); i++)
		if (!(o->data_left ? read_data(o) : read_frame(o)))
			return;
}

/* --- life --- */

/* One pipe; ours does not block. */
static int make_pipe(int *ret_ours, int *ret_theirs, bool we_read)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	*ret_ours = fds[we_read ? 0 : 1];
	*ret_theirs = fds[we_read ? 1 : 0];
	fcntl(*ret_ours, F_SETPIPE_SZ, PIPE_SIZE);
	return fcntl(*ret_ours, F_SETFL, O_NONBLOCK) ? -errno : 0;
}

static int start(struct fileop *o, const struct stream_file *x, uint32_t stream)
{
	struct filejob_ends e = {-1, -1, -1};

	int r = make_pipe(&o->from, &e.out, true);
	if (r == 0)
		r = make_pipe(&o->to, &e.in, false);
	if (r == 0)
		r = make_pipe(&o->gate, &e.gate, false);
	if (r == 0) {
		o->pid = fork();
		if (o->pid == 0)
			filejob_run(x, stream, o->set->options, &e);
		r = o->pid < 0 ? -errno : 0;
	}
	closep(&e.out);
	closep(&e.in);
	closep(&e.gate);
	return r;
}

bool fileop_open(struct fileop_set *s, const struct agent_frame *f)
{
	struct stream_file x;

	if (wire_decode(&stream_file_wire, f->payload, &x))
		return false;
	if (s->n >= FILEOP_MAX) {
		stream_refuse(s->streams, f->stream, "limit", "too many file operations run in this machine already");
		return true;
	}
	struct fileop *o = xcalloc(1, sizeof *o);
	*o = (struct fileop){.set = s,
			     .op = x.op,
			     .from = -1,
			     .to = -1,
			     .gate = -1,
			     .polled = {-1, -1},
			     .takes_input = x.op == FILE_WRITE || x.op == FILE_UNPACK,
			     .in.max = INFO_MAX,
			     .input.max = AGENT_WINDOW};
	int r = start(o, &x, f->stream);
	if (r) {
		close_all(o);
		free(o);
		stream_refuse(s->streams, f->stream, "io", strerror(-r));
		return true;
	}
	o->next = s->head;
	s->head = o;
	s->n++;
	o->stream = stream_open(s->streams, f->stream, &fileop_ops, o);
	return true;
}

void fileop_on_reaped(struct fileop_set *s, pid_t pid)
{
	for (struct fileop *o = s->head; o; o = o->next)
		if (o->pid == pid)
			o->pid = 0;
}

static void poll_one(struct fileop *o, int which, int fd, short events, struct pollfd *fds, size_t *n)
{
	o->polled[which] = -1;
	if (fd < 0 || events == 0)
		return;
	o->polled[which] = (int)*n;
	fds[(*n)++] = (struct pollfd){.fd = fd, .events = events};
}

size_t fileop_poll_prepare(struct fileop_set *s, struct pollfd *fds)
{
	size_t n = 0;

	for (struct fileop *o = s->head; o; o = o->next) {
		poll_one(o, FROM, o->from, wants_more(o) ? POLLIN : 0, fds, &n);
		poll_one(o, TO, o->to, o->input_at < o->input.len ? POLLOUT : 0, fds, &n);
	}
	return n;
}

static bool ready(const struct fileop *o, int which, int fd, const struct pollfd *fds)
{
	return fd >= 0 && o->polled[which] >= 0 && fds[o->polled[which]].revents;
}

void fileop_poll_done(struct fileop_set *s, const struct pollfd *fds)
{
	for (struct fileop *o = s->head; o; o = o->next) {
		if (ready(o, FROM, o->from, fds))
			read_child(o);
		if (o->stream && ready(o, TO, o->to, fds))
			write_input(o);
	}
}

void fileop_settle(struct fileop_set *s)
{
	for (struct fileop **p = &s->head; *p;) {
		struct fileop *o = *p;
		if (o->stream || o->pid) {
			p = &o->next;
			continue;
		}
		*p = o->next;
		s->n--;
		close_all(o);
		free(o);
	}
}
