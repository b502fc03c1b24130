/* Any bytes, as either end may send them: no fault, what decoded encodes back to the same bytes, and a scan for the
 * hello always moves on. */
#include <stdlib.h>

#include "codec/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The record that a frame of this type carries. */
static const struct {
	enum agent_type type;
	const struct wire_type *record;
} records[] = {
	{AGENT_STEP, &agent_step_wire},         {AGENT_STEP_DONE, &agent_step_done_wire},
	{AGENT_EXEC, &stream_exec_wire},        {AGENT_SIGNAL, &stream_signal_wire},
	{AGENT_RESIZE, &stream_resize_wire},    {AGENT_EXIT, &stream_exit_wire},
	{AGENT_ERROR, &stream_error_wire},      {AGENT_ATTACH, &stream_attach_wire},
	{AGENT_EXEC_SIGNAL, &stream_exec_signal_wire}, {AGENT_EXEC_REMOVE, &stream_exec_ref_wire},
	{AGENT_FILE, &stream_file_wire},        {AGENT_EXEC_ROW, &stream_exec_row_wire},
	{AGENT_INFO, &stream_file_info_wire},
};

static void check_record(const struct agent_frame *f)
{
	_Alignas(16) uint8_t record[512];
	uint32_t credit;

	if (f->type == AGENT_CREDIT)
		agent_credit_decode(f->payload, &credit);
	for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
		_cleanup_(buf_finish) struct buf again = {0};
		if (records[i].type != f->type)
			continue;
		if (records[i].record->size > sizeof record)
			abort();
		if (wire_decode(records[i].record, f->payload, record))
			continue;
		if (wire_encode(records[i].record, record, &again) || !str_eq(buf_str(&again), f->payload))
			abort();
	}
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
