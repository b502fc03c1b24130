#include "egress/names.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/map.h"
#include "codec/hostname.h"

/* Theory: record i holds the name of address base + 1 + i (the last one: base itself, so that a /18 is enough). Records
 * are filled in order; the order of use is a list of indexes in memory, rebuilt from the times in the file when a
 * worker takes it over. */

#define MAGIC 0x31656d616e6e7269ULL /* "irnname1" */
#define NONE 0xffffU

struct file_header {
	uint64_t magic;
	uint32_t base;
	uint32_t prefix;
	uint8_t reserved[4080];
};

struct file_record {
	int64_t used_ms; /* real time of the last query or connection; 0: free */
	uint8_t len;
	char name[255];
};

struct file {
	struct file_header header;
	struct file_record records[NAMES_MAX];
};

struct link {
	uint16_t older, newer;
};

struct names {
	struct file *file;
	uint32_t base;
	unsigned prefix;
	struct map index; /* name -> record number + 1 */
	unsigned count;   /* records 0..count-1 have been used, some of them may be free again */
	uint16_t oldest, newest;
	struct link links[NAMES_MAX];
	uint32_t held[NAMES_MAX];
	uint16_t free_list[NAMES_MAX]; /* cleared records below count */
	unsigned nfree;
};

static void unlink_record(struct names *n, uint16_t i)
{
	struct link *l = &n->links[i];

	if (l->older == NONE)
		n->oldest = l->newer;
	else
		n->links[l->older].newer = l->newer;
	if (l->newer == NONE)
		n->newest = l->older;
	else
		n->links[l->newer].older = l->older;
}

static void link_newest(struct names *n, uint16_t i)
{
	n->links[i] = (struct link){.older = (uint16_t)n->newest, .newer = NONE};
	if (n->newest == NONE)
		n->oldest = i;
	else
		n->links[n->newest].newer = i;
	n->newest = i;
}

static void touch(struct names *n, uint16_t i, int64_t now_ms)
{
	n->file->records[i].used_ms = now_ms;
	if (n->newest == i)
		return;
	unlink_record(n, i);
	link_newest(n, i);
}

static struct str record_name(const struct file_record *r)
{
	return str_make(r->name, r->len);
}

static bool record_is_sound(const struct names *n, const struct file_record *r, int64_t now_ms)
{
	struct str name = record_name(r);

	if (r->used_ms <= 0 || r->used_ms > now_ms || r->len == 0 || r->len > HOSTNAME_MAX)
		return false;
	return hostname_is_canonical(name) && !map_get_str(&n->index, name);
}

static int older_first(const void *a, const void *b, void *arg)
{
	const struct file *f = arg;
	int64_t ta = f->records[*(const uint16_t *)a].used_ms, tb = f->records[*(const uint16_t *)b].used_ms;

	return (ta > tb) - (ta < tb);
}

/* Every record is judged; what is sound is put in the order of its use. */
static void take_over(struct names *n, int64_t now_ms)
{
	_cleanup_free_ uint16_t *order = xcalloc(NAMES_MAX, sizeof *order);
	size_t sound = 0;

	for (unsigned i = 0; i < NAMES_MAX; i++) {
		struct file_record *r = &n->file->records[i];
		if (r->used_ms == 0 && r->len == 0)
			continue; /* never touched: its page stays a hole */
		if (record_is_sound(n, r, now_ms)) {
			map_put_str(&n->index, record_name(r), (void *)(uintptr_t)(i + 1));
			order[sound++] = (uint16_t)i;
			n->count = i + 1;
		} else {
			*r = (struct file_record){0};
		}
	}
	for (unsigned i = 0; i < n->count; i++)
		if (n->file->records[i].len == 0)
			n->free_list[n->nfree++] = (uint16_t)i;
	qsort_r(order, sound, sizeof *order, older_first, n->file);
	for (size_t i = 0; i < sound; i++)
		link_newest(n, order[i]);
}

