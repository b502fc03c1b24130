#include "api/signals.h"

#include <signal.h>

unsigned signal_parse(struct str name)
{
	static const int numbers[] = {SIGHUP,  SIGINT,	SIGQUIT, SIGKILL, SIGUSR1, SIGUSR2, SIGPIPE,
				      SIGALRM, SIGTERM, SIGCONT, SIGSTOP, SIGTSTP, SIGABRT, SIGWINCH};
	struct str rest = STR(SIGNAL_NAMES), item;
	uint64_t number;

	if (str_parse_u64(name, SIGNAL_MAX, &number) == 0)
		return (unsigned)number;
	if (str_has_prefix(name, STR("SIG")))
		name = str_make(name.p + 3, name.len - 3);
	for (size_t i = 0; str_split(&rest, '|', &item); i++)
		if (str_eq(item, name))
			return (unsigned)numbers[i];
	return 0;
}
