#pragma once
/* The single walls, for sandbox.c alone. */
#include "os/sandbox.h"

/* The Landlock ABI of this kernel, 0: none. */
int landlock_abi(void);
/* A rule set for `paths` (NULL: none), as a descriptor; entered with landlock_enter after no_new_privs. */
int landlock_prepare(int abi, const struct sandbox *s, const struct sandbox_path *paths, int *ret_fd,
		     struct error *reterr);
int landlock_enter(int fd, struct error *reterr);

bool seccomp_available(void);
/* Loads the filter; needs no_new_privs. */
int seccomp_enter(const struct sandbox *s, struct error *reterr);
