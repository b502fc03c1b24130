#include "egress/dns.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "codec/dns.h"
#include "codec/hostname.h"

#define TTL_S 60 /* well below the hour after which an address may stand for another name */
#define BATCH 32
#define TCP_CONNECTIONS 16
#define TCP_IDLE_MS 10000
#define TCP_OUT_MAX 16384
#define TCP_READS_A_TURN 16 /* a guest that asks without end leaves the others their turn */

/* --- one query --- */

static const char *answer_text(enum dns_rcode rcode, bool address)
{
	switch (rcode) {
	case DNS_NOERROR:
		return address ? "address" : "empty";
	case DNS_NXDOMAIN:
		return "nxdomain";
	case DNS_SERVFAIL:
		return "servfail";
	case DNS_FORMERR:
	case DNS_NOTIMP:
	case DNS_REFUSED:
	case DNS_BADVERS:
		break;
	}
	return "refused";
}

static enum dns_rcode find_address(struct door_vm *vm, struct str name, uint32_t *ret)
{
	return names_address(vm->names, name, real_ms(), ret) ? DNS_SERVFAIL : DNS_NOERROR;
}

/* *ret_address stays 0 where the answer has none. */
static enum dns_rcode resolve(struct door_vm *vm, const struct dns_query *q, uint32_t *ret_address)
{
	struct str name = str_of(q->name);
	bool wants_a = q->qtype == DNS_A;

	if (!vm->policy)
		return DNS_SERVFAIL;
	switch (hostname_kind(name)) {
	case HOSTNAME_LOCALHOST:
		*ret_address = wants_a ? INADDR_LOOPBACK : 0;
		return DNS_NOERROR;
	case HOSTNAME_IRON:
		*ret_address = wants_a ? GUEST_GATEWAY : 0;
		return DNS_NOERROR;
	case HOSTNAME_SPECIAL:
		if (!policy_answers_name(vm->policy, name))
			return DNS_NXDOMAIN;
		break;
	case HOSTNAME_ORDINARY:
		break;
	}
	return wants_a ? find_address(vm, name, ret_address) : DNS_NOERROR;
}

void dns_serve(struct door_vm *vm, struct str packet, bool tcp, struct buf *out)
{
	struct dns_query q;
	uint32_t address = 0;
	int r = dns_query_parse(packet, &q);

	if (r < 0)
		return;
	enum dns_rcode rcode = r ? (enum dns_rcode)r : resolve(vm, &q, &address);
	const struct dns_a a = {.address = address, .ttl_s = TTL_S};
	if ((tcp ? dns_answer_tcp : dns_answer)(&q, rcode, address ? &a : NULL, out))
		return;
	tally_dns(&vm->tally, str_of(q.name), q.qtype, answer_text(rcode, address != 0));
}

/* --- UDP --- */

struct datagram {
	uint8_t packet[DNS_QUERY_MAX + 1];
	struct sockaddr_in from;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct iovec iov;
	struct buf answer;
};

int dns_udp_prepare(int fd)
{
	int one = 1;
	return setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one) ? -errno : 0;
}

static void prepare_receive(struct datagram *d, struct mmsghdr *m)
{
	d->iov = (struct iovec){.iov_base = d->packet, .iov_len = sizeof d->packet};
	*m = (struct mmsghdr){.msg_hdr = {.msg_name = &d->from,
					  .msg_namelen = sizeof d->from,
					  .msg_iov = &d->iov,
					  .msg_iovlen = 1,
					  .msg_control = d->control,
					  .msg_controllen = sizeof d->control}};
}

/* The address that was asked, as the answer's source; false when the kernel did not say. */
static bool answer_from_there(struct datagram *d, const struct msghdr *received)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(received);
	struct in_pktinfo info;

	for (; c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)received, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			break;
	if (!c)
		return false;
	memcpy(&info, CMSG_DATA(c), sizeof info);
	struct in_addr asked = info.ipi_addr;
	info = (struct in_pktinfo){.ipi_spec_dst = asked};
	memset(d->control, 0, sizeof d->control);
	struct cmsghdr *out = (void *)d->control;
	*out = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
	memcpy(CMSG_DATA(out), &info, sizeof info);
	return true;
}

static bool prepare_answer(struct door_vm *vm, struct datagram *d, const struct mmsghdr *received, struct mmsghdr *ret)
{
	buf_clear(&d->answer);
	if (received->msg_len > DNS_QUERY_MAX || (received->msg_hdr.msg_flags & MSG_TRUNC))
		return false;
	if (!answer_from_there(d, &received->msg_hdr))
		return false;
	dns_serve(vm, str_make(d->packet, received->msg_len), false, &d->answer);
	if (d->answer.len == 0)
		return false;
	d->iov = (struct iovec){.iov_base = d->answer.data, .iov_len = d->answer.len};
	*ret = (struct mmsghdr){.msg_hdr = {.msg_name = &d->from,
					    .msg_namelen = sizeof d->from,
					    .msg_iov = &d->iov,
					    .msg_iovlen = 1,
					    .msg_control = d->control,
					    .msg_controllen = sizeof d->control}};
	return true;
}

