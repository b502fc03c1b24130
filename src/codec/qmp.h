#pragma once
/* QEMU's machine protocol, the client's half (QEMU docs/interop/qmp-spec.txt): one JSON object a line. QEMU is held for
 * hostile here: lines, nesting and strings are bounded, and what is not of the four shapes is refused. */
#include <jansson.h>

#include "base/buf.h"
#include "base/str.h"

#define QMP_LINE_MAX ((size_t)256 << 10)
#define QMP_DEPTH_MAX 32

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
	enum qmp_kind kind;
	bool has_id; /* RETURN and ERROR: the command's id came back */
	uint64_t id;
	char name[64];   /* EVENT: its name; ERROR: its class */
	char text[256];  /* ERROR: its description, cut; hostile text */
	int64_t seconds; /* EVENT: its time stamp, 0: none */
	json_t *data;    /* RETURN: any value; EVENT: an object or NULL; GREETING: "QMP". Owned by the message. */
};

void qmp_message_finish(struct qmp_message *m);

/* Takes one line, without its end, off *in. 1; 0: more bytes are needed; -EMSGSIZE: longer than QMP_LINE_MAX. */
int qmp_line_next(struct str *in, struct str *ret_line);
/* -EBADMSG: not JSON, nested too deep, a key twice, or none of the shapes. */
int qmp_message_parse(struct str line, struct qmp_message *ret);
/* {"execute": name, "id": id, "arguments": arguments} and a line's end. arguments: borrowed, may be NULL. */
int qmp_command_encode(const char *name, const json_t *arguments, uint64_t id, struct buf *out);

/* A string member of an object, STR_NONE when it is absent or of another type. Borrowed. */
struct str qmp_string(const json_t *object, const char *key);
/* A flag member, false when it is absent or of another type. */
bool qmp_flag(const json_t *object, const char *key);
