/*
 * cgroup/getsockopt and setsockopt, attached to the ztunnel's own cgroup only:
 * no other process of the node pays for them, and no pod can reach them.
 *
 * getsockopt(SO_ORIGINAL_DST) answers once with the original destination of an
 * accepted connection. Without an entry the kernel's own error stands, and the
 * ztunnel closes. setsockopt(SHOW_CLIENT_OPTION) keeps the client to show to
 * the app.
 */
#include "kernel.h"

#define ERRNO_INVAL 22
#define SWALLOW (-1)		/* optlen: the kernel must not see this call */

/*
 * dst_port was 32 bits wide before Linux 5.18 and has 16 since; both allow a
 * 32-bit load.
 */
INLINE __u16 peer_port(struct bpf_sock *sk)
{
	__u32 port = READ32(sk, dst_port);

	return __builtin_bswap16((__u16)port);
}

INLINE void key_of_steered(struct bpf_sockopt *ctx, struct connection_key *key)
{
	struct bpf_sock *sk = READ_POINTER(ctx, sk);

	key->netns = netns_cookie(ctx);
	if (READ32(sk, family) == FAMILY_V4) {
		map_v4(&key->ip, READ32(sk, dst_ip4));
		map_v4(&key->to, READ32(sk, src_ip4));
	} else {
		READ_ADDRESS(&key->ip, sk, dst_ip6);
		READ_ADDRESS(&key->to, sk, src_ip6);
	}
	key->port = peer_port(sk);
	key->to_port = HBONE_PORT;	/* connect()'s; a reset socket has none */
}

INLINE int write_v4(struct bpf_sockopt *ctx, const struct peer *to)
{
	struct name_v4 *out = READ_POINTER(ctx, optval);

	if ((void *)(out + 1) > READ_POINTER(ctx, optval_end))
		return 0;
	out->family = FAMILY_V4;
	out->port = to->port;
	out->ip = to->ip.word[3];
	out->rest = to->hint;
	WRITE32(ctx, optlen, sizeof(*out));
	return 1;
}

INLINE int write_v6(struct bpf_sockopt *ctx, const struct peer *to)
{
	struct name_v6 *out = READ_POINTER(ctx, optval);

	if ((void *)(out + 1) > READ_POINTER(ctx, optval_end))
		return 0;
	out->family = FAMILY_V6;
	out->port = to->port;
	out->flow = TO_BE32((__u32)to->hint);
	out->ip = to->ip;
	out->scope = 0;
	WRITE32(ctx, optlen, sizeof(*out));
	return 1;
}

int getsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = READ_POINTER(ctx, sk);
	struct connection_key key = {};
	struct peer *kept, *to;
	int level = READ32(ctx, level), family, written;

	if (READ32(ctx, optname) != ORIGINAL_DESTINATION_OPTION)
		return 1;
	if (level != LEVEL_IP && level != LEVEL_IPV6)
		return 1;
	key_of_steered(ctx, &key);
	kept = sk_storage_get(MAP(ORIGINAL), sk, 0, 0);
	to = kept ? kept : map_lookup(MAP(DESTINATIONS), &key);
	if (!to) {
		if (level == LEVEL_IP)	/* asked first, by every ztunnel */
			count(COUNTER_DESTINATION_MISSING);
		return 1;
	}
	family = destination_family(level, &to->ip);
	if (family == FAMILY_V4)
		written = write_v4(ctx, to);
	else if (family == FAMILY_V6)
		written = write_v6(ctx, to);
	else
		written = 0;
	if (!written)		/* another family, or too small a buffer */
		return 1;
	WRITE32(ctx, retval, 0);
	if (!kept)	/* the socket's own goes with it: that costs less */
		map_delete(MAP(DESTINATIONS), &key);
	count(COUNTER_DESTINATION_READ);
	return 1;
}

int setsockopt(struct bpf_sockopt *ctx)
{
	struct peer *told, *claimed;

	if (READ32(ctx, level) != LEVEL_IP ||
	    READ32(ctx, optname) != SHOW_CLIENT_OPTION)
		return 1;
	told = READ_POINTER(ctx, optval);
	if (READ32(ctx, optlen) != sizeof(*told) ||
	    (void *)(told + 1) > READ_POINTER(ctx, optval_end)) {
		count(COUNTER_CLIENT_REFUSED);
		return deny(ERRNO_INVAL);
	}
	claimed = sk_storage_get(MAP(CLAIMED_CLIENT), READ_POINTER(ctx, sk), 0,
				 STORAGE_CREATE);
	if (!claimed) {
		count(COUNTER_STORAGE_FAILED);
		return deny(ERRNO_NOBUFS);
	}
	claimed->ip = told->ip;
	claimed->port = told->port;
	WRITE32(ctx, optlen, SWALLOW);
	count(COUNTER_CLIENT_CLAIMED);
	return 1;
}
