/* Build-time tool: the commented example of iron.yaml, or the list for iron.yaml(5). conf_doc example|mdoc */
#include <stdio.h>

#include "conf/conf.h"

int main(int argc, char **argv)
{
	_cleanup_(buf_finish) struct buf out = {0};
	bool mdoc = argc == 2 && strcmp(argv[1], "mdoc") == 0;

	if ((mdoc ? conf_write_mdoc(&out) : conf_write_example(&out)) || fwrite(out.data, 1, out.len, stdout) != out.len)
		return 1;
	return fflush(stdout) ? 1 : 0;
}
