#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/answer.h"
#include "api/archive.h"
#include "api/rendezvous.h"
#include "api/route.h"
#include "api/signals.h"

/* --- the tables themselves --- */

static void check_fields(const struct field_set *set, size_t room)
{
	assert_true(set->n <= 64); /* a bit each in fields_parse_query */
	for (size_t i = 0; i < set->n; i++) {
		const struct field *f = &set->v[i];
		assert_non_null(f->doc);
		assert_true(f->offset < room);
		if (f->kind == FIELD_CHOICE || f->kind == FIELD_ID)
			assert_non_null(f->choices);
		if (f->kind == FIELD_OBJECT || f->kind == FIELD_RULES)
			check_fields(f->sub, sizeof(union params));
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(f->name, set->v[k].name);
	}
}

static void test_every_operation_has_a_shape(void **state)
{
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_shape *s = op_shape_get((enum api_op)op);
		const struct msg_info *info = msg_info_find((uint16_t)s->record);
		assert_non_null(info);
		assert_true(info->wire->size <= sizeof(union params));
		assert_true(s->status >= 101 && s->status < 300);
		/* every record begins with who asks */
		for (size_t i = 0; i < msg_req_wire.n; i++) {
			assert_string_equal(info->wire->fields[i].name, msg_req_wire.fields[i].name);
			assert_int_equal(info->wire->fields[i].offset, msg_req_wire.fields[i].offset);
		}
		if (s->row)
			assert_non_null(out_shape_get(s->row));
		check_fields(s->query, sizeof(union params));
		check_fields(s->body, sizeof(union params) - s->body_at);
	}
}

/* A body at all its bounds is one that fits its message's fields. */
static void test_bounds_are_those_of_the_records(void **state)
{
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_shape *s = op_shape_get((enum api_op)op);
		const struct wire_type *t = msg_info_find((uint16_t)s->record)->wire;
		const struct field_set *sets[] = {s->query, s->body_at ? s->query : s->body};
		for (size_t k = 0; k < ARRAY_SIZE(sets); k++)
			for (size_t i = 0; i < sets[k]->n; i++) {
				const struct field *f = &sets[k]->v[i];
				for (size_t j = 0; j < t->n; j++)
					if (f->kind == FIELD_TEXT && t->fields[j].offset == f->offset && !f->choices)
						assert_true(f->hi <= t->fields[j].max);
			}
	}
}

/* --- routes --- */

static int find(const char *method, const char *path, struct route *ret, enum api_code *ret_code)
{
	_cleanup_(buf_finish) struct buf allow = BUF_MAX(128);

	return route_find(str_of(method), str_of(path), ret, &allow, ret_code);
}

static void test_routes(void **state)
{
	struct route r = {0};
	enum api_code code;

	assert_int_equal(find("GET", "/v1/vms", &r, &code), 0);
	assert_int_equal(r.op, OP_VM_LIST);
	assert_int_equal(find("HEAD", "/v1/vms/vm_00000000000h1", &r, &code), 0);
	assert_int_equal(r.op, OP_VM_GET);
	assert_int_equal(r.vm, 0x221);
	assert_int_equal(find("DELETE", "/v1/vms/vm_00000000000h1/egress/rules/egr_0000000000002", &r, &code), 0);
	assert_int_equal(r.op, OP_VM_RULE_DELETE);
	assert_int_equal(r.id, 2);
	assert_int_equal(find("DELETE", "/v1/egress/presets/docker-hub", &r, &code), 0);
	assert_int_equal(r.op, OP_PRESET_REMOVE);
	assert_true(str_eq(r.name, STR("docker-hub")) && r.id == 0);
	assert_int_equal(find("DELETE", "/v1/egress/presets/Docker", &r, &code), -ENOENT);
	assert_int_equal(code, CODE_PRESET_NOT_FOUND);
	static const char *const none[] = {"", "/", "/v1", "/v1/", "/v2/vms", "/v1//vms", "/v1/vms/", "/v1/vms//start", "/v1/vms/x/y", "*"};
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		assert_int_equal(find("GET", none[i], &r, &code), -ENOENT);
		assert_int_equal(code, CODE_NOT_FOUND);
	}
	assert_int_equal(find("PATCH", "/v1/vms", &r, &code), -EPERM);
	assert_int_equal(find("GET", "/v1/images/base", &r, &code), -ENOENT);
	assert_int_equal(code, CODE_IMAGE_NOT_FOUND);
}

/* --- bodies and queries --- */

static int parse(enum api_op op, const char *body, union params *p, struct arena *a, struct error *e)
{
	const struct op_shape *s = op_shape_get(op);

	*p = (union params){0};
	*e = (struct error){0};
	int r = fields_parse_body(s->body, str_of(body), a, (char *)p + s->body_at, e);
	return r == 0 && s->finish ? s->finish(p, a, e) : r;
}

