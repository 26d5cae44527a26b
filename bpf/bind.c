/*
 * cgroup/bind4 and bind6, attached to the ztunnel's own cgroup only: a ztunnel
 * that binds to its client's address before it dials the app (Istio's does,
 * with IP_TRANSPARENT) means "show this client to the app".
 *
 * A real bind would send the app's answers out of the pod, to that client. So
 * the address is kept as a claim, like SHOW_CLIENT_OPTION's, and the socket gets
 * a source of the mesh's block instead. If that fails, the bind fails.
 */
#include "kernel.h"

INLINE int claim(struct bpf_sock_addr *ctx, const struct address *client)
{
	struct bpf_sock *sk = READ_POINTER(ctx, sk);
	struct peer *claimed;

	if (!sk)
		return 0;
	claimed = sk_storage_get(MAP(CLAIMED_CLIENT), sk, 0, STORAGE_CREATE);
	if (!claimed)
		return 0;
	claimed->ip = *client;
	/* Port 0: sockops fills it in. */
	claimed->port = (__be16)READ32(ctx, user_port);
	return 1;
}

int bind4(struct bpf_sock_addr *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct address address, source;

	if (!pod || READ32(ctx, type) != STREAM)
		return 1;
	map_v4(&address, READ32(ctx, user_ip4));
	if (!is_foreign(pod, &address))
		return 1;
	if (!claim(ctx, &address)) {
		count(COUNTER_STORAGE_FAILED);
		return deny(ERRNO_NOBUFS);
	}
	source_for(&address, random_u32(), 0, &source);
	WRITE32(ctx, user_ip4, source.word[3]);
	count(COUNTER_CLIENT_CLAIMED);
	return 1;
}

int bind6(struct bpf_sock_addr *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct address address, source;

	if (!pod || READ32(ctx, type) != STREAM)
		return 1;
	READ_ADDRESS(&address, ctx, user_ip6);
	if (!is_foreign(pod, &address))
		return 1;
	if (!claim(ctx, &address)) {
		count(COUNTER_STORAGE_FAILED);
		return deny(ERRNO_NOBUFS);
	}
	source_for(&address, random_u32(), random_u32(), &source);
	WRITE_ADDRESS(ctx, user_ip6, &source);
	count(COUNTER_CLIENT_CLAIMED);
	return 1;
}
