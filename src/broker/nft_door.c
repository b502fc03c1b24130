/* The rules of a VM's namespace.
 *
 * Two walls. The first stands at the tap, before the kernel looks at a frame: only IPv4 from the guest's own MAC and
 * address passes, and ARP requests from it. Everything else (IPv6, VLAN tags, forged or gratuitous ARP, odd ethertypes)
 * is told to NFLOG and dropped, so no guest can fill tables that all namespaces share. Fragments too: nothing of ours
 * needs them, and reassembly is state that a guest could make us hold.
 *
 * The second is TPROXY without connection tracking and without NAT: TCP to any address and port goes to the one listener
 * on 15001, whose accepted sockets have the original destination as their own address; UDP to port 53 goes to the one
 * UDP socket. `notrack` comes first, so that a guest cannot make conntrack entries. TPROXY assigns the socket; the mark
 * makes the routing decision local (ip rule fwmark 1 lookup 100; local default in table 100).
 * Other UDP is told to NFLOG and rejected, so that QUIC falls back to TCP at once; the rest is told and dropped.
 *
 * What may leave: what the two sockets send, and ICMP errors, to the tap. There is no forwarding: forward's policy is
 * drop, ip_forward is 0, and no interface leads anywhere. So with these rules flushed a guest still reaches nothing. */
#include "broker/nft.h"

const char nft_door_rules[] =
	"table netdev iron {\n"
	"	chain ingress {\n"
	"		type filter hook ingress device \"tap0\" priority 0; policy drop;\n"
	"		ether saddr 02:00:00:00:00:02 ether type arp arp htype 1 arp ptype ip arp operation request "
	"arp saddr ether 02:00:00:00:00:02 arp saddr ip 10.77.0.2 accept\n"
	"		ether saddr 02:00:00:00:00:02 ether type ip ip saddr 10.77.0.2 ip frag-off & 0x3fff == 0 accept\n"
	"		log prefix \"eth\" group 7 snaplen 128\n"
	"	}\n"
	"}\n"
	"table ip iron {\n"
	"	chain untracked {\n"
	"		type filter hook prerouting priority raw; policy accept;\n"
	"		notrack\n"
	"	}\n"
	"	chain door {\n"
	"		type filter hook prerouting priority mangle; policy drop;\n"
	"		ip daddr { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 } log prefix \"ip\" group 7 snaplen 128 drop\n"
	"		iifname \"tap0\" meta l4proto tcp tproxy to :15001 meta mark set 1 accept\n"
	"		iifname \"tap0\" udp dport 53 tproxy to :53 meta mark set 1 accept\n"
	"		log prefix \"ip\" group 7 snaplen 128\n"
	"		iifname \"tap0\" meta l4proto udp limit rate 200/second burst 100 packets reject\n"
	"	}\n"
	"	chain input {\n"
	"		type filter hook input priority filter; policy drop;\n"
	"		iifname \"tap0\" meta mark 1 accept\n"
	"	}\n"
	"	chain forward {\n"
	"		type filter hook forward priority filter; policy drop;\n"
	"	}\n"
	"	chain untracked_output {\n"
	"		type filter hook output priority raw; policy accept;\n"
	"		notrack\n"
	"	}\n"
	"	chain output {\n"
	"		type filter hook output priority filter; policy drop;\n"
	"		oifname \"tap0\" ip daddr 10.77.0.2 meta l4proto tcp accept\n"
	"		oifname \"tap0\" ip daddr 10.77.0.2 udp sport 53 accept\n"
	"		oifname \"tap0\" ip daddr 10.77.0.2 icmp type destination-unreachable accept\n"
	"	}\n"
	"}\n"
	"table ip6 iron {\n"
	"	chain input {\n"
	"		type filter hook input priority filter; policy drop;\n"
	"	}\n"
	"	chain forward {\n"
	"		type filter hook forward priority filter; policy drop;\n"
	"	}\n"
	"	chain output {\n"
	"		type filter hook output priority filter; policy drop;\n"
	"	}\n"
	"}\n";
