/*
 * tcx on the host's end of a captured pod's veth: hands segments of established
 * direct connections straight to the other pod's device, past the host's stack.
 *
 * Only segments that `shortcuts` names, from the device that it names. SYN and
 * SYN-ACK pass through the host's stack, where its network policy applies.
 * Segments that a pod forges in another's name come from the wrong device, and
 * pass through the host's stack as well.
 */
#include "kernel.h"

#define TC_NEXT (-1)		/* TCX_NEXT: to the next program, or on */

#define ETHERNET_BYTES 14
#define V4_BYTES 20
#define V6_BYTES 40
#define ETHERTYPE_V4 TO_BE16(0x0800)
#define ETHERTYPE_V6 TO_BE16(0x86dd)
#define V4_PLAIN 0x45		/* version 4, no options */
#define V4_FRAGMENT TO_BE16(0x3fff)
#define TCP_SYN 0x02
#define PACKET_HOST 0

struct tcp_start {
	__be16 source;
	__be16 destination;
	__u32 sequence;
	__u32 acknowledged;
	__u8 length;
	__u8 flags;
} __attribute__((packed));

struct v4_start {
	__u8 version;
	__u8 service;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__be32 source;
	__be32 destination;
} __attribute__((packed));

struct v6_start {
	__u32 flow;
	__be16 length;
	__u8 next;
	__u8 hops;
	struct address source;
	struct address destination;
} __attribute__((packed));

INLINE int read_tcp(void *at, void *end, struct tuple *tuple)
{
	struct tcp_start *tcp = at;

	if ((void *)(tcp + 1) > end || tcp->flags & TCP_SYN)
		return 0;
	tuple->source_port = tcp->source;
	tuple->destination_port = tcp->destination;
	return 1;
}

INLINE int read_v4(void *at, void *end, struct tuple *tuple)
{
	struct v4_start *ip = at;

	if ((void *)(ip + 1) > end || ip->version != V4_PLAIN ||
	    ip->fragment & V4_FRAGMENT || ip->protocol != PROTOCOL_TCP)
		return 0;
	map_v4(&tuple->source, ip->source);
	map_v4(&tuple->destination, ip->destination);
	return read_tcp(ip + 1, end, tuple);
}

INLINE int read_v6(void *at, void *end, struct tuple *tuple)
{
	struct v6_start *ip = at;

	if ((void *)(ip + 1) > end || ip->next != PROTOCOL_TCP)
		return 0;
	tuple->source = ip->source;
	tuple->destination = ip->destination;
	return read_tcp(ip + 1, end, tuple);
}

int shortcut(struct __sk_buff *ctx)
{
	void *data = READ_PACKET(ctx, data), *end = READ_PACKET(ctx, data_end);
	__u32 protocol = READ32(ctx, protocol);
	struct shortcut *way;
	struct tuple tuple = {};
	int known = 0;

	if (data + ETHERNET_BYTES > end)
		return TC_NEXT;
	if (protocol == ETHERTYPE_V4)
		known = read_v4(data + ETHERNET_BYTES, end, &tuple);
	else if (protocol == ETHERTYPE_V6)
		known = read_v6(data + ETHERNET_BYTES, end, &tuple);
	if (!known)
		return TC_NEXT;
	way = map_lookup(MAP(SHORTCUTS), &tuple);
	if (!way || way->source != READ32(ctx, ifindex))
		return TC_NEXT;
	/* On a bridge it is addressed to the other pod, not this device. */
	if (READ32(ctx, pkt_type) != PACKET_HOST)
		skb_change_type(ctx, PACKET_HOST);
	count(COUNTER_SHORTCUT_TAKEN);
	return redirect_peer(way->target, 0);
}
