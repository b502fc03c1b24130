#pragma once
/* The keys of iron.yaml. K(kind, section, key, default, low, high, expected, meaning)
 *   kind: str, u32, flag, strs (list of strings), shapes, privates
 *   section: top, tls, egress, limits, audit
 *   default: the YAML text of the default value
 *   low, high: for u32, the bounds
 *   expected: what a value must be, for errors and documentation; a check of that name may exist in conf_check.c */
#define CONF_TOP(K)                                                                                                    \
	K(strs, top, listen, "[\"127.0.0.1:7443\"]", 0, 8, "a list of ADDRESS:PORT",                                   \
	  "Where the API listens. Loopback unless you mean it: whoever reaches it with a key controls VMs.")           \
	K(str, top, metrics_listen, "\"\"", 0, 63, "ADDRESS:PORT, or empty for none",                                  \
	  "Where GET /metrics answers Prometheus, in the clear and without a key: loopback, as 127.0.0.1:7444.")       \
	K(str, top, public_host, "\"\"", 0, 253, "a host name or address",                                             \
	  "The name under which clients reach this host, where it is not the one they asked for.")                     \
	K(str, top, state_dir, "/var/lib/iron", 1, 200, "an absolute path",                                            \
	  "What must survive a reboot: database, journal, images, disks.")                                             \
	K(str, top, run_dir, "/run/iron", 1, 60, "an absolute path of at most 60 bytes",                               \
	  "What need not: sockets, pinned namespaces. On a tmpfs.")                                                    \
	K(str, top, instance, "iron", 1, 15, "1 to 15 of a-z, 0-9 and -",                                              \
	  "Distinguishes several irond on one host (nft table, cgroup names).")                                        \
	K(u32, top, uid_base, "2000000", 100000, 4000000000, "a number from 100000 to 4000000000",                     \
	  "First of 36864 uids for egress workers and VMs. Must be free in passwd and subuid.")                        \
	K(str, top, cgroup_root, "iron", 1, 200, "a relative path without ..",                                         \
	  "The cgroup below which VMs and all roles are put, in one named as the instance.")                           \
	K(str, top, sandbox, "full", 1, 15, "full or degraded",                                                        \
	  "full: a wall that the kernel lacks is a start error. degraded: it is shown by `iron host`.")                \
	K(str, top, log_level, "info", 1, 15, "debug, info, warn or error", "Least level that is logged.")             \
	K(str, top, default_image, "base", 1, 63, "an image name", "The image of a VM whose creator names none.")      \
	K(flag, top, allow_tcg_multi_tenant, "false", 0, 0, "true or false",                                           \
	  "Without KVM, isolation rests on the process; more than one workspace needs this.")                          \
	K(shapes, top, shapes,                                                                                         \
	  "[{name: default, vcpus: 2, memory_mib: 2048}, {name: small, vcpus: 1, memory_mib: 512},"                    \
	  " {name: large, vcpus: 4, memory_mib: 8192}]",                                                               \
	  1, 32, "a list of {name, vcpus (1-32), memory_mib (256-262144)}",                                            \
	  "Sizes of VMs; the first is what a VM gets whose creator names none.")

#define CONF_TLS(K)                                                                                                    \
	K(str, tls, cert_file, "/var/lib/iron/tls/cert.pem", 1, 4095, "an absolute path",                              \
	  "Certificate chain of the API, PEM. Served with TLS 1.2 or later.")                                          \
	K(str, tls, key_file, "/var/lib/iron/tls/key.pem", 1, 4095, "an absolute path",                                \
	  "Its private key, PEM. irond reads both, looks each minute and on reload, and serves a renewed pair.")

