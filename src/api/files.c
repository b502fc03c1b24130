/* Files without their bytes: list, stat, mkdir, move, remove. */
#include "api/files.h"

#include <errno.h>
#include <stdio.h>

#include "api/answer.h"
#include "api/question.h"
#include "api/starts.h"
#include "base/text.h"

#define LIST_BYTES_MAX ((size_t)4 << 20)
#define PAGE_BYTES ((size_t)1 << 20) /* a page ends early past that: names and targets may be long */
#define SLOW_MS 120000 /* a tree that is removed, a file that moves to another file system */

struct files {
	struct question q;
	struct buf body;
	struct json json;
	struct stream_file_info info; /* one that is not a list's; its strings are in bytes */
	struct buf bytes;
	unsigned rows;
	bool more;
	char cursor[2 * 255 + 1];
};

static struct str last_part(struct str path)
{
	size_t end = path.len, begin;

	while (end > 1 && path.p[end - 1] == '/')
		end--;
	for (begin = end; begin > 0 && path.p[begin - 1] != '/'; begin--)
		;
	return begin == end ? str_make(path.p, end) : str_make(path.p + begin, end - begin);
}

void file_info_put(struct json *j, const struct stream_file_info *info, struct str path)
{
	char mode[8];

	snprintf(mode, sizeof mode, "%04o", info->mode & 07777);
	struct file_view view = {.name = info->name.len ? info->name : last_part(path),
				 .type = info->kind,
				 .size = info->size,
				 .mode = str_of(mode),
				 .owner = info->owner,
				 .group = info->group,
				 .modified_at = info->modified_at,
				 .target = info->target};
	answer_fields(j, ROW_FILE, &view);
}

void file_info_answer(struct buf *out, const struct stream_file_info *info, struct str path)
{
	struct json j = {.out = out};

	json_object_begin(&j, NULL);
	json_object_begin(&j, "data");
	file_info_put(&j, info, path);
	json_object_end(&j);
	json_object_end(&j);
}

static const struct file_asked *asked(const struct question *q)
{
	return &q->call->params.file.asked;
}

static bool is_list(const struct files *x)
{
	return x->q.call->op == OP_VM_FILE_LIST;
}

static uint8_t file_op(enum api_op op)
{
	switch ((int)op) {
	case OP_VM_FILE_LIST:
		return FILE_LIST;
	case OP_VM_FILE_MKDIR:
		return FILE_MKDIR;
	case OP_VM_FILE_MOVE:
		return FILE_MOVE;
	case OP_VM_FILE_DELETE:
		return FILE_REMOVE;
	default:
		return FILE_STAT;
	}
}

static int on_opened(struct question *q)
{
	struct stream_file file = asked(q)->file;

	file.op = file_op(q->call->op);
	if (file.op == FILE_REMOVE || file.op == FILE_MOVE)
		question_expect(q, SLOW_MS);
	return channel_send_record(q->channel, STREAM_FILE, &stream_file_wire, &file);
}

static int list_row(struct files *x, const struct stream_file_info *info)
{
	uint32_t limit = asked(&x->q)->file.limit;

	if (x->rows == limit || info->name.len == 0)
		return -EPROTO;
	json_object_begin(&x->json, NULL);
	file_info_put(&x->json, info, STR_NONE);
	json_object_end(&x->json);
	x->rows++;
	x->more = info->more;
	hex_encode(info->name.p, info->name.len, x->cursor);
	return x->body.failed ? -EMSGSIZE : 0;
}

static int answer(struct files *x);

static int end_with_answer(struct files *x)
{
	channel_note_outcome(x->q.channel, STR("done"));
	int r = answer(x);
	if (r == 0)
		question_end(&x->q);
	return r;
}

static int take_info(struct files *x, struct str data)
{
	struct stream_file_info info;

	if (wire_decode(&stream_file_info_wire, data, &info))
		return -EPROTO;
	if (is_list(x))
		return list_row(x, &info);
	if (x->bytes.len || data.len == 0)
		return -EPROTO;
	buf_append_str(&x->bytes, data);
	return wire_decode(&stream_file_info_wire, buf_str(&x->bytes), &x->info);
}

static int answer_list(struct files *x)
{
	struct buf body;

	json_array_end(&x->json);
	json_bool(&x->json, "has_more", x->more);
	if (x->more)
		json_str(&x->json, "cursor", str_of(x->cursor));
	else
		json_null(&x->json, "cursor");
	json_object_end(&x->json);
	body = x->body;
	x->body = (struct buf){0};
	call_answer(x->q.call, 200, &body);
	return 0;
}

static int answer(struct files *x)
{
	struct call *c = x->q.call;
	struct buf body = {0};

	if (is_list(x))
		return answer_list(x);
	if (c->op == OP_VM_FILE_DELETE) {
		call_answer(c, 204, &body);
		return 0;
	}
	if (!x->bytes.len)
		return -EPROTO;
	file_info_answer(&body, &x->info, c->op == OP_VM_FILE_MOVE ? asked(&x->q)->file.to : asked(&x->q)->file.path);
	call_answer(c, c->shape->status, &body);
	return 0;
}

static int on_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct files *x = (struct files *)q;

	int r = kind == STREAM_INFO ? take_info(x, data) : 0;
	if (r == 0 && x->body.len > PAGE_BYTES && x->more)
		return end_with_answer(x);
	if (kind == STREAM_INFO)
		return r;
	if (kind != STREAM_DONE)
		return -EPROTO;
	return end_with_answer(x);
}

static void finish(struct question *q)
{
	struct files *x = (struct files *)q;

	buf_finish(&x->body);
	buf_finish(&x->bytes);
}

static const struct question_ops ops = {.opened = on_opened, .data = on_data, .finish = finish};

void files_ask(struct call *c)
{
	struct files *x = xcalloc(1, sizeof *x);

	x->body = BUF_MAX(LIST_BYTES_MAX);
	x->json.out = &x->body;
	json_object_begin(&x->json, NULL);
	json_array_begin(&x->json, "data");
	c->outlives_eof = true;
	question_start(&x->q, c, &ops);
}
