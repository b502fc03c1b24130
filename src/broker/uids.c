#include "broker/uids.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "os/fdutil.h"

static const struct {
	enum role role;
	const char *user;
} role_users[] = {
	{ROLE_API, "iron-api"}, {ROLE_CONTROL, "iron"}, {ROLE_AUDIT, "iron-audit"}, {ROLE_WORKER, "iron-work"}};

struct slots {
	uint64_t *bits;
	uint32_t n, next; /* next: where the search begins, so that a slot rests before it is used again */
};

struct uids {
	uid_t base;
	struct {
		uid_t uid;
		gid_t gid;
	} roles[ARRAY_SIZE(role_users)];
	struct slots workers, vms;
};

static bool in_range(const struct uids *u, uint64_t first, uint64_t count)
{
	return first < (uint64_t)u->base + UIDS_TOTAL && first + count > u->base;
}

static int find_roles(struct uids *u, const char *const users[4], struct error *reterr)
{
	for (size_t i = 0; i < ARRAY_SIZE(role_users); i++) {
		const char *name = users ? users[i] : role_users[i].user;
		const struct passwd *pw = getpwnam(name);
		if (!pw)
			return error_set(
				reterr, -ENOENT,
				"there is no user '%s'; make it: useradd --system --user-group --no-create-home "
				"--home-dir /nonexistent --shell /usr/sbin/nologin %s",
				name, name);
		if (pw->pw_uid == 0 || pw->pw_gid == 0)
			return error_set(reterr, -EPERM, "the user '%s' must not be root nor in root's group", name);
		u->roles[i].uid = pw->pw_uid;
		u->roles[i].gid = pw->pw_gid;
	}
	return 0;
}

static int check_databases(const struct uids *u, struct error *reterr)
{
	const struct passwd *pw;
	const struct group *gr;
	int r = 0;

	setpwent();
	while (r == 0 && (pw = getpwent()))
		if (in_range(u, pw->pw_uid, 1))
			r = error_set(
				reterr, -EADDRINUSE,
				"uid_base %u: uid %u of the range of %u belongs to user '%s'; set another uid_base",
				u->base, pw->pw_uid, UIDS_TOTAL, pw->pw_name);
	endpwent();
	setgrent();
	while (r == 0 && (gr = getgrent()))
		if (in_range(u, gr->gr_gid, 1))
			r = error_set(
				reterr, -EADDRINUSE,
				"uid_base %u: gid %u of the range of %u belongs to group '%s'; set another uid_base",
				u->base, gr->gr_gid, UIDS_TOTAL, gr->gr_name);
	endgrent();
	return r;
}

/* subuid(5): "name:first:count". */
static int check_subordinate(const struct uids *u, const char *etc, const char *file, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", etc, file);
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line;
	unsigned number = 0;
	int r = file_read(path, (size_t)1 << 20, &b);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	text = buf_str(&b);
	while (str_split(&text, '\n', &line)) {
		struct str name, first, count = line;
		uint64_t a, n;
		number++;
		if (!str_split(&count, ':', &name) || !str_split(&count, ':', &first) ||
		    str_parse_u64(first, UINT32_MAX, &a) < 0 || str_parse_u64(count, UINT32_MAX, &n) < 0)
			continue; /* newuidmap ignores such a line too */
		if (in_range(u, a, n))
			return error_set(
				reterr, -EADDRINUSE,
				"uid_base %u: %s:%u gives ids of the range of %u to '%.*s'; set another uid_base",
				u->base, path, number, UIDS_TOTAL, STR_ARG(name));
	}
	return 0;
}

static void slots_init(struct slots *s, uint32_t n)
{
	*s = (struct slots){.bits = xcalloc(n / 64, sizeof(uint64_t)), .n = n};
}

int uids_create(uid_t base, const char *etc, const char *const users[4], struct uids **ret, struct error *reterr)
{
	struct uids *u = xcalloc(1, sizeof *u);
	int r;

	u->base = base;
	slots_init(&u->workers, UIDS_WORKERS);
	slots_init(&u->vms, UIDS_VMS);
	if ((r = find_roles(u, users, reterr)) < 0 || (r = check_databases(u, reterr)) < 0 ||
	    (r = check_subordinate(u, etc, "subuid", reterr)) < 0 ||
	    (r = check_subordinate(u, etc, "subgid", reterr)) < 0) {
		uids_destroy(u);
		return r;
	}
	*ret = u;
	return 0;
}

void uids_destroy(struct uids *u)
{
	if (!u)
		return;
	free(u->workers.bits);
	free(u->vms.bits);
	free(u);
}

void uids_role(const struct uids *u, enum role role, uid_t *ret_uid, gid_t *ret_gid)
{
	for (size_t i = 0; i < ARRAY_SIZE(role_users); i++)
		if (role_users[i].role == role) {
			*ret_uid = u->roles[i].uid;
			*ret_gid = u->roles[i].gid;
			return;
		}
	abort();
}

static bool slot_is_taken(const struct slots *s, uint32_t i)
{
	return s->bits[i / 64] >> (i % 64) & 1;
}

static int slots_claim(struct slots *s, uint32_t i)
{
	if (i >= s->n)
		return -ERANGE;
	if (slot_is_taken(s, i))
		return -EEXIST;
	s->bits[i / 64] |= 1ULL << (i % 64);
	return 0;
}

static int slots_take(struct slots *s, uint32_t *ret)
{
	for (uint32_t k = 0; k < s->n; k++) {
		uint32_t i = (s->next + k) % s->n;
		if (slots_claim(s, i) < 0)
			continue;
		s->next = (i + 1) % s->n;
		*ret = i;
		return 0;
	}
	return -ENOSPC;
}

static void slots_release(struct slots *s, uint32_t i)
{
	if (i < s->n)
		s->bits[i / 64] &= ~(1ULL << (i % 64));
}

int uids_worker_take(struct uids *u, uint32_t *ret_slot)
{
	return slots_take(&u->workers, ret_slot);
}

int uids_worker_claim(struct uids *u, uid_t uid, uint32_t *ret_slot)
{
	int r = uid < u->base ? -ERANGE : slots_claim(&u->workers, uid - u->base);

	if (r == 0)
		*ret_slot = uid - u->base;
	return r;
}

void uids_worker_release(struct uids *u, uint32_t slot)
{
	slots_release(&u->workers, slot);
}

int uids_vm_take(struct uids *u, uint32_t *ret_slot)
{
	return slots_take(&u->vms, ret_slot);
}

int uids_vm_claim(struct uids *u, uint32_t slot)
{
	return slots_claim(&u->vms, slot);
}

void uids_vm_release(struct uids *u, uint32_t slot)
{
	slots_release(&u->vms, slot);
}

uid_t uids_worker(const struct uids *u, uint32_t slot)
{
	return u->base + slot;
}

uid_t uids_vm(const struct uids *u, uint32_t slot)
{
	return u->base + UIDS_WORKERS + 2 * slot;
}

uid_t uids_qemu(const struct uids *u, uint32_t slot)
{
	return uids_vm(u, slot) + 1;
}
