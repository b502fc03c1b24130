/* Any bytes from QEMU's side: lines end, parsing does not fault, and what is an event has a name. */
#include <stdlib.h>

#include "codec/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str in = str_make(data, size), line;

	while (qmp_line_next(&in, &line) == 1) {
		struct qmp_message m = {0};
		if (qmp_message_parse(line, &m))
			continue;
		if ((m.kind == QMP_EVENT || m.kind == QMP_ERROR) && m.name[0] == '\0')
			abort();
		qmp_string(m.data, "status");
		qmp_flag(m.data, "guest");
		qmp_message_finish(&m);
	}
	return 0;
}
