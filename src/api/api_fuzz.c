/* What the API's tables accept, whatever was sent, is a record that can be sent on: the first byte chooses the operation,
 * then comes the query up to a newline, then the body. */
#include <assert.h>

#include "api/answer.h"
#include "api/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_call(enum api_op op, struct str query, struct str body)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)1 << 20};
	_cleanup_(buf_finish) struct buf out = {.max = MSG_MAX};
	const struct op_shape *shape = op_shape_get(op);
	static union params p;
	struct error e = {0};

	p = (union params){0};
	int r = fields_parse_query(shape->query, query, &a, &p, &e);
	if (r == 0)
		r = fields_parse_body(shape->body, body, &a, (char *)&p + shape->body_at, &e);
	if (r == 0 && shape->finish)
		r = shape->finish(&p, &a, &e);
	if (r) {
		assert(e.text[0]);
		answer_error(&out, "x", str_of(e.text));
		return;
	}
	/* The one bound that a message has as a whole is told from call_ask. */
	r = wire_encode(msg_info_find((uint16_t)shape->record)->wire, &p, &out);
	assert(r == 0 || out.failed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(buf_finish) struct buf allow = BUF_MAX(128);
	struct str in = str_make(data, size), query;
	enum api_code code;
	struct route route;

	if (size == 0)
		return 0;
	in = str_make(data + 1, size - 1);
	route_find(STR("GET"), in, &route, &allow, &code);
	if (!str_split(&in, '\n', &query))
		return 0;
	try_call((enum api_op)(data[0] % OP_COUNT), query, in);
	return 0;
}
