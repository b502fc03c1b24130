#pragma once
/* What a VM says of a command, as the API shows it. */
#include "api/json.h"
#include "codec/stream.h"

/* The members of an exec into an object that is open. vm: whose. kept_from: the oldest byte of its output that is kept. */
void exec_put(struct json *j, const struct stream_exec_row *row, uint64_t vm, uint64_t kept_from);
/* For an answer of ATTACH, whose row says where its output begins: what is kept, by that and by what was asked. */
uint64_t exec_kept_from(const struct stream_exec_row *row, uint64_t asked_offset);
