#include "model/code.h"

#define CODE_INFO(id, status, text) {(status), (text)},
static const struct {
	uint16_t status;
	const char *text;
} infos[] = {CODE_TABLE(CODE_INFO)};

uint16_t code_status(enum api_code code)
{
	return infos[code].status;
}

const char *code_text(enum api_code code)
{
	return infos[code].text;
}
