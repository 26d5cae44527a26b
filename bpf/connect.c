/*
 * cgroup/connect4 and connect6: steer an enrolled pod's connect() into its
 * tunnel listener, and remember where it wanted to go.
 *
 * Streams only: the mesh carries no UDP, which passes untouched.
 *
 * Attached to the root cgroup, so every process of the node passes here: who is
 * not enrolled pays one hash miss. Fails closed: the redirect stays while the
 * tunnel is away, so the app sees ECONNREFUSED and nothing leaves in the clear.
 */
#include "kernel.h"

INLINE int is_exempt(void)
{
	__u64 cgroup = current_cgroup_id();

	return map_lookup(MAP(EXEMPT_CGROUPS), &cgroup) != 0;
}

/* What getpeername shows, and what sock_ops will publish for the tunnel. */
INLINE int remember(struct bpf_sock_addr *ctx, const struct address *dst)
{
	struct bpf_sock *sk = ctx->sk;
	struct peer *shown;

	if (!sk)
		return 0;
	shown = sk_storage_get(MAP(SHOWN_PEER), sk, 0, STORAGE_CREATE);
	if (!shown)
		return 0;
	shown->ip = *dst;
	shown->port = (__be16)ctx->user_port;
	return 1;
}

/* This socket may have been captured by an earlier connect() that failed. */
INLINE void forget(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		sk_storage_delete(MAP(SHOWN_PEER), sk);
}

/* 1: let it pass as it is, 0: denied, 2 and above: rewrite (the verdict). */
INLINE int decide(struct bpf_sock_addr *ctx, const struct pod_value *pod,
		  const struct address *dst)
{
	int verdict = outbound_verdict(pod, dst);

	switch (verdict) {
	case OUTBOUND_PASS:
		forget(ctx);
		count(COUNTER_PASSED_LOCAL);
		return 1;
	case OUTBOUND_CAPTURE_V4:
	case OUTBOUND_CAPTURE_V6:
		if (remember(ctx, dst))
			return verdict;
		count(COUNTER_STORAGE_FAILED);
		return deny(ERRNO_NOBUFS);
	case OUTBOUND_DENY_NO_ADDRESS:
		count(COUNTER_DENIED_NO_ADDRESS);
		return deny(ERRNO_NETUNREACH);
	case OUTBOUND_DENY_LINK_LOCAL:
		count(COUNTER_DENIED_LINK_LOCAL);
		return deny(ERRNO_NETUNREACH);
	default:
		count(COUNTER_DENIED_CLOSED);
		return deny(ERRNO_NETUNREACH);
	}
}

int connect4(struct bpf_sock_addr *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct address dst;
	int verdict;

	if (!pod)			/* not enrolled: the cost ends here */
		return 1;
	if (ctx->type != STREAM)
		return 1;
	if (is_exempt()) {		/* the tunnel must not meet itself */
		count(COUNTER_EXEMPT);
		return 1;
	}
	map_v4(&dst, ctx->user_ip4);
	verdict = decide(ctx, pod, &dst);
	if (verdict < OUTBOUND_CAPTURE_V4)
		return verdict;

	/* The pod's own address, not 127.0.0.1: getsockname stays true. */
	ctx->user_ip4 = pod->ip4.word[3];
	ctx->user_port = pod->outbound_port;
	count(COUNTER_CAPTURED_V4);
	return 1;
}

int connect6(struct bpf_sock_addr *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct address dst;
	int verdict;

	if (!pod)
		return 1;
	if (ctx->type != STREAM)
		return 1;
	if (is_exempt()) {
		count(COUNTER_EXEMPT);
		return 1;
	}
	dst.word[0] = ctx->user_ip6[0];
	dst.word[1] = ctx->user_ip6[1];
	dst.word[2] = ctx->user_ip6[2];
	dst.word[3] = ctx->user_ip6[3];
	verdict = decide(ctx, pod, &dst);
	if (verdict < OUTBOUND_CAPTURE_V4)
		return verdict;

	ctx->user_port = pod->outbound_port;
	if (verdict == OUTBOUND_CAPTURE_V4) {	/* stays ::ffff:a.b.c.d */
		ctx->user_ip6[3] = pod->ip4.word[3];
		count(COUNTER_CAPTURED_V4);
		return 1;
	}
	ctx->user_ip6[0] = pod->ip6.word[0];
	ctx->user_ip6[1] = pod->ip6.word[1];
	ctx->user_ip6[2] = pod->ip6.word[2];
	ctx->user_ip6[3] = pod->ip6.word[3];
	count(COUNTER_CAPTURED_V6);
	return 1;
}
