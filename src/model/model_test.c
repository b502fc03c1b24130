#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/code.h"
#include "model/name.h"
#include "model/op.h"
#include "model/spec.h"
#include "model/vm_state.h"

static void test_states(void **state)
{
	assert_string_equal(vm_state_status(VM_READY), "running");
	assert_string_equal(vm_state_detail(VM_READY), "ready");
	assert_string_equal(vm_state_status(0), "");
	assert_string_equal(vm_state_status(99), "");
	assert_true(vm_state_may_follow(VM_STOPPED, VM_STARTING));
	assert_true(vm_state_may_follow(VM_STARTING, VM_FAILED));
	assert_false(vm_state_may_follow(VM_CREATING, VM_STOPPED)); /* a start that fails ends in failed */
	assert_false(vm_state_may_follow(VM_DESTROYED, VM_STARTING));
	assert_int_equal(vm_states_of_status(STR("running")), VM_STATE_BIT(VM_RUNNING) | VM_STATE_BIT(VM_READY));
	assert_int_equal(vm_states_of_detail(STR("stopping")), VM_STATE_BIT(VM_STOPPING));
	assert_int_equal(vm_states_of_status(STR("Running")), 0);
}

static void test_every_state_can_be_destroyed(void **state)
{
	for (unsigned s = VM_QUEUED; s < VM_STATE_END; s++)
		assert_true(
		        vm_state_may_follow(s, s == VM_DESTROYING || s == VM_DESTROYED ? VM_DESTROYED : VM_DESTROYING));
}

static void test_vm_names(void **state)
{
	static const char *const good[] = {"a", "web-1", "0", "a--b"};
	static const char *const bad[] = {"", "-a", "a-", "A", "a_b", "vm_1", "a b", "ä", "a."};
	struct error e = {0};
	char longest[65] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(vm_name_check("name", str_of(good[i]), NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(vm_name_check("name", str_of(bad[i]), NULL), -EINVAL);
	memset(longest, 'a', 64);
	assert_int_equal(vm_name_check("name", str_of(longest), &e), -EINVAL);
	assert_non_null(strstr(e.text, "name must"));
	longest[63] = '\0';
	assert_int_equal(vm_name_check("name", str_of(longest), NULL), 0);
}

static void test_object_names_and_labels(void **state)
{
	struct str k, v;

	assert_int_equal(object_name_check("name", STR("Allow GitHub"), NULL), 0);
	assert_int_equal(object_name_check("name", STR("egr_x"), NULL), -EINVAL);
	assert_int_equal(object_name_check("name", STR(" a"), NULL), -EINVAL);
	assert_int_equal(object_name_check("name", STR("a\nb"), NULL), -EINVAL);
	assert_int_equal(label_parse(STR("team=core=1"), &k, &v, NULL), 0);
	assert_true(str_eq(k, STR("team")) && str_eq(v, STR("core=1")));
	assert_int_equal(label_parse(STR("team="), &k, &v, NULL), 0);
	assert_int_equal(label_parse(STR("=x"), &k, &v, NULL), -EINVAL);
	assert_int_equal(label_parse(STR("team"), &k, &v, NULL), -EINVAL);
	assert_int_equal(label_parse(STR("a\x1b[31m=x"), &k, &v, NULL), -EINVAL);
}

static void test_public_keys(void **state)
{
	static const char good[] =
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE9ZwAhUWIFOr10brMj5nfoEVGaCWMqSSRfkO1ip51eD fixture@example.com";
	static const char *const bad[] = {
		"",
		"ssh-ed25519",
		"ssh-ed25519 AAAA",
		"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIE9ZwAhUWIFOr10brMj5nfoEVGaCWMqSSRfkO1ip51eD",
		"command=\"x\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE9ZwAhUWIFOr10brMj5nfoEVGaCWMqSSRfkO1ip51eD",
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE9ZwAhUWIFOr10brMj5nfoEVGaCWMqSSRfkO1ip51eD a\nssh-rsa x",
	};

	assert_int_equal(public_key_check("public_key", str_of(good), NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(public_key_check("public_key", str_of(bad[i]), NULL), -EINVAL);
}

static void test_specs(void **state)
{
	const struct shape shapes[] = {{"default", 4, 4096}, {"small", 1, 512}};
	struct vm_spec s = {.memory_mib = 1024};
	struct error e = {0};

	spec_default(&s, shapes, 2);
	assert_int_equal(s.vcpus, 4);
	assert_int_equal(s.memory_mib, 1024);
	assert_int_equal(s.disk_gib, SPEC_DISK_DEFAULT_GIB);
	assert_int_equal(spec_check(&s, NULL), 0);
	assert_int_equal(spec_limit_mib(&s), 1024 + 160);
	s.memory_mib = 255;
	assert_int_equal(spec_check(&s, &e), -EINVAL);
	assert_string_equal(e.text, "memory_mib must be 256 to 262144, not 255");
	s = (struct vm_spec){0};
	spec_default(&s, NULL, 0);
	assert_int_equal(s.memory_mib, 2048);
}

static void test_tables(void **state)
{
	assert_int_equal(code_status(CODE_NO_ROOM), 507);
	assert_string_equal(code_text(CODE_VM_NAME_TAKEN), "vm_name_taken");
	assert_null(op_info_get(OP_COUNT));
	assert_int_equal(op_info_get(OP_KEY_CREATE)->scope, SCOPE_KEYS);
	assert_true(scope_covers(SCOPE_ADMIN, SCOPE_KEYS));
	assert_false(scope_covers(SCOPE_VM_READ, SCOPE_VM_RUN));
	assert_int_equal(scope_parse(STR("vm:run")), SCOPE_VM_RUN);
	assert_int_equal(scope_parse(STR("vm")), SCOPE_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),	       cmocka_unit_test(test_every_state_can_be_destroyed),
		cmocka_unit_test(test_vm_names),       cmocka_unit_test(test_object_names_and_labels),
		cmocka_unit_test(test_public_keys),    cmocka_unit_test(test_specs),
		cmocka_unit_test(test_tables),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