/* What the socket's buffer does not take is lost, as UDP is: the guest asks again. One that cannot be sent (no route
 * back: a forged source port 0) does not stop those behind it. */
static void send_answers(int fd, struct mmsghdr *out, unsigned n)
{
	unsigned at = 0;

	while (at < n) {
		int r = sendmmsg(fd, out + at, n - at, MSG_DONTWAIT);
		if (r < 0 && errno == EAGAIN)
			return;
		at += r > 0 ? (unsigned)r : 1;
	}
}

void dns_udp_ready(struct door_vm *vm)
{
	static struct datagram datagrams[BATCH];
	struct mmsghdr in[BATCH], out[BATCH];
	unsigned answers = 0;

	for (unsigned i = 0; i < BATCH; i++)
		prepare_receive(&datagrams[i], &in[i]);
	int n = recvmmsg(vm->udp, in, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++)
		if (prepare_answer(vm, &datagrams[i], &in[i], &out[answers]))
			answers++;
	send_answers(vm->udp, out, answers);
}

/* --- TCP --- */

struct dns_tcp {
	struct buf in, out;
};

static void dns_tcp_destroy(struct conn *c)
{
	struct dns_tcp *t = c->state;

	c->vm->ndns--;
	buf_finish(&t->in);
	buf_finish(&t->out);
	free(t);
}

/* False when the stream is no DNS. */
static bool serve_whole_messages(struct conn *c, struct dns_tcp *t)
{
	while (t->out.len < TCP_OUT_MAX) {
		struct str packet;
		size_t consumed;
		int r = dns_tcp_next(buf_str(&t->in), &packet, &consumed);
		if (r <= 0)
			return r == 0;
		dns_serve(c->vm, packet, true, &t->out);
		buf_consume(&t->in, consumed);
	}
	return true;
}

static bool dns_tcp_flush(struct conn *c, struct dns_tcp *t)
{
	while (t->out.len && c->client.writable) {
		ssize_t n = sock_send(&c->client, t->out.data, t->out.len);
		if (n == -EAGAIN)
			break;
		if (n < 0)
			return false;
		buf_consume(&t->out, (size_t)n);
	}
	return true;
}

static void dns_tcp_ready(struct conn *c)
{
	struct dns_tcp *t = c->state;

	for (unsigned i = 0; i < TCP_READS_A_TURN; i++) {
		if (!serve_whole_messages(c, t) || !dns_tcp_flush(c, t)) {
			conn_abort(c);
			return;
		}
		if (t->out.len >= TCP_OUT_MAX || !c->client.readable)
			return;
		char scratch[DNS_QUERY_MAX + 2];
		ssize_t n = sock_recv(&c->client, scratch, sizeof scratch);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			conn_destroy(c);
			return;
		}
		c->active_ms = mono_ms();
		if (buf_append(&t->in, scratch, (size_t)n)) {
			conn_abort(c);
			return;
		}
	}
	sock_later(&c->client);
}

static void dns_tcp_tick(struct conn *c, uint64_t now_ms)
{
	if (now_ms - c->active_ms >= TCP_IDLE_MS || conn_total_passed(c, now_ms))
		conn_destroy(c);
}

static void dns_tcp_policy(struct conn *c)
{
}

static const struct conn_phase dns_tcp_phase = {
	.name = "dns",
	.on_ready = dns_tcp_ready,
	.on_tick = dns_tcp_tick,
	.on_policy = dns_tcp_policy,
	.destroy = dns_tcp_destroy,
};

void dns_tcp_enter(struct conn *c)
{
	char text[IP_TEXT_SIZE];

	if (c->vm->ndns >= TCP_CONNECTIONS) {
		ip_format(&c->target.ip, text);
		tally_drop(&c->vm->tally, PROTO_DNS, c->target.ip.family ? text : "", 53,
			   "more DNS connections than a VM may hold");
		conn_abort(c);
		return;
	}
	struct dns_tcp *t = xcalloc(1, sizeof *t);
	t->in.max = 4 * (DNS_QUERY_MAX + 2);
	t->out.max = TCP_OUT_MAX + DNS_ANSWER_MAX + 2;
	c->vm->ndns++;
	conn_enter(c, &dns_tcp_phase, t);
}
