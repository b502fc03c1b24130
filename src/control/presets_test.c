/* Presets: all of a preset's rules come and go together, with everything that holds for rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

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

static void use_key_of(struct fake *f, uint32_t scopes)
{
	struct msg_key_create m = {.key_hash = fake_hash(f), .op = OP_KEY_CREATE, .name = STR("weak"), .scopes = scopes};
	struct fake_answer a;
	char key[64];

	assert_int_equal(fake_call(f, MSG_TYPE_msg_key_create, &m, &a), 201);
	assert_int_equal(str_copy(((const struct row_key *)(void *)a.rows.v[0]->record)->key, key, sizeof key), 0);
	fake_answer_finish(&a);
	fake_key_use(f, key);
}

static unsigned preset(struct fake *f, enum api_op op, const char *name, bool *ret_added)
{
	struct msg_preset m = {.key_hash = fake_hash(f), .op = (uint16_t)op, .name = str_of(name)};
	struct fake_answer a;

	unsigned status = fake_call(f, MSG_TYPE_msg_preset, &m, &a);
	if (status == 404)
		fake_assert_code(&a, 404, "preset_not_found");
	if (status == 200) {
		const struct row_preset *row = (void *)a.rows.v[0]->record;
		assert_true(str_eq(row->name, str_of(name)) && row->rules.len);
		*ret_added = row->added;
	}
	fake_answer_finish(&a);
	return status;
}

static size_t presets_added(struct fake *f)
{
	struct msg_page m = {.key_hash = fake_hash(f), .op = OP_PRESET_LIST};
	struct fake_answer a;
	size_t n = 0;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &m, &a), 200);
	assert_true(a.rows.n >= 5);
	for (size_t i = 0; i < a.rows.n; i++)
		n += ((const struct row_preset *)(void *)a.rows.v[i]->record)->added;
	fake_answer_finish(&a);
	return n;
}

/* Any of the preset's; what was made in the same millisecond stands in no order. */
static uint64_t rule_of_preset(struct fake *f)
{
	struct msg_rule_list m = {.key_hash = fake_hash(f), .op = OP_RULE_LIST, .limit = 200};
	struct fake_answer a;
	struct rec_rule rule;
	uint64_t id = 0;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_rule_list, &m, &a), 200);
	for (size_t i = 0; i < a.rows.n; i++) {
		const struct row_rule *row = (void *)a.rows.v[i]->record;
		assert_int_equal(wire_decode(&rec_rule_wire, row->rule, &rule), 0);
		if (str_eq(rule.preset, STR("pypi")))
			id = rule.id;
	}
	assert_true(id != 0);
	fake_answer_finish(&a);
	return id;
}

static void test_presets_come_and_go_whole(void **state)
{
	struct fake *f = *state;
	bool added = false;

	fake_vm_create(f, "demo", NULL);
	fake_turn(f);
	struct fake_worker *w = fake_worker_get(f);
	assert_int_equal(fake_rule_create(f, 0, "own", "index.example.org", NULL), 201);
	assert_int_equal(presets_added(f), 0);
	assert_int_equal(preset(f, OP_PRESET_ADD, "nothing", &added), 404);
	assert_int_equal(preset(f, OP_PRESET_REMOVE, "nothing", &added), 404);
	assert_int_equal(preset(f, OP_PRESET_REMOVE, "pypi", &added), 404);
	unsigned events = f->durable_events;
	assert_int_equal(preset(f, OP_PRESET_ADD, "pypi", &added), 200);
	assert_true(added);
	assert_int_equal(f->durable_events, events + 1);
	assert_int_equal(w->rules, 3); /* at the worker before the answer */
	assert_int_equal(preset(f, OP_PRESET_ADD, "pypi", &added), 200);
	assert_int_equal(w->rules, 3);
	assert_int_equal(presets_added(f), 1);
	/* one of its rules goes: it is no longer whole, and adding it again brings that one back */
	assert_int_equal(fake_object(f, OP_RULE_DELETE, 0, rule_of_preset(f), false), 204);
	assert_int_equal(presets_added(f), 0);
	assert_int_equal(preset(f, OP_PRESET_ADD, "pypi", &added), 200);
	assert_int_equal(w->rules, 3);
	assert_int_equal(preset(f, OP_PRESET_REMOVE, "pypi", &added), 204);
	assert_int_equal(w->rules, 1); /* what carries no preset stays */
	assert_int_equal(preset(f, OP_PRESET_REMOVE, "pypi", &added), 404);
	use_key_of(f, SCOPE_EGRESS_READ);
	assert_int_equal(presets_added(f), 0);
	assert_int_equal(preset(f, OP_PRESET_ADD, "pypi", &added), 403);
	assert_int_equal(preset(f, OP_PRESET_REMOVE, "pypi", &added), 403);
}

static unsigned create_with_presets(struct fake *f, const char *name, const char *first, const char *second)
{
	_cleanup_(buf_finish) struct buf names = {0};
	struct msg_vm_create m = {.key_hash = fake_hash(f), .op = OP_VM_CREATE, .name = str_of(name), .memory_mib = 512,
				  .egress_mode = 2, .egress_inherit = true};
	struct fake_answer a;

	assert_int_equal(wire_list_add_z(&names, first), 0);
	assert_int_equal(wire_list_add_z(&names, second), 0);
	m.presets = buf_str(&names);
	unsigned status = fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	if (status == 404)
		fake_assert_code(&a, 404, "preset_not_found");
	fake_answer_finish(&a);
	return status;
}

static void test_a_vm_is_born_with_presets(void **state)
{
	struct fake *f = *state;

	assert_int_equal(create_with_presets(f, "demo", "pypi", "nothing"), 404);
	assert_int_equal(create_with_presets(f, "demo", "pypi", "pypi"), 422);
	assert_int_equal(create_with_presets(f, "demo", "pypi", "npm"), 201);
	fake_turn(f);
	assert_int_equal(fake_worker_get(f)->rules, 5);
	assert_int_equal(presets_added(f), 0); /* they are the VM's */
	use_key_of(f, SCOPE_VM_ADMIN);
	assert_int_equal(create_with_presets(f, "other", "pypi", "npm"), 403);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_presets_come_and_go_whole), T(test_a_vm_is_born_with_presets)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
