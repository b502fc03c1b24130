/* Idempotency-Key: the same call is done once, whatever dies in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/fake.h"
#include "model/scope.h"

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

#define ONE STR("11111111111111111111111111111111")
#define TWO STR("22222222222222222222222222222222")

static struct msg_vm_create vm_create(const struct fake *f, const char *name, struct str key, struct str fingerprint)
{
	return (struct msg_vm_create){.key_hash = fake_hash(f), .op = OP_VM_CREATE, .name = str_of(name),
				      .egress_mode = 2, .egress_inherit = true, .idempotency_key = key, .fingerprint = fingerprint};
}

static uint64_t id_of(const struct fake_answer *a)
{
	return a->rows.n == 1 ? ((const struct row_vm *)(const void *)a->rows.v[0]->record)->id : 0;
}

static uint64_t create(struct fake *f, const char *name, struct str key, struct str fingerprint, bool *ret_replayed)
{
	struct msg_vm_create m = vm_create(f, name, key, fingerprint);
	struct fake_answer a;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_create, &m, &a), 201);
	uint64_t id = id_of(&a);
	*ret_replayed = a.end.replayed;
	fake_answer_finish(&a);
	return id;
}

static void test_once(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	bool replayed;

	uint64_t id = create(f, "demo", STR("k"), ONE, &replayed);
	assert_false(replayed);
	assert_int_equal(create(f, "demo", STR("k"), ONE, &replayed), id);
	assert_true(replayed);
	/* another call, and another key */
	struct msg_vm_create m = vm_create(f, "demo", STR("k"), TWO);
	fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	fake_assert_code(&a, 409, "idempotency_mismatch");
	fake_answer_finish(&a);
	m = vm_create(f, "demo", STR("other"), ONE);
	fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	fake_assert_code(&a, 409, "vm_name_taken");
	fake_answer_finish(&a);
	/* which changed nothing, so the key is free */
	create(f, "second", STR("other"), TWO, &replayed);
	assert_false(replayed);
}

/* The answer was not given, or not stored: the VM is there, and is the answer. */
static void test_a_crash_after_the_change(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	bool replayed;

	f->start.hold = true; /* it stays pending, so that the call is held */
	struct msg_vm_create m = vm_create(f, "demo", STR("k"), ONE);
	fake_ask(f, MSG_TYPE_msg_vm_create, &m, &a);
	for (int i = 0; i < 500 && !f->starts; i++)
		fake_turn(f);
	assert_false(a.done);
	assert_int_equal(f->starts, 1);
	f->start.hold = false;
	fake_stop_control(f);
	fake_answer_finish(&a);
	fake_start_control(f);
	uint64_t id = create(f, "demo", STR("k"), ONE, &replayed);
	assert_true(id != 0);
	fake_stop_control(f);
	fake_start_control(f);
	assert_int_equal(create(f, "demo", STR("k"), ONE, &replayed), id);
	assert_true(replayed);
}

static void test_the_second_waits_for_the_first(void **state)
{
	struct fake *f = *state;
	struct fake_answer first, second, other;

	f->start.hold = true;
	struct msg_vm_create m = vm_create(f, "demo", STR("k"), ONE), wrong = vm_create(f, "x", STR("k"), TWO);
	fake_ask(f, MSG_TYPE_msg_vm_create, &m, &first);
	fake_ask(f, MSG_TYPE_msg_vm_create, &m, &second);
	fake_ask(f, MSG_TYPE_msg_vm_create, &wrong, &other);
	fake_until(f, &other.done);
	fake_assert_code(&other, 409, "idempotency_mismatch");
	assert_false(first.done || second.done);
	f->start.hold = false;
	fake_release(f);
	fake_until(f, &first.done);
	fake_until(f, &second.done);
	assert_int_equal(second.end.status, 201);
	assert_true(second.end.replayed);
	assert_int_equal(id_of(&first), id_of(&second));
	fake_answer_finish(&first);
	fake_answer_finish(&second);
	fake_answer_finish(&other);
}

static void test_a_key_is_shown_once(void **state)
{
	struct fake *f = *state;
	struct msg_key_create m = {.key_hash = fake_hash(f), .op = OP_KEY_CREATE, .name = STR("ci"), .scopes = SCOPE_VM_READ,
				   .idempotency_key = STR("k"), .fingerprint = ONE};
	struct fake_answer a;
	uint64_t id = 0;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(fake_call(f, MSG_TYPE_msg_key_create, &m, &a), 201);
		const struct row_key *row = (const void *)a.rows.v[0]->record;
		assert_int_equal(row->key.len > 0, i == 0);
		assert_true(i == 0 || row->id == id);
		id = row->id;
		fake_answer_finish(&a);
	}
}

