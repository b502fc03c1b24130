#pragma once
/* Ctrl-C and SIGTERM as a question, for what must clean up behind itself: caught from interrupt_catch on; a second one ends
 * the program at once. */
#include <stdbool.h>

void interrupt_catch(void);
bool interrupted(void);
void interrupt_forget(void); /* as if it had not come; still caught */
