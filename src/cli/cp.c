/* cp: which side is the VM's, and what a path on either stands for. The bytes are cp_file.c's and cp_tree.c's. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cp_internal.h"
#include "cli/interrupt.h"

bool copy_name_is_safe(struct str name)
{
	if (name.len == 0 || name.len > 255 || str_eq(name, STR(".")) || str_eq(name, STR("..")))
		return false;
	for (size_t i = 0; i < name.len; i++) {
		unsigned char b = (unsigned char)name.p[i];
		if (b < 0x20 || b == 0x7f || b == '/')
			return false;
	}
	return true;
}

struct str copy_last_part(const char *path)
{
	size_t n = strlen(path);

	while (n && path[n - 1] == '/')
		n--;
	size_t from = n;
	while (from && path[from - 1] != '/')
		from--;
	struct str part = str_make(path + from, n - from);
	return str_eq(part, STR(".")) ? str_make(path, 0) : part;
}

int copy_tick(struct copy *k)
{
	progress_bytes(&k->progress, k->done, k->total);
	return interrupted() ? -EINTR : 0;
}

static int on_tick(void *user)
{
	return copy_tick(user);
}

int copy_failed(struct copy *k, int e)
{
	progress_end(&k->progress);
	if (interrupted()) {
		k->c->error = (struct error){0};
		error_set(&k->c->error, -EINTR, "interrupted; the copy is not complete");
		return EXIT_INTERRUPTED;
	}
	error_set(&k->c->error, e, "%s", strerror(-e));
	return EXIT_FAILED;
}

char *copy_url(const struct copy *k, const char *call, const char *path)
{
	_cleanup_free_ char *escaped = client_escape(k->c->client, path),
	                    *user = k->user ? client_escape(k->c->client, k->user) : NULL;

	return xasprintf("%s/files%s?path=%s%s%s", k->vm, call, escaped, user ? "&user=" : "", user ? user : "");
}

int copy_remote_kind(struct copy *k, const char *path)
{
	_cleanup_free_ char *url = copy_url(k, "/stat", path);
	_cleanup_(reply_finish) struct reply r = {0};

	int e = client_ask(k->c->client, "GET", url, NULL, &r, &k->c->error);
	if (e && strcmp(client_error_code(k->c->client), "file_not_found") == 0) {
		k->c->error = (struct error){0};
		return 0;
	}
	if (e)
		return e;
	const char *type = get_string(json_object_get(r.body, "data"), "type");
	return strcmp(type, "directory") == 0 ? 'd' : strcmp(type, "file") == 0 ? 'f' : 'o';
}

/* "VM:PATH"; a path of this machine that holds a colon is written ./a:b. Heap, NULL. */
static char *vm_of(const char *word, const char **ret_path)
{
	const char *colon = strchr(word, ':'), *slash = strchr(word, '/');

	if (!colon || colon == word || (slash && slash < colon) || word[0] == '.')
		return NULL;
	*ret_path = colon[1] ? colon + 1 : ".";
	return xstrndup(word, (size_t)(colon - word));
}

