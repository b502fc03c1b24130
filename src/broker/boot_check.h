#pragma once
/* Boots an image once, confined like any VM but without a network, until its agent answers: proof that it boots, and that
 * an accelerator works. What the guest says is compared, never interpreted. */
#include "broker/vmhost.h"

struct boot_check {
	const struct conf *conf;
	const struct image_files *image;
	const char *scratch; /* a directory of root's: the overlay of an image with a disk is made and removed there */
	bool kvm;
	uint32_t tsc_khz, memory_mib;
	unsigned deadline_ms;
	int stop_fd; /* when readable the check is given up (-EINTR); -1: none */
};

/* 0: the agent answered, after *ret_ms. -ETIMEDOUT: it did not in time; -ECHILD: QEMU ended; the reason holds the last
 * lines of the console, escaped. Nothing is left either way. */
int boot_check_run(const struct boot_check *c, uint64_t *ret_ms, struct error *reterr);
