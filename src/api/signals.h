#pragma once
/* Signals as clients name them: "TERM", "SIGTERM" or "15". Linux's numbers, as the guest's are. */
#include "base/str.h"

#define SIGNAL_MAX 64
#define SIGNAL_NAMES "HUP|INT|QUIT|KILL|USR1|USR2|PIPE|ALRM|TERM|CONT|STOP|TSTP|ABRT|WINCH"

/* 0: none of these. */
unsigned signal_parse(struct str name);
