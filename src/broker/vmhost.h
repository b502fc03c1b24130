#pragma once
/* What irond (requests, roles) asks of the code around one VM: its namespace and door, its disk, QEMU, images, the
 * accelerator, the host's second wall. The files of this header's functions are netns, nft, netlink, qemu, overlay, accel
 * and image*; none of them knows the loop, a channel or the table of VMs. All of them run as root in irond.
 *
 * Every function may block for a short while (milliseconds; those that take longer say so), answers 0 or a negative
 * errno with a reason for a person, and leaves nothing behind when it fails: no process, mount, file or descriptor.
 * Descriptors that are handed out are close-on-exec and the caller's. Descriptors that are passed in stay the caller's.
 * Paths are irond's own, absolute and trusted. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "conf/conf.h"

/* --- the network namespace and its door (netns, nft, netlink) --- */

struct vm_net {
	int tap_fd;   /* tap0, IFF_VNET_HDR, for QEMU */
	int tcp_fd;   /* TPROXY listener, 0.0.0.0:15001, IP_TRANSPARENT, listening, non-blocking */
	int udp_fd;   /* 0.0.0.0:53, IP_TRANSPARENT, IP_PKTINFO and IP_RECVORIGDSTADDR on, non-blocking */
	int nflog_fd; /* NETLINK_NETFILTER, bound to group 7, copy range 128, non-blocking */
};

/* Makes a namespace with the two walls and pins it at pin_path (made here: a file that is bind-mounted over). */
int vm_net_create(const char *pin_path, struct vm_net *ret, struct error *reterr);
/* The door's sockets anew in a namespace that is held, without a tap (-1): for a restarted irond. The former sockets must
 * be closed: -EADDRINUSE, -EBUSY. */
int vm_net_reopen(const char *pin_path, struct vm_net *ret, struct error *reterr);
/* Closes what is open (-1: none) and forgets it; NULL-safe, idempotent. */
void vm_net_close(struct vm_net *net);
/* What the guest's card has sent and received, by the counters of the tap: as long as one holds it open. */
int vm_net_bytes(const char *pin_path, uint64_t *ret_sent, uint64_t *ret_received);
/* Unmounts and removes the pin; an absent or half-made one is fine. */
void vm_net_unpin(const char *pin_path);

/* The second wall: an nft output rule set `inet <instance>-host` that keeps the uids [uid_first, uid_first + uid_count)
 * from what is never dialled (conf->egress; this host's own addresses; port 53 to the resolvers excepted). Replaces an
 * earlier one of the same instance in one transaction. remove: an absent one is fine. */
int nft_host_install(const struct conf *conf, uid_t uid_first, unsigned uid_count, struct error *reterr);
void nft_host_remove(const char *instance);

/* --- the disk (overlay) --- */

/* Makes `path` (must not exist) a qcow2 of max(disk_gib, the image's disk), owner uid:gid, mode 0600, that names no
 * backing file: QEMU is told its backing node. base_fd: the image's disk.raw, -1 where the image has none (mini). */
int overlay_create(const char *path, int base_fd, uint32_t disk_gib, uid_t uid, gid_t gid, struct error *reterr);

/* --- the accelerator (accel) --- */

struct accel {
	bool kvm;             /* false: TCG */
	char reason[256];     /* why, one sentence */
	char qemu_version[128];
	uint32_t tsc_khz;     /* for tsc_early_khz=, 0: do not set */
};

/* The verdict, from its cache below state_dir or by a probe, which may take seconds (bounded by 20). Never fails but for a
 * QEMU that is missing: -ENOENT. */
int accel_get(const struct conf *conf, struct accel *ret, struct error *reterr);

/* --- images (image*) --- */

struct image {
	uint64_t id;
	char name[64], hash[65], kernel[128];
	char made_from[1024];
	uint64_t size_bytes;
	int64_t created_at; /* ms */
	bool has_disk;
};

struct image_list {
	struct image *v;
	size_t n;
};

/* Every complete image below state_dir/images; one that is damaged is left out and logged. Newest of a name first. */
int image_scan(const char *state_dir, struct image_list *ret, struct error *reterr);
void image_list_finish(struct image_list *l);

/* Removes an image's files; an absent one is fine. */
int image_remove(const char *state_dir, uint64_t id);

struct image_files {
	int kernel_fd, initrd_fd, disk_fd; /* read-only; disk_fd -1: none */
	char cmdline[512];                 /* the image's own part of the kernel command line */
};
/* -ENOENT: no such image. */
int image_open(const char *state_dir, uint64_t id, struct image_files *ret, struct error *reterr);
void image_files_close(struct image_files *f); /* idempotent */

struct image_builder {
	const struct conf *conf;
	const char *libexec; /* where iron-agent, iron-worker and iron-recipe are */
	bool force;          /* also when there is one of the same inputs */
	/* Asks the running irond (ctl.h). -ENOENT, -ECONNREFUSED: none runs. NULL: none may be asked. */
	int (*request)(const struct conf *conf, const char *const *words, void (*print)(const char *line, void *user),
		       void *user, struct error *reterr);
};

/* `irond image build WHAT`: base, mini, or the path of a recipe (iron-recipe(5)); in the calling process, minutes long;
 * progress on stdout, cached by a hash of the inputs. It ends its children when it is told to stop by SIGINT or SIGTERM and
 * leaves nothing; the signal then takes its effect on the process. Another build at the same time: -EBUSY. The user
 * iron-work must exist, and own a range of subordinate uids and gids for what is made from Debian's packages. A recipe with
 * scripts needs a running irond. */
int image_build(const struct image_builder *by, const char *what, struct error *reterr);
/* `irond image rebuild`: the same for every image of a known recipe that is older than so many days, or made from one that
 * was made anew. One that fails is told on stderr and does not keep the others: -EIO. */
int image_rebuild(const struct image_builder *by, unsigned days, struct error *reterr);

/* --- QEMU (qemu) --- */

/* What a VM's disk may do in a second, and for how long more than that. 0: unbounded. */
struct disk_limits {
	uint32_t iops, iops_burst, mib_per_s, mib_per_s_burst;
	uint32_t burst_s;
};

struct qemu_args {
	uint64_t vm;            /* for names and logs */
	uid_t uid;
	gid_t gid;
	uint32_t vcpus, memory_mib;
	bool kvm;
	uint32_t tsc_khz;
	const struct image_files *image;
	int overlay_fd;         /* read-write, -1: a VM without a disk */
	struct disk_limits disk_limits;
	int tap_fd;
	const char *run_dir;    /* run_dir/vms/<id>, exists, root's: qmp.sock, agent.sock and console.sock are made in it,
				 * listening before QEMU runs, and replace stale ones */
	const int *cgroup_procs; /* open cgroup.procs files (one a v1 hierarchy); the child writes "0" to each before it
				  * drops anything */
	size_t n_cgroup_procs;
	int log_fd;             /* QEMU's stdout and stderr */
};

struct qemu_process {
	pid_t pid; /* a child of the caller's, not reaped; first process of its pid namespace */
	int pidfd;
};

/* Answers when exec has happened (or says why it has not); the sockets accept from then on. */
int qemu_spawn(const struct qemu_args *args, struct qemu_process *ret, struct error *reterr);
