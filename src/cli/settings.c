#include "cli/settings.h"

#include <ctype.h>
#include <cyaml/cyaml.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>

#include "base/buf.h"

struct file {
	char *api_url, *api_key, *tls_sha256;
};

static const cyaml_schema_field_t fields[] = {
	CYAML_FIELD_STRING_PTR("api_url", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file, api_url, 0, 2048),
	CYAML_FIELD_STRING_PTR("api_key", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file, api_key, 0, 512),
	CYAML_FIELD_STRING_PTR("tls_sha256", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file, tls_sha256, 0, 64),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file, fields)};

static void on_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args) __attribute__((format(printf, 3, 0)));
static void on_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	struct error *e = ctx;
	char text[200];

	vsnprintf(text, sizeof text, fmt, args);
	text[strcspn(text, "\n")] = '\0';
	error_set(e, -EINVAL, "%s", text);
}

static const cyaml_config_t *config(struct error *e)
{
	static cyaml_config_t c;
	c = (cyaml_config_t){.log_fn = on_log, .log_ctx = e, .mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR};
	return &c;
}

static char *config_path(void)
{
	const char *dir = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

	if (dir && *dir == '/')
		return xasprintf("%s/iron/config.yaml", dir);
	if (!home || !*home) {
		struct passwd *p = getpwuid(getuid());
		home = p ? p->pw_dir : "/";
	}
	return xasprintf("%s/.config/iron/config.yaml", home);
}

/* 0 with *ret NULL when there is no file. */
static int load_file(const char *path, struct file **ret, struct error *reterr)
{
	struct error why = {0};
	struct stat st;

	if (stat(path, &st))
		return errno == ENOENT || errno == ENOTDIR ? 0 : error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (st.st_uid == getuid() && (st.st_mode & 077))
		return error_set(reterr, -EPERM, "%s holds a key and others can read it; run: chmod 600 %s", path, path);
	if (cyaml_load_file(path, config(&why), &schema, (cyaml_data_t **)ret, NULL) != CYAML_OK)
		return error_set(reterr, -EINVAL, "%s: %s", path, why.text[0] ? why.text : "cannot be read");
	return 0;
}

static char *choose(const char *flag, const char *variable, const char *file)
{
	const char *v = flag ? flag : variable ? getenv(variable) : NULL;
	return xstrdup(v && *v ? v : file ? file : "");
}

static int check_pin(const char *pin, struct error *reterr)
{
	size_t n = 0;
	while (isxdigit((unsigned char)pin[n]))
		n++;
	return pin[n] || (n && n != 64) ? error_set(reterr, -EINVAL, "tls_sha256 must be 64 hexadecimal digits") : 0;
}

/* Plain HTTP would show the key to the network; on this machine there is none. */
static bool keeps_the_key(const char *url)
{
	static const char *const local[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};

	if (strncmp(url, "https://", 8) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(local); i++) {
		size_t n = strlen(local[i]);
		if (strncmp(url, local[i], n) == 0 && (url[n] == 0 || url[n] == ':' || url[n] == '/') && !strchr(url, '@'))
			return true;
	}
	return false;
}

int settings_load(const char *url, const char *key, struct settings *ret, struct error *reterr)
{
	_cleanup_free_ char *path = config_path();
	struct file *file = NULL;
	struct settings s = {0};

	int r = load_file(path, &file, reterr);
	if (r)
		return r;
	s.url = choose(url, "IRON_API_URL", file ? file->api_url : NULL);
	s.key = choose(key, "IRON_API_KEY", file ? file->api_key : NULL);
	/* the pin belongs to the file's own server */
	bool same = file && file->api_url && strcmp(s.url, file->api_url) == 0;
	s.pin = xstrdup(same && file->tls_sha256 ? file->tls_sha256 : "");
	cyaml_free(config(NULL), &schema, file, 0);

	for (size_t n = strlen(s.url); n && s.url[n - 1] == '/'; n--)
		s.url[n - 1] = '\0';
	if (str_has_suffix(str_of(s.url), STR("/v1")))
		s.url[strlen(s.url) - 3] = '\0';
	r = check_pin(s.pin, reterr);
	if (r == 0 && !*s.url)
		r = error_set(reterr, -ENOENT,
			      "no API is configured: set IRON_API_URL and IRON_API_KEY, or write api_url and api_key to %s", path);
	if (r == 0 && !keeps_the_key(s.url))
		r = error_set(reterr, -EINVAL, "the API's URL must begin with https://, not '%s'", s.url);
	if (r) {
		settings_finish(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void settings_finish(struct settings *s)
{
	free(s->url);
	if (s->key)
		explicit_bzero(s->key, strlen(s->key));
	free(s->key);
	free(s->pin);
	*s = (struct settings){0};
}
