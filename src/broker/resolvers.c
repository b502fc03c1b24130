#include "broker/resolvers.h"

#include "codec/ip.h"
#include "os/fdutil.h"

#define MAX_RESOLVERS 4
#define MAX_BYTES ((size_t)64 << 10)

static void find_system(const char *path, resolvers *r)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct str rest, line;
	struct ip ip;

	if (file_read(path, MAX_BYTES, &text) < 0)
		return;
	rest = buf_str(&text);
	while (r->n < MAX_RESOLVERS && str_split(&rest, '\n', &line)) {
		if (!str_has_prefix(line, STR("nameserver")))
			continue;
		struct str word = str_trim(str_make(line.p + 10, line.len - 10), " \t\r");
		if (ip_parse(word, &ip) == 0)
			VEC_PUSH(r, str_dup(word));
	}
}

void resolvers_find(const struct conf *conf, const char *resolv_conf, resolvers *ret)
{
	resolvers r = {0};

	for (unsigned i = 0; i < conf->egress.resolvers_count; i++)
		VEC_PUSH(&r, xstrdup(conf->egress.resolvers[i]));
	if (r.n == 0)
		find_system(resolv_conf, &r);
	ret->v = r.v;
	ret->n = r.n;
	ret->cap = r.cap;
}

void resolvers_finish(resolvers *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->v[i]);
	VEC_FINISH(r);
}
