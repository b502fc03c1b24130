#pragma once
/* From method and path to an operation. A path's segments match exactly: an empty one, or one more, is another path. */
#include <stdbool.h>

#include "base/buf.h"
#include "model/code.h"
#include "model/op.h"

struct route {
	enum api_op op;
	uint64_t vm, id; /* of the path; 0: it has none */
	struct str name; /* of the path, which it borrows from */
};

/* A segment of op.h's paths that stands for an id: ":id", ":rule" …, or a name. NULL: it is a word. */
struct route_parameter {
	struct str name;
	const char *prefix; /* of the ids: "vm_"; NULL: it is a name */
	enum api_code missing;
};
const struct route_parameter *route_parameter_find(struct str segment);

/* 0. -ENOENT: no such path, or (ret_code says which kind) an id in it that can be no object's. -EPERM: the path is there,
 * not with this method: allow gets "GET, POST". HEAD goes where GET goes. */
int route_find(struct str method, struct str path, struct route *ret, struct buf *allow,
	       enum api_code *ret_code);