#define CONF_EGRESS(K)                                                                                                 \
	K(strs, egress, resolvers, "[]", 0, 4, "a list of at most 4 ADDRESS or ADDRESS#PORT",                          \
	  "DNS servers for upstream names. Empty: those of /etc/resolv.conf when irond starts.")                       \
	K(strs, egress, extra_ca_files, "[]", 0, 16, "a list of absolute paths",                                       \
	  "Further certificate authorities (PEM) that guests are given to trust, for upstreams of your own.")          \
	K(strs, egress, never_dial, "[168.63.129.16/32]", 0, 256, "a list of addresses or CIDRs",                      \
	  "Never dialled, whatever a rule says; besides what is not globally reachable and this host's own.")          \
	K(strs, egress, packages, "[]", 0, 24, "a list of at most 24 NAME=HOST or NAME=HOST:PORT",                     \
	  "Presets of package sources: `iron egress preset add NAME` allows reading from its HOSTs (443, or PORT)."    \
	  " quickstart fills in those that this machine itself fetches packages from.")                               \
	K(privates, egress, private_allow, "[]", 0, 256, "a list of {cidr, hosts?}",                                   \
	  "Ranges that are not global and may be dialled all the same. With hosts, an ordinary rule for such a name"   \
	  " suffices; otherwise a rule must name the CIDR or `addresses`.")                                            \
	K(str, egress, synthetic_range, "28.0.0.0/15", 1, 18, "an IPv4 CIDR of /8 to /18",                             \
	  "Addresses that stand for names inside a VM. They never leave its namespace.")                               \
	K(u32, egress, max_connections_per_vm, "1024", 1, 65536, "a number from 1 to 65536",                           \
	  "Connections a VM may hold through the door at one time.")                                                   \
	K(u32, egress, peek_timeout_s, "10", 1, 600, "seconds, 1 to 600",                                              \
	  "How long a connection may take to show a ClientHello or a request.")                                        \
	K(u32, egress, connect_timeout_s, "10", 1, 600, "seconds, 1 to 600", "How long resolving and dialling may take.")\
	K(u32, egress, idle_timeout_s, "300", 1, 86400, "seconds, 1 to 86400", "A connection without a byte is closed.")\
	K(u32, egress, total_timeout_s, "86400", 1, 604800, "seconds, 1 to 604800", "The longest life of a connection.")

#define CONF_LIMITS(K)                                                                                                 \
	K(u32, limits, max_vms, "512", 1, 16384, "a number from 1 to 16384", "VMs on this host that are not destroyed.")\
	K(u32, limits, max_vms_per_workspace, "256", 1, 16384, "a number from 1 to 16384", "The same, a workspace.")   \
	K(u32, limits, memory_budget_mib, "0", 0, 16777216, "MiB, 0 for what the host has less 1 GiB",                 \
	  "Sum of the memory limits of running VMs.")                                                                  \
	K(u32, limits, boot_timeout_s, "180", 5, 3600, "seconds, 5 to 3600", "A boot that takes longer has failed.")   \
	K(u32, limits, stop_timeout_s, "30", 1, 600, "seconds, 1 to 600", "After that a stopping VM is killed.")       \
	K(u32, limits, max_connections, "1024", 16, 65536, "a number from 16 to 65536", "Open connections to the API.")\
	K(u32, limits, max_body_kib, "1024", 64, 65536, "KiB, 64 to 65536", "Largest JSON body.")                      \
	K(u32, limits, idle_timeout_s, "75", 1, 3600, "seconds, 1 to 3600", "A silent API connection is closed.")\
	K(u32, limits, requests_per_key, "1000", 0, 1000000, "a second, 0 to 1000000; 0: unbounded",                   \
	  "API calls with one key, and ten times as many at once. Past it: 429.")                                      \
	K(u32, limits, requests_per_address, "2000", 0, 1000000, "a second, 0 to 1000000; 0: unbounded",               \
	  "API calls from one address (an IPv6 network of /64), and ten times as many at once.")                       \
	K(u32, limits, failures_per_address, "10", 0, 1000000, "a second, 0 to 1000000; 0: unbounded",                 \
	  "API calls from one address without a good key, and ten times as many at once.")                             \
	K(u32, limits, disk_mib_per_s, "256", 0, 65536, "MiB a second, 0 to 65536; 0: unbounded",                      \
	  "What one VM's disk may read and write, as a rule. It counts from the VM's next start, as the four below.")  \
	K(u32, limits, disk_mib_per_s_burst, "1024", 0, 65536, "MiB a second, 0 to 65536",                             \
	  "The same for a burst; no more than disk_mib_per_s: no burst.")                                              \
	K(u32, limits, disk_iops, "8000", 0, 1000000, "requests a second, 0 to 1000000; 0: unbounded",                 \
	  "How many requests one VM's disk takes, as a rule.")                                                         \
	K(u32, limits, disk_iops_burst, "32000", 0, 1000000, "requests a second, 0 to 1000000",                        \
	  "The same for a burst; no more than disk_iops: no burst.")                                                   \
	K(u32, limits, disk_burst_s, "10", 0, 3600, "seconds, 0 to 3600", "How long a burst may last.")

#define CONF_AUDIT(K)                                                                                                  \
	K(u32, audit, segment_mib, "16", 1, 1024, "MiB, 1 to 1024", "Size of a segment of the journal.")               \
	K(u32, audit, sync_interval_ms, "50", 1, 1000, "ms, 1 to 1000", "The longest a record waits to be on the disk.")\
	K(u32, audit, index_days, "0", 0, 36500, "days, 0 for all",                                                    \
	  "How long events are listed by `iron audit`. The journal itself keeps them.")

#define CONF_TABLE(K) CONF_TOP(K) CONF_TLS(K) CONF_EGRESS(K) CONF_LIMITS(K) CONF_AUDIT(K)
