#pragma once
/* Each operation's shape: the record that goes to iron-control, what its query and body may hold, and what its answer
 * is. model/op.h says its method, path and scope. Routing, validation, answers and the API's description come from here. */
#include "api/field.h"
#include "codec/msg.h"
#include "codec/stream.h"
#include "model/code.h"
#include "model/op.h"

/* What a client may ask of exec, buffered or live. */
#define EXEC_STDIN_MAX ((size_t)1 << 20)
struct exec_asked {
	struct stream_exec exec;
	struct str stdin_bytes;
};

/* What a client may ask of a command that was started earlier. */
struct exec_get_asked {
	uint64_t offset;
	bool offset_given;
};

/* What a client may ask of files. file.to of LIST: from the cursor. */
struct file_asked {
	struct stream_file file;
	struct str mode, cursor;
};

/* Room for what any shape's tables fill. Every record that iron-control gets begins with the members of msg_req. */
union params {
	struct msg_req req;
	struct msg_vm_create vm_create;
	struct msg_vm_list vm_list;
	struct msg_object object;
	struct msg_vm_stop vm_stop;
	struct msg_vm_patch vm_patch;
	struct msg_vm_page vm_page;
	struct msg_policy_put policy_put;
	struct msg_rule_list rule_list;
	struct msg_preset preset;
	struct msg_events_list events_list;
	struct msg_summary_get summary_get;
	struct msg_generals_list generals_list;
	struct msg_explain explain;
	struct msg_key_create key_create;
	struct msg_page page;
	struct {
		struct msg_rule_create msg;
		struct rule_asked asked;
	} rule_create;
	struct vm_wait {
		struct msg_object msg;
		uint8_t wait;
		uint32_t timeout_ms;
	} vm_wait;
	struct {
		struct msg_vm_open msg;
		struct exec_asked asked;
	} exec;
	struct exec_get {
		struct msg_vm_open msg;
		struct exec_get_asked asked;
	} exec_get;
	struct exec_signal {
		struct msg_vm_open msg;
		struct str signal;
		uint8_t number;
	} exec_signal;
	struct file_get {
		struct msg_vm_open msg;
		struct file_asked asked;
	} file;
};

/* An error of model/code.h in op_shape.errors. */
#define ERR(code) (1ULL << CODE_##code)

struct out_shape;

/* A successful answer that is not made of rows, for the description. media NULL ends an array. */
struct op_answer {
	const char *media;
	const struct out_shape *object; /* JSON: {"data": object}; NULL: what `doc` says */
	const char *doc;
	uint16_t status; /* 0: the operation's */
};
struct call;

enum answer_kind {
	ANSWER_NONE,   /* 204 */
	ANSWER_OBJECT, /* one row */
	ANSWER_LIST,   /* rows, has_more, cursor */
	ANSWER_ROLES,  /* one row and its roles, or roles alone */
	ANSWER_EXPLAIN, /* one row, and the rules that matched */
	ANSWER_EXEC,   /* what exec.h and exec_ws.h make of it */
	ANSWER_LOCAL,  /* answered without iron-control */
	ANSWER_BYTES,  /* a file's, an archive's, the console's, as they are */
};

/* Which members of the record the path's parts fill: offsets plus 1, 0 for none. */
struct op_shape {
	enum msg_type record;
	const struct field_set *query, *body;
	enum answer_kind answer;
	uint16_t row; /* enum msg_type of the answer's rows */
	uint16_t status;
	size_t vm_at, id_at, name_at;
	size_t body_at; /* where in union params the body's table writes */
	/* After validation, before sending: what tables cannot say. May be NULL. */
	int (*finish)(union params *p, struct arena *a, struct error *reterr);
	bool open; /* no key is asked for */
	/* ERR(…) of every error beside those that any call may give (openapi.c: a bad key, a bad request, an id of the path
	 * that is nobody's, too many requests, a failure of iron's own). The description holds these and no others. */
	uint64_t errors;
	/* Where `answer` is none that is made of rows (ANSWER_EXEC and below): every form that the success may take. */
	const struct op_answer *answers;
	/* The request's body when it is bytes and no JSON, of any size and type, which `start` takes piece by piece: its media
	 * type; NULL: JSON by the table. */
	const char *body_media;
	const char *doc; /* more than op.h's summary says; may be NULL */
	/* Who answers it, instead of iron-control by rows. May be NULL. */
	void (*start)(struct call *c);
	bool upgrades;	   /* with Upgrade: websocket it is exec_ws.c's */
};

/* op < OP_COUNT. */
const struct op_shape *op_shape_get(enum api_op op);

/* What a member of an answer is. */
enum out_kind {
	OUT_TEXT,    /* struct str */
	OUT_U16,
	OUT_U32,
	OUT_U64,
	OUT_I64,
	OUT_FLAG,
	OUT_ID,	     /* uint64_t; choices is the prefix; 0 is "" */
	OUT_TIME,    /* int64_t; 0 is null */
	OUT_CHOICE,  /* uint8_t: base + index in choices */
	OUT_SCOPES,  /* uint32_t */
	OUT_TEXTS,   /* wire list */
	OUT_NUMBERS, /* wire list of u64 */
	OUT_LABELS,  /* wire list of "k=v" as an object */
	OUT_ALLOWED, /* uint8_t verdict: whether it passed */
	OUT_STATUS,  /* uint16_t; 0 is null */
	OUT_RULE,    /* struct str: an encoded rec_rule as an object; empty is null */
	OUT_RULES,   /* wire list of encoded rec_rule, as a preset's rules */
	OUT_JSON,    /* struct str: a JSON object, as it is */
	OUT_ROLE_ID, /* msg_role_row: of the VM or the workspace that the role is for, "" where there is one of it */
};
struct out_field {
	const char *name;
	enum out_kind kind;
	uint8_t base;
	const char *choices;
	size_t offset;
	size_t known; /* 1 + offset of a bool: false makes the value null; 0: always known */
	const char *doc;
};
struct out_shape {
	uint16_t row;		       /* enum msg_type */
	const struct wire_type *inner; /* the row's one member is such an encoded record, and the offsets are in it */
	const struct out_field *v;
	size_t n;
	const struct out_field *outer; /* after them, members of the row itself beside its inner record */
	size_t nouter;
	const char *name; /* in the description; NULL: the row's */
};
/* What an answer that is no row holds. */
extern const struct out_shape exec_started_shape, exec_shape, exec_output_shape, health_shape;
/* Rows that come from a VM, not from iron-control: numbers beyond those of messages. */
enum { ROW_EXEC = 60001, ROW_FILE, ROW_PRESET_RULE /* part of row_preset */ };
struct exec_view {
	uint64_t id, vm;
	struct str argv, command, user;
	bool tty, detached, ended, timed_out;
	uint8_t status; /* 0 running, 1 exited */
	uint16_t exit_code;
	int64_t started_at, ended_at;
	uint64_t output, kept_from;
};
struct file_view {
	struct str name;
	uint8_t type; /* enum file_kind */
	uint64_t size;
	struct str mode, owner, group;
	int64_t modified_at;
	struct str target;
};

/* NULL: no row of the API's. */
const struct out_shape *out_shape_get(uint16_t row);
