#pragma once
/* The daemons' own lives on record, as iron-control sees them: events of kind "daemon", of no workspace. */
#include "codec/msg_broker.h"
#include "control/journal.h"
#include "store/store.h"

/* action: "started" (this iron-control), "connected", "gone". id: of the VM or the workspace that the role is for. */
void daemons_note(struct journal *j, const char *action, enum role role, uint64_t id);
/* An image that irond tells of: on record ("image", "added") when the store does not know it yet. */
void images_note(struct journal *j, struct store *store, const struct msg_image *image);