static int map_file(int fd, struct file **ret)
{
	off_t size = lseek(fd, 0, SEEK_END);

	if (size < 0 || ((size_t)size < sizeof(struct file) && ftruncate(fd, sizeof(struct file))))
		return -errno;
	void *p = mmap(NULL, sizeof(struct file), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

int names_open(int fd, uint32_t base, unsigned prefix, int64_t now_ms, struct names **ret, struct error *reterr)
{
	struct file *file;

	if (prefix > 32 || prefix == 0 || ((uint64_t)1 << (32 - prefix)) < NAMES_MAX)
		return error_set(reterr, -EINVAL, "the synthetic range must hold %u addresses", NAMES_MAX);
	int r = map_file(fd, &file);
	if (r)
		return error_set(reterr, r, "cannot map the table of names");
	struct names *n = xcalloc(1, sizeof *n);
	*n = (struct names){.file = file, .base = base, .prefix = prefix, .oldest = NONE, .newest = NONE};
	if (file->header.magic != MAGIC || file->header.base != base || file->header.prefix != prefix) {
		memset(file, 0, sizeof *file);
		file->header = (struct file_header){.magic = MAGIC, .base = base, .prefix = prefix};
	}
	take_over(n, now_ms);
	*ret = n;
	return 0;
}

void names_close(struct names *n)
{
	if (!n)
		return;
	munmap(n->file, sizeof *n->file);
	map_finish(&n->index);
	free(n);
}

static bool may_recycle(const struct names *n, uint16_t i, int64_t now_ms)
{
	return n->held[i] == 0 && now_ms - n->file->records[i].used_ms >= NAMES_REUSE_MS;
}

/* The least recently used record that nothing holds. Held ones are passed over: they are few, and are touched when the
 * last of their connections ends. */
static int recycle(struct names *n, int64_t now_ms)
{
	for (uint16_t i = n->oldest; i != NONE; i = n->links[i].newer) {
		if (now_ms - n->file->records[i].used_ms < NAMES_REUSE_MS)
			return -EBUSY;
		if (!may_recycle(n, i, now_ms))
			continue;
		map_remove_str(&n->index, record_name(&n->file->records[i]));
		unlink_record(n, i);
		return i;
	}
	return -EBUSY;
}

static int free_record(struct names *n, int64_t now_ms)
{
	if (n->nfree)
		return n->free_list[--n->nfree];
	if (n->count < NAMES_MAX)
		return (int)n->count++;
	return recycle(n, now_ms);
}

static uint32_t address_of(const struct names *n, unsigned i)
{
	return n->base + (i + 1) % NAMES_MAX;
}

int names_address(struct names *n, struct str name, int64_t now_ms, uint32_t *ret_addr)
{
	uintptr_t known = (uintptr_t)map_get_str(&n->index, name);

	if (known) {
		touch(n, (uint16_t)(known - 1), now_ms);
		*ret_addr = address_of(n, (unsigned)known - 1);
		return 0;
	}
	if (name.len == 0 || name.len > HOSTNAME_MAX)
		return -EINVAL;
	int i = free_record(n, now_ms);
	if (i < 0)
		return i;
	struct file_record *r = &n->file->records[i];
	*r = (struct file_record){.used_ms = now_ms, .len = (uint8_t)name.len};
	memcpy(r->name, name.p, name.len);
	link_newest(n, (uint16_t)i);
	map_put_str(&n->index, name, (void *)(uintptr_t)(i + 1));
	*ret_addr = address_of(n, (unsigned)i);
	return 0;
}

bool names_in_range(const struct names *n, uint32_t addr)
{
	return (addr ^ n->base) >> (32 - n->prefix) == 0;
}

int names_find(const struct names *n, uint32_t addr, struct str *ret_name)
{
	if (addr - n->base >= NAMES_MAX)
		return -ENOENT;
	uint32_t i = (addr - n->base + NAMES_MAX - 1) % NAMES_MAX;
	if (i >= n->count || n->file->records[i].len == 0)
		return -ENOENT;
	*ret_name = record_name(&n->file->records[i]);
	return (int)i;
}

void names_hold(struct names *n, int index, int64_t now_ms)
{
	n->held[index]++;
	touch(n, (uint16_t)index, now_ms);
}

void names_release(struct names *n, int index, int64_t now_ms)
{
	n->held[index]--;
	touch(n, (uint16_t)index, now_ms);
}

unsigned names_count(const struct names *n)
{
	return n->count - n->nfree;
}
