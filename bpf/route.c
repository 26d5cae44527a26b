/*
 * cgroup/setsockopt at the root cgroup: no stream of an enrolled pod gets a
 * source route (IPv4's options, IPv6's routing header). With one, its segments
 * leave the pod for the first hop of that route, in the clear, whatever
 * connect() says. No process needs a capability to set one, before connect() or
 * afterwards.
 *
 * Refused in an enrolled pod. In any other namespace the socket is remembered,
 * since its pod may be enrolled before it connects: connect.c refuses it then.
 * Fails closed: what cannot be remembered is refused.
 */
#include "kernel.h"

#define LEVEL_IP_OPTIONS 4
#define LEVEL_IPV6_OLD_OPTIONS 6	/* IPV6_2292PKTOPTIONS: any of them */
#define LEVEL_IPV6_ROUTE 57		/* IPV6_RTHDR */
#define ERRNO_PERM 1
#define PAGE_BYTES 4096

INLINE int is_route(int level, int name)
{
	if (level == LEVEL_IP)
		return name == LEVEL_IP_OPTIONS;
	return level == LEVEL_IPV6 && (name == LEVEL_IPV6_ROUTE ||
				       name == LEVEL_IPV6_OLD_OPTIONS);
}

int sourceroute(struct bpf_sockopt *ctx)
{
	int length = READ32(ctx, optlen);
	struct bpf_sock *sk;
	__u64 netns;
	__u32 *routed;

	if (!is_route(READ32(ctx, level), READ32(ctx, optname))) {
		/* Before Linux 6.4 the kernel refuses what we were shown in part. */
		if (length > PAGE_BYTES)
			WRITE32(ctx, optlen, 0);	/* the caller's own bytes */
		return 1;
	}
	sk = READ_POINTER(ctx, sk);
	if (length <= 0 || READ32(sk, type) != STREAM)	/* nothing takes it away */
		return 1;
	netns = netns_cookie(ctx);
	if (map_lookup(MAP(PODS), &netns)) {
		count(COUNTER_DENIED_SOURCE_ROUTE);
		return deny(ERRNO_PERM);
	}
	routed = sk_storage_get(MAP(SOURCE_ROUTED), sk, 0, STORAGE_CREATE);
	if (!routed) {
		count(COUNTER_STORAGE_FAILED);
		return deny(ERRNO_NOBUFS);
	}
	*routed = 1;
	return 1;
}