static void test_stop_and_start(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	struct msg_vm_stop m = {.key_hash = fake_hash(f), .op = OP_VM_STOP, .vm = vm, .idempotency_key = STR("k"), .fingerprint = ONE};
	struct fake_answer a;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_stop, &m, &a), 200);
		assert_int_equal(a.end.replayed, i);
		fake_answer_finish(&a);
	}
	/* a crash between the change and its answer: the same call finds it done, another does not */
	struct msg_vm_stop again = m;
	again.idempotency_key = STR("k2");
	fake_call(f, MSG_TYPE_msg_vm_stop, &again, &a);
	fake_assert_code(&a, 409, "vm_not_running");
	fake_answer_finish(&a);
}

static void tell(struct fake *f, uint16_t status, const char *body)
{
	struct msg_keep m = {.key_hash = fake_hash(f), .op = OP_VM_EXEC, .idempotency_key = STR("k"), .fingerprint = ONE,
			     .status = status, .body = str_of(body)};

	assert_int_equal(ipc_notify(f->api, MSG_TYPE_msg_keep, &m, NULL, 0), 0);
}

static struct msg_vm_open exec_of(const struct fake *f, uint64_t vm)
{
	return (struct msg_vm_open){.key_hash = fake_hash(f), .op = OP_VM_EXEC, .vm = vm, .idempotency_key = STR("k"),
				      .fingerprint = ONE};
}

static void test_what_iron_api_answers(void **state)
{
	struct fake *f = *state;
	struct msg_vm_open m = exec_of(f, fake_vm_create(f, "demo", NULL));
	struct fake_answer a, second;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_open, &m, &a), 200);
	assert_true(a.end.value != 0);
	fake_answer_finish(&a);
	fake_ask(f, MSG_TYPE_msg_vm_open, &m, &second);
	fake_wait_ms(f, 50);
	assert_false(second.done);
	tell(f, 200, "{}");
	fake_until(f, &second.done);
	assert_int_equal(second.end.status, 200);
	assert_int_equal(second.end.value, 0);
	assert_int_equal(second.rows.v[0]->type, MSG_TYPE_row_kept);
	fake_answer_finish(&second);
	assert_int_equal(f->streams, 1);
}

static void test_what_nobody_told(void **state)
{
	struct fake *f = *state;
	struct msg_vm_open m = exec_of(f, fake_vm_create(f, "demo", NULL));
	struct fake_answer a;

	/* nothing was done in the VM: the key is free */
	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_open, &m, &a), 200);
	fake_answer_finish(&a);
	tell(f, 0, "");
	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_open, &m, &a), 200);
	fake_answer_finish(&a);
	assert_int_equal(f->streams, 2);
	/* it was begun, and a crash took the answer */
	fake_stop_control(f);
	fake_start_control(f);
	fake_call(f, MSG_TYPE_msg_vm_open, &m, &a);
	fake_assert_code(&a, 409, "idempotency_mismatch");
	fake_answer_finish(&a);
	assert_int_equal(f->streams, 2);
}

/* Its key was revoked before iron-api told: who waits with the same Idempotency-Key is answered, now. */
static void test_a_revoked_key_holds_nobody(void **state)
{
	struct fake *f = *state;
	struct msg_key_create create = {.key_hash = fake_hash(f), .op = OP_KEY_CREATE, .name = STR("ci"), .scopes = SCOPE_VM_RUN};
	struct msg_vm_open m = exec_of(f, fake_vm_create(f, "demo", NULL));
	struct fake_answer a, second;
	char key[64], first[64];

	memcpy(first, f->key, sizeof first);
	assert_int_equal(fake_call(f, MSG_TYPE_msg_key_create, &create, &a), 201);
	const struct row_key *row = (void *)a.rows.v[0]->record;
	uint64_t id = row->id;
	str_copy(row->key, key, sizeof key);
	fake_answer_finish(&a);
	fake_key_use(f, key);
	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_open, &m, &a), 200);
	fake_answer_finish(&a);
	fake_key_use(f, first);
	fake_ask(f, MSG_TYPE_msg_vm_open, &m, &second);
	assert_int_equal(fake_object(f, OP_KEY_DELETE, 0, id, false), 204);
	assert_false(second.done);
	fake_key_use(f, key);
	tell(f, 200, "{}");
	fake_until(f, &second.done);
	fake_assert_code(&second, 409, "idempotency_mismatch"); /* what it answered was kept for nobody */
	fake_answer_finish(&second);
	fake_key_use(f, first);
	assert_int_equal(f->streams, 1);
}

/* Nobody waits for what an iron-api that is gone was doing: of many, none is left behind. */
static void test_another_iron_api_holds_nothing(void **state)
{
	struct fake *f = *state;
	struct msg_vm_open m = exec_of(f, fake_vm_create(f, "demo", NULL));
	struct fake_answer a;
	char key[16];

	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < 90; i++) {
			snprintf(key, sizeof key, "key-%d", i);
			m.idempotency_key = str_of(key);
			assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_open, &m, &a), pass == 0 ? 200 : 409);
			fake_answer_finish(&a);
		}
		fake_api_replace(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_crash_after_the_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_second_waits_for_the_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_key_is_shown_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_and_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_iron_api_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_nobody_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_revoked_key_holds_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_iron_api_holds_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
