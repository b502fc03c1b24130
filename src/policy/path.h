#pragma once
// Path patterns against request paths, so that a deny cannot be dodged and an allow cannot be stretched by spelling.
//
// A pattern begins with "/". "/x/*" at its end is "/x" and all below it; any other "*" stands for any run of characters
// of one segment. "%2A" is a literal star.
//
// One path means different things to different servers: "%2F" is or is not a separator, "//" is or is not "/", ";v=1"
// is or is not part of a segment. So an allow pattern matches only if it matches under every one of these readings, and
// a deny pattern matches if it does under any. Percent-encoded characters other than those equal themselves ("%61" is
// "a" everywhere). A deny also takes no notice of ASCII case and of a slash at the path's end. Spellings that no client
// needs and that servers disagree most about make a path *dubious*: a dot segment ("..", "%2e",
// ".;x"), a backslash plain or encoded, a malformed escape, an encoded escape ("%25" and two hex digits), an encoded
// control character, bytes that are not UTF-8 once decoded, or no "/" at its front. A dubious path matches every deny
// pattern and no allow pattern but "/*", which allows all paths.
#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

// A pattern as someone wrote it may be used. -EINVAL with a sentence without the field's name.
int path_pattern_check(struct str pattern, struct error *reterr);

// What is said of a path once, for all the patterns it is tried on.
struct path {
	struct str text;
	unsigned readings; // which of the three differences occur in it
	bool dubious;
};
struct path path_examine(struct str text);

bool path_allow_matches(struct str pattern, const struct path *path);
bool path_deny_matches(struct str pattern, const struct path *path);