static void test_bodies(void **state)
{
	_cleanup_(arena_finish) struct arena a = {0};
	union params p;
	struct error e;

	assert_int_equal(parse(OP_VM_CREATE, "{\"name\": \"a\", \"vcpus\": 2, \"egress\": {}}", &p, &a, &e), 0);
	assert_true(str_eq(p.vm_create.name, STR("a")));
	assert_int_equal(p.vm_create.vcpus, 2);
	assert_int_equal(p.vm_create.egress_mode, 2);
	assert_true(p.vm_create.egress_inherit);
	assert_int_equal(parse(OP_VM_CREATE, "{\"name\": \"a\", \"egress\": {\"rules\": [{\"host\": \"x\", \"bogus\": 1}]}}", &p, &a, &e), -EINVAL);
	assert_string_equal(e.text, "egress.rules[0].bogus: unknown field");
	assert_int_equal(parse(OP_VM_CREATE, "", &p, &a, &e), -EINVAL);
	assert_string_equal(e.text, "name is required");
	assert_int_equal(parse(OP_VM_CREATE, "{\"name\": \"a\", \"name\": \"b\"}", &p, &a, &e), -EBADMSG);
	assert_int_equal(parse(OP_VM_EXEC, "{\"argv\": [\"a\", \"\"], \"env\": {\"A\": \"\"}}", &p, &a, &e), 0);
	assert_int_equal(wire_list_count(p.exec.asked.exec.argv), 2);
	assert_int_equal(wire_list_count(p.exec.msg.argv), 2);
	assert_int_equal(parse(OP_KEY_CREATE, "{\"name\": \"a\", \"scopes\": [\"vm:run\", \"admin\"]}", &p, &a, &e), 0);
	assert_int_equal(p.key_create.scopes, SCOPE_VM_RUN | SCOPE_ADMIN);
}

static void test_an_arena_that_is_full(void **state)
{
	_cleanup_(arena_finish) struct arena a = {.max = 64};
	char body[512];
	union params p;
	struct error e;

	memset(body, 0, sizeof body);
	memcpy(body, "{\"argv\": [\"", 11);
	memset(body + 11, 'x', 400);
	memcpy(body + 411, "\"]}", 3);
	assert_int_equal(parse(OP_VM_EXEC, body, &p, &a, &e), -EMSGSIZE);
}

static void test_percent_decoding(void **state)
{
	_cleanup_(arena_finish) struct arena a = {0};

	assert_true(str_eq(percent_decode(STR("a%20+%2b"), false, &a), STR("a  +")));
	assert_true(str_eq(percent_decode(STR("a+b"), true, &a), STR("a+b")));
	static const char *const bad[] = {"%", "%1", "%g0", "%0g", "a%00", "%%"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_null(percent_decode(str_of(bad[i]), false, &a).p);
}

static void test_choices(void **state)
{
	assert_int_equal(choice_find("a|bc|d", STR("bc")), 1);
	assert_int_equal(choice_find("a|bc|d", STR("b")), -1);
	assert_int_equal(choice_find("a|bc|d", STR("a|bc")), -1);
	assert_int_equal(choice_find("a|bc|d", STR("")), -1);
	assert_true(str_eq(choice_get("a|bc|d", 2), STR("d")));
	assert_int_equal(choice_get("a|bc|d", 3).len, 0);
}

/* --- answers --- */

static void check_json_string(const char *in, size_t n, const char *want)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct json j = {.out = &b};

	json_str(&j, NULL, str_make(in, n));
	buf_append_byte(&b, 0);
	assert_string_equal((char *)b.data, want);
}

