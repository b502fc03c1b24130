/* Build-time tool: iron(1) from the tables that the program itself runs by. */
#include <stdio.h>

#include "cli/command.h"

static const struct command *const groups[] = {vm_commands, exec_commands, egress_commands, audit_commands, admin_commands};

/* mdoc takes a line that begins with a dot or a quote for a request. */
static void literal(const char *text)
{
	printf(".Bd -literal\n");
	for (const char *p = text; *p; p++) {
		if ((p == text || p[-1] == '\n') && (*p == '.' || *p == '\''))
			printf("\\&");
		if (*p == '\\')
			printf("\\e");
		else
			putchar(*p);
	}
	printf(".Ed\n");
}

int main(void)
{
	printf(".Dd November 24, 2026\n.Dt IRON 1\n.Os\n.Sh NAME\n.Nm iron\n.Nd virtual machines for agents, with one door\n"
	       ".Sh SYNOPSIS\n.Nm iron\n.Ar COMMAND\n.Op Ar OPTION ...\n.Op Ar WORD ...\n"
	       ".Sh DESCRIPTION\nEvery command takes\n.Fl -help\nand, where it prints,\n.Fl -json .\n"
	       "A VM is named by its name or its id.\n.Sh COMMANDS\n");
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		for (const struct command *c = groups[g]; c->name; c++) {
			printf(".Ss %s %s\n%c%s.\n", c->name, c->words, c->about[0] >= 'a' ? c->about[0] - 32 : c->about[0], c->about + 1);
			literal(c->help);
		}
	}
	printf(".Sh ENVIRONMENT\n.Bl -tag -width Ds\n.It Ev IRON_API_URL , IRON_API_KEY\n"
	       "Where the API is, and the key; over the file, under\n.Fl -api-url\nand\n.Fl -api-key .\n"
	       ".It Ev NO_COLOR\nNo colours.\n.El\n"
	       ".Sh FILES\n.Bl -tag -width Ds\n.It Pa ~/.config/iron/config.yaml\n.Cm api_url , api_key , tls_sha256\n"
	       "(the SHA-256 of the server's certificate, which is then trusted by it alone).\nOnly its owner may read it.\n.El\n"
	       ".Sh EXIT STATUS\n0; 1 when something failed; 2 for a wrong command line;\n.Cm exec\nexits with the command's own code, "
	       "or 125 when it could not be run.\n.Sh SEE ALSO\n.Xr iron.yaml 5 ,\n.Xr irond 8\n");
	return fflush(stdout) ? 1 : 0;
}
