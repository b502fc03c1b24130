/* Any bytes, as either end may send them: no fault, what decoded encodes back to the same bytes, and a scan for the
 * hello always moves on. */
#include <stdlib.h>

#include "codec/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_record(const struct agent_frame *f)
{
	_Alignas(16) union {
		struct agent_step step;
		struct agent_step_done done;
		struct stream_exec exec;
	} record;
	uint32_t credit;

	if (f->type == AGENT_STEP)
		wire_decode(&agent_step_wire, f->payload, &record);
	else if (f->type == AGENT_STEP_DONE)
		wire_decode(&agent_step_done_wire, f->payload, &record);
	else if (f->type == AGENT_EXEC)
		wire_decode(&stream_exec_wire, f->payload, &record);
	else if (f->type == AGENT_CREDIT)
		agent_credit_decode(f->payload, &credit);
}

static void check_frames(struct str in, enum agent_side sender)
{
	_cleanup_(buf_finish) struct buf again = {0};
	struct agent_frame f;
	struct str before = in;

	while (agent_frame_next(&in, sender, &f) == 1) {
		buf_clear(&again);
		if (agent_frame_encode(f.type, f.stream, f.payload, &again) || again.len != before.len - in.len ||
		    memcmp(again.data, before.p, again.len) != 0)
			abort();
		check_record(&f);
		before = in;
	}
}

static void check_sync(struct str in, enum agent_type type)
{
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint32_t version;

	while (agent_sync(&in, type, &version, nonce) == 1)
		;
	if (in.len >= AGENT_HEADER_SIZE + AGENT_HELLO_SIZE)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str in = str_make(data, size);

	check_frames(in, AGENT_HOST);
	check_frames(in, AGENT_GUEST);
	check_sync(in, AGENT_HELLO);
	check_sync(in, AGENT_HELLO_ACK);
	return 0;
}
