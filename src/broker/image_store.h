#pragma once
/* The inside of state_dir/images: one directory an image, made elsewhere and renamed into place when it is whole. */
#include "broker/vmhost.h"

#define IMAGE_CMDLINE_MAX 511

/* "STATE_DIR/images", on the heap. */
char *image_directory(const char *state_dir);
/* Writes manifest.json into dir. */
int image_manifest_write(const char *dir, const struct image *image, const char *cmdline, struct error *reterr);
/* The three files of a directory that holds a whole image. */
int image_open_directory(const char *dir, struct image_files *ret, struct error *reterr);
