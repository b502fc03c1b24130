#pragma once
/* What a guest is told when something did not pass. */
#include "base/buf.h"
#include "base/str.h"
#include "codec/tls_hello.h"
#include "egress/door.h"

/* A JSON string with its quotes; bytes that are not printable ASCII as \u00XX, so that a hostile name stays text. */
void json_text(struct buf *out, struct str s);

/* A whole HTTP answer with a JSON body and Proxy-Status (RFC 9209). error: a type of its registry. head: to a HEAD. */
struct refusal {
	uint16_t status;
	const char *error; /* "http_request_denied" */
	const char *code;  /* "egress_denied" */
	const char *reason;
	bool policy;            /* says that it is this machine's policy, and that a retry is of no use */
	unsigned retry_after_s; /* 0: none */
	bool close, to_head;
};
void refusal_write(struct buf *out, const char *host, uint16_t port, const struct refusal *r);

/* Alert, then the end. */
void refuse_tls(struct conn *c, enum tls_alert alert);
