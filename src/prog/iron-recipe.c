/* iron-recipe: the scripts of an image's recipe, in a VM. irond starts it while it builds an image:
 *
 *	iron-recipe --uid N --gid N run      makes the VM, puts files there, runs the scripts, stops it; prints its id
 *	iron-recipe --uid N --gid N clean    destroys the VM and revokes the key
 *
 * with the job as JSON on standard input (broker/image_scripts.c); what it says to people goes to descriptor 3, a line each,
 * and why it failed to standard error. It is a client of the public API like any other, and what it reads (the guest's output
 * above all) is hostile: it runs as iron-work and in walls (iron-recipe_sandbox.c) in which it opens no file and starts nothing. */
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "prog/iron-recipe.h"
#include "prog/sandboxes.h"

#define JOB_MAX_BYTES ((size_t)64 << 20)
#define PROGRESS_FD 3

void say(const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	for (char *p = text; *p; p++)
		*p = *p == '\n' ? ' ' : *p;
	/* Nobody watches any more: irond's next build tidies up. */
	if (dprintf(PROGRESS_FD, "%s\n", text) < 0)
		exit(1);
}

static int usage(void)
{
	fputs("iron-recipe is started by irond, not by hand\n", stderr);
	return 2;
}

static int spec_read(struct job *j, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(JOB_MAX_BYTES);

	for (;;) {
		void *p = buf_reserve(&text, 65536);
		ssize_t n = p ? read(STDIN_FILENO, p, 65536) : -1;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(reterr, -EIO, "the job cannot be read");
		if (n == 0)
			break;
		buf_commit(&text, (size_t)n);
	}
	j->spec = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	explicit_bzero(text.data, text.len);
	return j->spec ? 0 : error_set(reterr, -EBADMSG, "the job is malformed");
}

/* The API's certificate is known: it alone is trusted. */
static int pin_make(const char *pem, char **ret, struct error *reterr)
{
	uint8_t hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *leaf = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	bool known = leaf && X509_digest(leaf, EVP_sha256(), hash, &n) && n == 32;

	X509_free(leaf);
	BIO_free(bio);
	if (!known)
		return error_set(reterr, -EBADMSG, "the API's certificate (tls.cert_file) cannot be read");
	*ret = xmalloc(65);
	hex_encode(hash, 32, *ret);
	return 0;
}

static int settings_make(struct job *j, struct error *reterr)
{
	const char *url = json_string_value(json_object_get(j->spec, "url"));
	const char *key = json_string_value(json_object_get(j->spec, "key"));
	const char *cert = json_string_value(json_object_get(j->spec, "cert"));

	if (!url || !strstr(url, "://") || !key || !cert)
		return error_set(reterr, -EBADMSG, "the job is malformed");
	j->settings.url = xstrdup(url);
	j->settings.key = xstrdup(key);
	int r = pin_make(cert, &j->settings.pin, reterr);
	if (r == 0)
		j->client = client_create(&j->settings);
	return r;
}

static int work(const char *what, struct error *reterr)
{
	struct job j = {0};
	int r;

	if ((r = spec_read(&j, reterr)) == 0 && (r = settings_make(&j, reterr)) == 0)
		r = strcmp(what, "run") == 0 ? job_run(&j, reterr) : job_clean(&j, reterr);
	client_destroy(j.client);
	json_decref(j.spec);
	settings_finish(&j.settings);
	return r;
}

int main(int argc, char **argv)
{
	struct error e = {0};
	uint64_t uid, gid;

	if (argc != 6 || strcmp(argv[1], "--uid") != 0 || strcmp(argv[3], "--gid") != 0 ||
	    str_parse_u64(str_of(argv[2]), UINT32_MAX - 1, &uid) < 0 ||
	    str_parse_u64(str_of(argv[4]), UINT32_MAX - 1, &gid) < 0 || uid == 0 ||
	    (strcmp(argv[5], "run") != 0 && strcmp(argv[5], "clean") != 0))
		return usage();
	signal(SIGPIPE, SIG_IGN);
	clearenv();
	int r = sandbox_enter(&sandbox_recipe.walls, (uid_t)uid, (gid_t)gid, sandbox_recipe.paths, false, NULL, &e);
	if (r == 0)
		r = work(argv[5], &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.text[0] ? e.text : strerror(-r));
	return r < 0 ? 1 : 0;
}
