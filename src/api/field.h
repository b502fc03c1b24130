#pragma once
/* What a call takes, as tables: the members of a JSON body and the parameters of a query, each with its kind, bounds and
 * place in the record that it fills. Validation, and the description of the API, come from these tables alone.
 *
 * Rules that hold for every table: an unknown member or parameter is an error that names it; a
 * repeated one is an error; an empty optional text in a body is an absent one; an empty query value is an error; JSON null
 * is an absent member. Errors are one sentence that begins with the member's name ("egress.rules[2].ports: …"). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "codec/msg_egress.h"

enum field_kind {
	FIELD_TEXT,   /* struct str: printable, lo to hi bytes; or one of choices; or as `check` says */
	FIELD_BYTES,  /* struct str: any bytes but NUL, at most hi */
	FIELD_BASE64, /* struct str: decoded, at most hi bytes */
	FIELD_U16,    /* uint16_t, lo to hi */
	FIELD_U32,    /* uint32_t, lo to hi; stored times `scale` */
	FIELD_U64,    /* uint64_t, lo to hi (INT64_MAX at most) */
	FIELD_FLAG,   /* bool */
	FIELD_FLAG3,  /* uint8_t: 0 absent, 1 false, 2 true */
	FIELD_CHOICE, /* uint8_t: base + index in choices */
	FIELD_TIME,   /* int64_t: ms since 1970 */
	FIELD_ID,     /* uint64_t; choices is the prefix */
	FIELD_SCOPES, /* uint32_t: enum scope */
	FIELD_TEXTS,  /* struct str, a wire list: at most `items` texts of 1 to hi bytes each */
	FIELD_ARGS,   /* the same of FIELD_BYTES, where items may be empty */
	FIELD_PORTS,  /* struct str, a wire list of u64: at most `items` */
	FIELD_LABELS, /* struct str, a wire list of "k=v", from an object */
	FIELD_LABEL,  /* two struct str (key, value) side by side, from "k=v" */
	FIELD_ENV,    /* struct str, a wire list of "K=V", from an object; values hold anything but NUL */
	FIELD_OBJECT, /* members of `sub`, in the same record */
	FIELD_RULES,  /* struct str, a wire list of encoded rec_rule read by `sub`; a u64 after it: which gave tls */
};

struct field_set;

struct field {
	const char *name;
	enum field_kind kind;
	bool required;
	bool trim;	/* texts: white space around it is dropped */
	uint32_t or_number; /* TEXT, required, in a body: a whole number from 1 up to this stands for its digits */
	bool plus;	/* query: "+" is itself a plus, not a space (always so for FIELD_TIME) */
	uint8_t base;
	uint64_t lo, hi;
	uint32_t absent; /* FLAG, U16, U32, CHOICE: the value of an absent one, as stored */
	uint32_t scale;	 /* 0: 1 */
	uint32_t items;
	size_t total;	      /* largest encoded list, 0: no limit of its own */
	const char *choices; /* "a|b|c" */
	const char *pattern; /* what `check` asks for, as far as a regular expression says it: for the description only */
	int (*check)(const char *field, struct str s, struct error *reterr);
	const struct field_set *sub;
	size_t offset;
	size_t given; /* 1 + offset of a bool that tells whether it was there; 0: none */
	const char *doc;
};

struct field_set {
	const struct field *v;
	size_t n;
	/* What fields cannot say: one of two, both or none. May be NULL. -EINVAL with its sentence. */
	int (*check)(const void *record, struct error *reterr);
	/* What `check` says of these two, for the description: one of them must be there. */
	const char *either[2];
};

/* body: the bytes of a JSON object, or nothing, which is {}. Fills the record (zeroed by the caller), strings live in the
 * arena. -EBADMSG: not JSON (400). -EINVAL: JSON that is not what the table says (422). -EMSGSIZE: past the arena. */
int fields_parse_body(const struct field_set *set, struct str body, struct arena *a, void *record, struct error *reterr);
/* query: what follows "?", percent-encoded, "+" a space. */
int fields_parse_query(const struct field_set *set, struct str query, struct arena *a, void *record, struct error *reterr);

/* %XX decoded, and "+" to a space unless plus; p is NULL on a malformed escape or an encoded NUL. */
struct str percent_decode(struct str s, bool plus, struct arena *a);
/* Index of s in "a|b|c", or -1. */
int choice_find(const char *choices, struct str s);
/* The i-th choice, empty past the end. */
struct str choice_get(const char *choices, unsigned i);

/* What FIELD_RULES reads, and POST …/rules: a rule as asked for. */
struct rule_asked {
	struct rec_rule rule;
	bool tls_given;
};
