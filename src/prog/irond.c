/* irond: the privileged parent, and the operator's commands to it. This file is the command line. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "prog/irond.h"

const char irond_usage[] =
	"irond runs iron's VMs and its API on this host.\n"
	"\n"
	"  irond start              start in the background; ends when everything answers\n"
	"  irond --foreground       the same in this process, logging to stderr\n"
	"  irond stop               end iron; VMs run on, and the next start takes them up again\n"
	"  irond stop --vms         power the VMs off, then end iron\n"
	"  irond status             what runs; exit status 3 when nothing does\n"
	"  irond reload             read iron.yaml, the certificate and the images again\n"
	"  irond image build base|mini|RECIPE [--force]\n"
	"                           make an image, unless there is one of the same inputs; RECIPE: a file as\n"
	"                           iron-recipe(5) describes it, like ./tools.yaml\n"
	"  irond image rebuild [--older-than DAYS] [--force]\n"
	"                           the same for every image that is older (7 days), by the recipe that made it\n"
	"  irond key create NAME [--workspace W] [--scopes S,S] [--expires TIME]\n"
	"                           make an API key and print it; the workspace is the one of that name, made when\n"
	"                           there is none, and `default` unless it is given\n"
	"  irond audit reindex      build what `iron audit` lists anew from the journal\n"
	"\n"
	"  -c, --config FILE        instead of " CONF_DEFAULT_PATH "\n"
	"      --libexec DIR        where the roles' programs are\n";

int complain(const struct error *e)
{
	fprintf(stderr, "irond: %s\n", e->text);
	return 1;
}

static int need_root(void)
{
	if (geteuid() == 0)
		return 0;
	fputs("irond: must be run as root: sudo irond …\n", stderr);
	return 1;
}

void print_line(const char *line, void *user)
{
	puts(line);
	fflush(stdout);
}

static int parse(int argc, char **argv, struct command_line *ret)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},  {"libexec", required_argument, NULL, 'L'},
		{"workspace", required_argument, NULL, 'w'},
		{"scopes", required_argument, NULL, 's'},  {"expires", required_argument, NULL, 'e'},
		{"older-than", required_argument, NULL, 'o'},
		{"foreground", no_argument, NULL, 'f'},    {"force", no_argument, NULL, 'F'},
		{"help", no_argument, NULL, 'h'},          {"version", no_argument, NULL, 'V'},
		{"vms", no_argument, NULL, 'm'},
		{NULL, 0, NULL, 0},
	};
	struct command_line cl = {.conf = CONF_DEFAULT_PATH, .libexec = IRON_LIBEXEC};
	int c;

	while ((c = getopt_long(argc, argv, "c:fh", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			cl.conf = optarg;
			break;
		case 'L':
			cl.libexec = optarg;
			break;
		case 'w':
			cl.workspace = optarg;
			break;
		case 's':
			cl.scopes = optarg;
			break;
		case 'e':
			cl.expires = optarg;
			break;
		case 'o':
			cl.older_than = optarg;
			break;
		case 'f':
			cl.foreground = true;
			break;
		case 'F':
			cl.force = true;
			break;
		case 'm':
			cl.vms = true;
			break;
		case 'h':
			fputs(irond_usage, stdout);
			exit(0);
		case 'V':
			puts("irond " IRON_VERSION);
			exit(0);
		default:
			return -EINVAL;
		}
	}
	cl.words = argv + optind;
	cl.n = argc - optind;
	*ret = cl;
	if ((cl.n == 0) != cl.foreground)
		return -EINVAL;
	static const char *const objects[] = {"image", "key", "audit"};
	bool has_object = false;
	for (size_t i = 0; cl.n > 0 && i < ARRAY_SIZE(objects); i++)
		has_object |= strcmp(cl.words[0], objects[i]) == 0;
	return cl.n > 1 && !has_object ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
	struct command_line cl;
	struct conf *conf;
	struct error e = {0};
	int r;

	if (parse(argc, argv, &cl) < 0) {
		fputs(irond_usage, stderr);
		return 2;
	}
	if (need_root() != 0)
		return 1;
	if (conf_load(cl.conf, &conf, &e) < 0)
		return complain(&e);
	if (cl.foreground)
		return daemon_foreground(&cl, conf);
	if (strcmp(cl.words[0], "start") == 0)
		return daemon_start(&cl, conf);
	r = run_command(&cl, conf);
	conf_destroy(conf);
	return r;
}
