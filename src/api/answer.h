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
	bool in_roles;
};

void answer_begin(struct answer *a, enum answer_kind kind);
void answer_finish(struct answer *a);
/* -EPROTO: a row that is none, or does not decode: a bug of the sender's. */
int answer_row(struct answer *a, uint16_t type, const void *record);
/* Closes what is open. -EPROTO: an object without its row. */
int answer_end(struct answer *a, const struct msg_done *done);

/* {"error": {…}} */
void answer_error(struct buf *out, const char *code, struct str message);
