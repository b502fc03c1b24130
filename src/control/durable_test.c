/* What the API answered is on the disk: each change waits for a sync of the database before its answer, and what changes
 * nothing, or is done again after a power cut, waits for none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/fake.h"
#include "model/scope.h"

static unsigned syncs;

int fdatasync(int fd)
{
	syncs++;
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	syncs++;
	return (int)syscall(SYS_fsync, fd);
}

static int setup(void **state)
{
	*state = fake_create();
	return 0;
}

static int teardown(void **state)
{
	fake_destroy(*state);
	return 0;
}

static uint64_t vm, rule, key;

static unsigned create(struct fake *f)
{
	unsigned status;

	vm = fake_vm_create(f, "demo", &status);
	return status;
}

static unsigned start(struct fake *f)
{
	return fake_object(f, OP_VM_START, vm, 0, false);
}

static unsigned stop(struct fake *f)
{
	return fake_stop(f, vm);
}

static unsigned patch(struct fake *f)
{
	struct msg_vm_patch m = {.key_hash = fake_hash(f), .op = OP_VM_PATCH, .vm = vm, .restart = 1};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_vm_patch, &m, &a);

	fake_answer_finish(&a);
	return status;
}

static unsigned rule_create(struct fake *f)
{
	return fake_rule_create(f, vm, "", "example.com", &rule);
}

static unsigned rule_delete(struct fake *f)
{
	return fake_object(f, OP_VM_RULE_DELETE, vm, rule, false);
}

static unsigned policy(struct fake *f)
{
	struct msg_policy_put m = {.key_hash = fake_hash(f), .op = OP_POLICY_PUT, .mode = 1};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_policy_put, &m, &a);

	fake_answer_finish(&a);
	return status;
}

static unsigned key_create(struct fake *f)
{
	struct msg_key_create m = {.key_hash = fake_hash(f), .op = OP_KEY_CREATE, .name = STR("k"), .scopes = SCOPE_VM_READ};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_key_create, &m, &a);

	key = status == 201 ? ((struct row_key *)(void *)a.rows.v[0]->record)->id : 0;
	fake_answer_finish(&a);
	return status;
}

static unsigned key_delete(struct fake *f)
{
	return fake_object(f, OP_KEY_DELETE, 0, key, false);
}

static unsigned delete(struct fake *f)
{
	return fake_object(f, OP_VM_DELETE, vm, 0, true);
}

static unsigned show(struct fake *f)
{
	struct fake_answer a;
	unsigned status = fake_show(f, vm, 0, &a);

	fake_answer_finish(&a);
	return status;
}

static void test_each_answer_waits_for_the_disk(void **state)
{
	static const struct {
		const char *name;
		unsigned (*ask)(struct fake *f);
		unsigned status;
		bool durable;
	} calls[] = {
		{"create", create, 201, true},	     {"show", show, 200, false},
		{"patch", patch, 200, true},	     {"rule", rule_create, 201, true},
		{"no rule", rule_delete, 204, true}, {"mode", policy, 200, true},
		{"key", key_create, 201, true},	     {"no key", key_delete, 204, true},
		{"stop", stop, 200, true},	     {"start", start, 200, true},
		{"delete", delete, 204, true},
	};
	struct fake *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		fake_turn(f);
		unsigned before = syncs, status = calls[i].ask(f);
		if (status != calls[i].status || (syncs > before) != calls[i].durable)
			fail_msg("%s: %u, %u syncs", calls[i].name, status, syncs - before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_answer_waits_for_the_disk, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
