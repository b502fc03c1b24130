#pragma once
/* iron.yaml: what an operator may set. Every key is declared once, in conf_table.h; the parser (libcyaml), the checks,
 * the example file and the man page's list come from that table. Read by irond alone, as root; roles are told what they
 * need in their configuration message. */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct conf_shape {
	char *name;
	uint32_t vcpus, memory_mib;
};

struct conf_private {
	char *cidr;
	char **hosts;
	unsigned hosts_count;
};

struct conf_tls {
	char *cert_file, *key_file;
};

struct conf_egress {
	char **resolvers; /* "ADDRESS" or "ADDRESS#PORT" */
	unsigned resolvers_count;
	char **extra_ca_files;
	unsigned extra_ca_files_count;
	char **never_dial; /* CIDRs and addresses, besides those that no setting opens */
	unsigned never_dial_count;
	char **packages; /* NAME=HOST or NAME=HOST:PORT */
	unsigned packages_count;
	struct conf_private *private_allow;
	unsigned private_allow_count;
	char *synthetic_range;       /* IPv4 CIDR; parsed: */
	uint32_t synthetic_base;     /* host order */
	uint8_t synthetic_prefix;
	uint32_t max_connections_per_vm;
	uint32_t peek_timeout_s, connect_timeout_s, idle_timeout_s, total_timeout_s;
};

struct conf_limits {
	uint32_t max_vms, max_vms_per_workspace;
	uint32_t memory_budget_mib; /* 0: what the host has, less 1 GiB */
	uint32_t boot_timeout_s, stop_timeout_s;
	uint32_t max_connections, max_body_kib, idle_timeout_s; /* of the API */
	uint32_t requests_per_key, requests_per_address, failures_per_address;
	uint32_t disk_iops, disk_iops_burst, disk_mib_per_s, disk_mib_per_s_burst, disk_burst_s; /* of one VM's disk; 0: none */
};

struct conf_audit {
	uint32_t segment_mib, sync_interval_ms, index_days;
};

struct conf {
	char **listen; /* "ADDRESS:PORT", IPv6 in brackets */
	unsigned listen_count;
	char *metrics_listen; /* the same, or empty */
	char *public_host;
	struct conf_tls tls;
	char *state_dir, *run_dir, *instance, *cgroup_root;
	uint32_t uid_base;
	char *sandbox; /* "full" or "degraded" */
	char *log_level;
	char *default_image;
	bool allow_tcg_multi_tenant;
	struct conf_shape *shapes; /* at least one; the first is the default */
	unsigned shapes_count;
	struct conf_egress egress;
	struct conf_limits limits;
	struct conf_audit audit;
};

#define CONF_DEFAULT_PATH "/etc/iron/iron.yaml"

/* Reads, checks and completes with defaults. reterr: "iron.yaml:12: egress.synthetic_range: expected …, not 'x'".
 * -ENOENT, -EACCES, -EINVAL. A missing file is an error; an empty one is all defaults. */
int conf_load(const char *path, struct conf **ret, struct error *reterr);
/* The same from text; name is what errors call it. */
int conf_parse(const char *name, struct str text, struct conf **ret, struct error *reterr);
void conf_destroy(struct conf *c);

/* Every key with its meaning and default, as a commented iron.yaml. */
int conf_write_example(struct buf *out);
/* The same as mdoc list items for iron.yaml(5). */
int conf_write_mdoc(struct buf *out);
