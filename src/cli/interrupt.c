#include "cli/interrupt.h"

#include <signal.h>

static volatile sig_atomic_t came;

static void on_signal(int number)
{
	came = 1;
	signal(number, SIG_DFL);
}

void interrupt_catch(void)
{
	/* calls that wait are to end with EINTR: no SA_RESTART */
	struct sigaction a = {.sa_handler = on_signal};

	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGHUP, &a, NULL);
}

bool interrupted(void)
{
	return came;
}

void interrupt_forget(void)
{
	came = 0;
}
