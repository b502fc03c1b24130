#pragma once
/* Rows of iron-control's into the JSON of an answer, by the tables of shape.h. */
#include "api/json.h"
#include "api/shape.h"
#include "os/ipc.h"

struct answer {
	struct buf out;
	struct json json;
	enum answer_kind kind;
	unsigned rows;
	bool in_parts; /* of the array that follows the object's own members */
};

/* The array after an object's own members, where answers of that kind have one: its name and the rows it holds. NULL. */
const char *answer_parts(enum answer_kind kind, uint16_t *ret_row);
void answer_begin(struct answer *a, enum answer_kind kind);
void answer_finish(struct answer *a);
/* -EPROTO: a row that is none, or does not decode: a bug of the sender's. */
int answer_row(struct answer *a, uint16_t type, const void *record);
/* Closes what is open. -EPROTO: an object without its row. */
int answer_end(struct answer *a, const struct msg_done *done);

/* The members of one row, by its shape (out_shape_get), into an object that is open. */
void answer_fields(struct json *j, uint16_t row, const void *record);

/* {"error": {…}} */
void answer_error(struct buf *out, const char *code, struct str message);
