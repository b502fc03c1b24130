#pragma once
/* What a VM says of a file, as the API shows it. All of it is a guest's hostile text. */
#include "api/json.h"
#include "codec/stream.h"

/* The members of a FileInfo into an object that is open. path: whose last part is its name, where info has none. */
void file_info_put(struct json *j, const struct stream_file_info *info, struct str path);
/* {"data": FileInfo} */
void file_info_answer(struct buf *out, const struct stream_file_info *info, struct str path);
