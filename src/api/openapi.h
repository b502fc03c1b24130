#pragma once
/* The API's description as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0), generated from the tables that
 * route (model/op.h), validate (field.h, shape.h), answer (shape.h) and refuse (model/code.h). An operation, a member or a
 * code that is in a table is in the document; nothing else is. */
#include "api/shape.h"
#include "base/buf.h"

struct json; /* api/json.h */

/* Appends the document. -EMSGSIZE. */
int openapi_write(struct buf *out);

/* The errors that the operation may answer with: ERR(…) of its own and those of every call. */
uint64_t openapi_errors(enum api_op op);

/* openapi_answer.c: what an operation answers, and the errors that are the same in all. */
void openapi_put_responses(struct json *j, const char *key, enum api_op op);
void openapi_put_error_components(struct json *j);

/* openapi_schema.c: the JSON Schema (2020-12) of what a table takes or gives, as the value of `key`. */
void schema_of_body(struct json *j, const char *key, const struct field_set *set);
void schema_of_parameter(struct json *j, const char *key, const struct field *f);
void schema_of_row(struct json *j, const char *key, const struct out_shape *shape);
/* "row_vm" is "Vm" among the components. */
void schema_name(const struct out_shape *shape, char ret[64]);
