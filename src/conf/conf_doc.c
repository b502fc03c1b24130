/* Build-time tool. conf_doc example: iron.yaml with every key, commented. conf_doc man TEMPLATE: iron.yaml(5), the keys in
 * place of the line @KEYS@. */
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"

static int man_page(const char *template, struct buf *out)
{
	_cleanup_fclose_ FILE *f = fopen(template, "r");
	char line[512];

	if (!f)
		return 1;
	while (fgets(line, sizeof line, f)) {
		if (strcmp(line, "@KEYS@\n") == 0) {
			if (conf_write_mdoc(out))
				return 1;
		} else if (buf_append_z(out, line)) {
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	_cleanup_(buf_finish) struct buf out = {0};
	int r = argc == 3 && strcmp(argv[1], "man") == 0 ? man_page(argv[2], &out) : conf_write_example(&out);

	if (r || fwrite(out.data, 1, out.len, stdout) != out.len)
		return 1;
	return fflush(stdout) ? 1 : 0;
}