/* A directory here, or what is written as one. */
static bool is_directory_here(const char *path)
{
	struct stat st;
	size_t n = strlen(path);
	return (n && path[n - 1] == '/') || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static char *below(const char *directory, struct str name)
{
	size_t n = strlen(directory);
	return xasprintf("%s%s%.*s", directory, n && directory[n - 1] == '/' ? "" : "/", STR_ARG(name));
}

static int copy_in(struct copy *k, const char *src, const char *dst)
{
	struct str name = copy_last_part(src);
	_cleanup_free_ char *inside = NULL;
	struct stat st;

	bool from_stdin = strcmp(src, "-") == 0;
	if (!from_stdin && stat(src, &st)) {
		error_set(&k->c->error, -errno, "%s: %s", src, strerror(errno));
		return EXIT_FAILED;
	}
	bool tree = !from_stdin && S_ISDIR(st.st_mode);
	if (tree && !k->recursive) {
		error_set(&k->c->error, -EISDIR, "%s is a directory; -r copies it with what is below", src);
		return EXIT_FAILED;
	}
	size_t n = strlen(dst);
	int kind = n && dst[n - 1] == '/' ? 'd' : copy_remote_kind(k, dst);
	if (kind < 0)
		return copy_failed(k, kind);
	if (kind == 'd' && from_stdin) {
		error_set(&k->c->error, -EISDIR, "%s is a directory; name the file that standard input becomes", dst);
		return EXIT_FAILED;
	}
	if (str_eq(name, STR("..")) && kind == 'd') {
		error_set(&k->c->error, -EINVAL, "'%s' gives no name to copy it to; %s/. copies what is in it", src,
		          src);
		return EXIT_FAILED;
	}
	if (kind == 'd' && name.len)
		dst = inside = below(dst, name);
	k->destination = xstrdup(dst);
	return tree ? copy_tree_in(k, src, dst) : copy_file_in(k, src, dst);
}

int copy_out(struct copy *k, const char *src, const char *dst)
{
	struct str name = copy_last_part(src);
	_cleanup_free_ char *inside = NULL;
	bool tree = false;

	bool to_stdout = strcmp(dst, "-") == 0;
	if (k->recursive && !to_stdout) {
		int kind = copy_remote_kind(k, src);
		if (kind < 0)
			return copy_failed(k, kind);
		tree = kind == 'd';
	}
	if (!to_stdout && is_directory_here(dst) && name.len) {
		if (!copy_name_is_safe(name)) {
			error_set(&k->c->error, -EINVAL, "'%s' gives no name to copy it to; name the file it becomes",
			          src);
			return EXIT_FAILED;
		}
		dst = inside = below(dst, name);
	}
	k->destination = xstrdup(dst);
	return tree ? copy_tree_out(k, src, dst) : copy_file_out(k, src, dst);
}

/* How it went: for a person on standard error, since standard output may be the copy. */
static void report(struct copy *k, const char *src)
{
	double seconds = progress_seconds(&k->progress);
	_cleanup_free_ char *bytes = out_size((double)k->done), *took = out_duration((uint64_t)(seconds * 1000));
	_cleanup_free_ char *rate = out_size(seconds > 0 ? (double)k->done / seconds : 0),
	                    *to = out_escape(k->destination);

	if (k->skipped)
		out_warn("%llu that are neither files, directories nor links were left out",
		         (unsigned long long)k->skipped);
	if (k->c->json) {
		json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I}", "source", src, "destination", k->destination,
		                      "bytes", (json_int_t)k->done, "files", (json_int_t)k->files, "duration_ms",
		                      (json_int_t)(seconds * 1000));
		out_json(o);
		json_decref(o);
	} else if (!k->c->quiet && isatty(STDERR_FILENO)) {
		fprintf(stderr, "%s: %s%s%llu%s in %s, %s/s\n", to, bytes, k->recursive ? ", " : "",
		        (unsigned long long)(k->recursive ? k->files : 0), k->recursive ? " files" : "", took, rate);
	}
}

static int run_cp(struct context *c)
{
	const char *src = c->args.words[0], *dst = c->args.words[1], *src_path = src, *dst_path = dst;
	_cleanup_free_ char *src_vm = vm_of(src, &src_path), *dst_vm = vm_of(dst, &dst_path);
	struct copy k = {.c = c,
	                 .user = args_value(&c->args, "user"),
	                 .recursive = args_has(&c->args, "recursive"),
	                 .parents = args_has(&c->args, "parents")};

	if (!src_vm == !dst_vm) {
		error_set(&c->error, -EINVAL,
		          src_vm ? "both sides are a VM's; copy by way of this machine"
		                 : "one side must be VM:PATH; a file here whose name holds a colon is ./NAME");
		return EXIT_USAGE;
	}
	if (c->json && strcmp(dst, "-") == 0) {
		error_set(&c->error, -EINVAL, "standard output takes the file; it cannot take --json too");
		return EXIT_USAGE;
	}
	k.vm = vm_path(c, src_vm ? src_vm : dst_vm, "");
	if (!k.vm)
		return EXIT_FAILED;
	interrupt_catch();
	progress_start(&k.progress, "copying");
	client_set_tick(c->client, on_tick, &k);
	int e = src_vm ? copy_out(&k, src_path, dst_path) : copy_in(&k, src_path, dst_path);
	client_set_tick(c->client, NULL, NULL);
	progress_end(&k.progress);
	if (e == 0)
		report(&k, src);
	free(k.vm);
	free(k.destination);
	return e;
}

static const struct arg_option options[] = {
	{"recursive", 'r', NULL, "directories with what is below them"},
	{"user", 'u', "USER", "in whose name, and with whose rights, in the VM (agent)"},
	{"parents", 'p', NULL, "make the directories that are missing in the VM"},
	{0}};

const struct command file_commands[] = {
	{"cp", "SRC DST", "copy files between this machine and a VM",
	 "One side is VM:PATH; a relative PATH is below the user's home, and none is the\n"
	 "home itself. A directory as DST takes SRC by its own name. - is standard input\n"
	 "or output. Modes are kept; a file appears under its name once it is complete.\n"
	 "DIR/. stands for what is in DIR. What a VM sends is not trusted: names that are\n"
	 "empty, . or .., or hold / or control bytes, links that lead out of DST, and\n"
	 "devices are refused, and no link is followed.\n",
	 "iron cp report.pdf demo:\niron cp demo:/var/log/syslog .\niron cp -r src demo:/srv/app\niron cp -r "
	 "demo:out/. ./out\n"
	 "tar c . | iron cp - demo:backup.tar\niron cp demo:data.csv - | head\n",
	 options, 2, 2, 0, run_cp},
	{0},
};
