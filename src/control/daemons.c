#include "control/daemons.h"

#include <errno.h>

void daemons_note(struct journal *j, const char *action, enum role role, uint64_t id)
{
	static const char *const names[] = {
		[ROLE_IROND] = "irond",	     [ROLE_API] = "iron-api",	  [ROLE_CONTROL] = "iron-control",
		[ROLE_VM] = "iron-vm",	     [ROLE_EGRESS] = "iron-egress", [ROLE_VAULT] = "iron-vault",
		[ROLE_AUDIT] = "iron-audit", [ROLE_SSH] = "iron-ssh",	    [ROLE_WORKER] = "iron-worker",
	};
	_cleanup_(detail_finish) struct detail d = {0};

	detail_add(&d, "role", str_of(names[role]));
	detail_add(&d, "version", STR(IRON_VERSION));
	if (role == ROLE_EGRESS)
		detail_add_id(&d, "workspace_id", "ws_", id);
	struct record_event e = {
		.kind = STR(EVENT_DAEMON),
		.action = str_of(action),
		.vm = role == ROLE_VM ? id : 0,
		.outcome = STR("ok"),
		.detail = detail_end(&d),
	};
	journal_note(j, &e);
}

void images_note(struct journal *j, struct store *store, const struct msg_image *image)
{
	_cleanup_(detail_finish) struct detail d = {0};
	_cleanup_(arena_finish) struct arena a = {0};
	struct row_image known;

	if (store_image_get(store, image->id, &a, &known) != -ENOENT)
		return;
	detail_add_id(&d, "image", "img_", image->id);
	detail_add(&d, "name", image->name);
	detail_add(&d, "hash", image->hash);
	struct record_event e = {.kind = STR(EVENT_IMAGE), .action = STR("added"), .address = STR("root"), .outcome = STR("ok"),
				 .detail = detail_end(&d)};
	journal_note(j, &e);
}