static void test_json_strings(void **state)
{
	check_json_string("a\"\\\n\x1f\0b", 7, "\"a\\\"\\\\\\n\\u001f\\u0000b\"");
	check_json_string("\x7f", 1, "\"\\u007f\"");
	check_json_string("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
	check_json_string("\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
	check_json_string("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
	check_json_string("\xf4\x90\x80\x80", 4, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
	check_json_string("x\xe2\x82", 3, "\"x\xef\xbf\xbd\xef\xbf\xbd\"");
	check_json_string("", 0, "\"\"");
}

static void test_answers(void **state)
{
	struct answer a;
	struct row_policy row = {.mode = 1, .inherited = true};

	answer_begin(&a, ANSWER_OBJECT);
	assert_int_equal(answer_end(&a, &(struct msg_done){0}), -EPROTO);
	answer_finish(&a);

	answer_begin(&a, ANSWER_OBJECT);
	assert_int_equal(answer_row(&a, MSG_TYPE_row_policy, &row), 0);
	assert_int_equal(answer_row(&a, MSG_TYPE_row_policy, &row), -EPROTO);
	assert_int_equal(answer_end(&a, &(struct msg_done){0}), 0);
	assert_true(str_eq(buf_str(&a.out), STR("{\"data\":{\"mode\":\"warn\",\"inherited\":true}}")));
	answer_finish(&a);

	answer_begin(&a, ANSWER_LIST);
	assert_int_equal(answer_row(&a, MSG_TYPE_msg_ping, &row), -EPROTO);
	assert_int_equal(answer_end(&a, &(struct msg_done){.cursor = STR("x")}), 0);
	assert_true(str_eq(buf_str(&a.out), STR("{\"data\":[],\"has_more\":false,\"cursor\":\"x\"}")));
	answer_finish(&a);
}

/* --- where streams and answers meet --- */

static int met_fd;

static void on_met(int fd, void *arg)
{
	met_fd = fd;
	++*(int *)arg;
	if (fd >= 0)
		close(fd);
}

static void test_rendezvous(void **state)
{
	struct event_base *base = event_base_new();
	struct rendezvous v;
	int fds[2], count = 0;

	rendezvous_init(&v, base);
	assert_int_equal(pipe(fds), 0);
	rendezvous_offer(&v, 1, fds[0]); /* the stream first */
	rendezvous_await(&v, 1, on_met, &count);
	assert_true(count == 1 && met_fd == fds[0]);
	rendezvous_await(&v, 2, on_met, &count); /* the answer first */
	rendezvous_offer(&v, 2, fds[1]);
	assert_true(count == 2 && met_fd == fds[1]);
	rendezvous_await(&v, 3, on_met, &count);
	rendezvous_await(&v, 3, on_met, &count); /* two for one: the second gets none */
	assert_true(count == 3 && met_fd == -1);
	rendezvous_cancel(&v, 3);
	assert_int_equal(pipe(fds), 0);
	rendezvous_offer(&v, 3, fds[0]); /* an orphan: closed at the end */
	rendezvous_finish(&v);
	assert_int_equal(count, 3);
	assert_int_equal(write(fds[1], "", 0), 0);
	close(fds[1]);
	event_base_free(base);
}

static void test_signals(void **state)
{
	assert_int_equal(signal_parse(STR("TERM")), 15);
	assert_int_equal(signal_parse(STR("SIGKILL")), 9);
	assert_int_equal(signal_parse(STR("64")), 64);
	const char *const none[] = {"", "SIG", "term", "0", "65", "015", "SIGSIGTERM", "TERM ", "TER", "15x"};
	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		assert_int_equal(signal_parse(str_of(none[i])), 0);
}

static void add_entry(struct buf *out, enum tar_kind kind, const char *name, const char *target, struct str data)
{
	static const char zeros[TAR_BLOCK];
	struct tar_entry e = {.kind = kind, .name = str_of(name), .target = str_of(target), .size = data.len};

	assert_int_equal(tar_write(&e, out), 0);
	buf_append_str(out, data);
	buf_append(out, zeros, tar_padding(data.len));
}

/* In pieces of each size the same is said of an archive. */
static int push(const struct buf *archive, bool from_guest, size_t step, bool *ret_whole)
{
	struct error e = {0};
	struct archive a;
	int r = 0;

	archive_init(&a, from_guest);
	for (size_t at = 0; at < archive->len && r == 0; at += step)
		r = archive_push(&a, str_make(archive->data + at, MIN(step, archive->len - at)), &e);
	*ret_whole = archive_is_whole(&a);
	assert_int_equal(r != 0, e.text[0] != 0);
	archive_finish(&a);
	return r;
}

static void test_archives(void **state)
{
	static const size_t steps[] = {1, 7, 511, 512, 513, 32768};
	static const struct {
		enum tar_kind kind;
		const char *name, *target;
		int verdict;
	} last[] = {
		{TAR_LINK, "a/l", "../top", 0}, {TAR_HARD_LINK, "h", "a/f", 0}, {TAR_FILE, "./x", "", 0}, {TAR_DIRECTORY, "./", "", 0},
		{TAR_FILE, "/x", "", -EPERM}, {TAR_FILE, "a/../../x", "", -EPERM}, {TAR_LINK, "l", "/etc", -EPERM},
		{TAR_LINK, "a/l", "../../x", -EPERM}, {TAR_HARD_LINK, "h", "/etc/passwd", -EPERM}, {TAR_HARD_LINK, "h", "../x", -EPERM},
	};
	bool whole;

	for (size_t i = 0; i < ARRAY_SIZE(last); i++) {
		_cleanup_(buf_finish) struct buf b = {0};
		add_entry(&b, TAR_FILE, "a/f", "", STR("some bytes"));
		add_entry(&b, last[i].kind, last[i].name, last[i].target, STR_NONE);
		tar_write_end(&b);
		for (size_t n = 0; n < ARRAY_SIZE(steps); n++) {
			assert_int_equal(push(&b, n % 2, steps[n], &whole), last[i].verdict);
			assert_int_equal(whole, last[i].verdict == 0);
		}
		b.len -= 1024;
		assert_int_equal(push(&b, true, 512, &whole), last[i].verdict);
		assert_false(whole);
		b.len += 1024;
		buf_append_z(&b, "more");
		assert_int_equal(push(&b, true, 512, &whole), last[i].verdict ? last[i].verdict : -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_archives),
		cmocka_unit_test(test_every_operation_has_a_shape), cmocka_unit_test(test_bounds_are_those_of_the_records),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_an_arena_that_is_full),
		cmocka_unit_test(test_percent_decoding),
		cmocka_unit_test(test_choices),
		cmocka_unit_test(test_json_strings),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_rendezvous),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
