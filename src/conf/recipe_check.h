#pragma once
/* What the texts of a recipe may be. */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

bool recipe_is_name(struct str s);    /* of an image that a recipe makes */
bool recipe_is_from(struct str s);    /* of one that it is made from */
bool recipe_is_package(struct str s); /* Debian Policy 5.6.1, at most 128 */
bool recipe_is_path(struct str s);    /* in the guest: absolute, at most 1024, one spelling */
bool recipe_is_source(struct str s);  /* on the host: relative, at most 1024, without .. */
bool recipe_is_owner(struct str s);   /* USER[:GROUP] */
bool recipe_is_host(struct str s);    /* as a rule's host, but for `*` */
int recipe_mode_parse(struct str s, uint32_t *ret); /* 3 or 4 octal digits. -EINVAL */
