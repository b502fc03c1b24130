#pragma once
/* The API's error codes and the HTTP status of each. C(id, status, text) */
#include <stdint.h>

#define CODE_TABLE(C)                                                                                                  \
	C(BAD_REQUEST, 400, "bad_request")                                                                             \
	C(UNAUTHORIZED, 401, "unauthorized")                                                                           \
	C(SCOPE_MISSING, 403, "scope_missing")                                                                         \
	C(NOT_FOUND, 404, "not_found")                                                                                 \
	C(VM_NOT_FOUND, 404, "vm_not_found")                                                                           \
	C(IMAGE_NOT_FOUND, 404, "image_not_found")                                                                     \
	C(RULE_NOT_FOUND, 404, "rule_not_found")                                                                       \
	C(KEY_NOT_FOUND, 404, "key_not_found")                                                                         \
	C(EXEC_NOT_FOUND, 404, "exec_not_found")                                                                      \
	C(FILE_NOT_FOUND, 404, "file_not_found")                                                                         \
	C(PRESET_NOT_FOUND, 404, "preset_not_found")                                                                   \
	C(METHOD_NOT_ALLOWED, 405, "method_not_allowed")                                                               \
	C(VM_NAME_TAKEN, 409, "vm_name_taken")                                                                         \
	C(VM_NOT_STOPPED, 409, "vm_not_stopped")                                                                       \
	C(VM_NOT_RUNNING, 409, "vm_not_running")                                                                       \
	C(VM_ALREADY_RUNNING, 409, "vm_already_running")                                                               \
	C(IDEMPOTENCY_MISMATCH, 409, "idempotency_mismatch")                                                           \
	C(RULE_NAME_TAKEN, 409, "rule_name_taken")                                                                     \
	C(TOO_LARGE, 413, "too_large")                                                                                 \
	C(UNSUPPORTED_MEDIA_TYPE, 415, "unsupported_media_type")                                                       \
	C(VALIDATION_ERROR, 422, "validation_error")                                                                   \
	C(RATE_LIMITED, 429, "rate_limited")                                                                           \
	C(QUOTA_EXCEEDED, 429, "quota_exceeded")                                                                       \
	C(INTERNAL, 500, "internal")                                                                                   \
	C(UNAVAILABLE, 503, "unavailable")                                                                             \
	C(NO_ROOM, 507, "no_room")

#define CODE_ENUM(id, status, text) CODE_##id,
enum api_code { CODE_TABLE(CODE_ENUM) CODE_COUNT };

uint16_t code_status(enum api_code code);
const char *code_text(enum api_code code);
