/*
 * cgroup/connect4 and connect6: steer an enrolled pod's connect() into the
 * ztunnel's listener and keep its destination; or send it directly to a pod of
 * this node, when everything allows that (direct.h).
 *
 * Streams only: the mesh carries no UDP, which passes untouched.
 *
 * Attached to the root cgroup, so every process of the node passes here; one
 * that is not enrolled pays for a hash miss. Fails closed: the redirect stays
 * while the ztunnel is away, so the app sees ECONNREFUSED and nothing leaves in
 * the clear.
 */
#include "kernel.h"
#include "direct.h"

INLINE int is_exempt(void)
{
	__u64 cgroup = current_cgroup_id();

	return map_lookup(MAP(EXEMPT_CGROUPS), &cgroup) != 0;
}

/* Keep the destination: getpeername shows it, sock_ops publishes it. */
INLINE int remember(struct bpf_sock *sk, const struct peer *dialled, __u8 hint)
{
	struct peer *shown = sk_storage_get(MAP(SHOWN_PEER), sk, 0,
					    STORAGE_CREATE);

	if (!shown)
		return 0;
	shown->ip = dialled->ip;
	shown->port = dialled->port;
	shown->hint = hint;
	return 1;
}

/* Go to the ztunnel, or directly to a pod of this node: fills `to`. */
INLINE int steer(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
		 const struct pod_value *pod, const struct peer *dialled,
		 struct target *to)
{
	int direct = goes_direct(ctx, sk, pod, dialled, to);

	if (direct && same_address(&dialled->ip, &to->ip)) {
		sk_storage_delete(MAP(SHOWN_PEER), sk);	/* as dialled */
		return 1;
	}
	if (!remember(sk, dialled, direct ? HINT_NONE : to->hint)) {
		sk_storage_delete(MAP(DIRECT_SOCKET), sk);
		return 0;
	}
	if (direct)
		return 1;
	/* The agent's route to it keeps the pod's own address as the source. */
	target_of(&dialled->ip, dialled->port, &to->ip);
	to->port = TO_BE16(HBONE_PORT);
	count(is_v4(&dialled->ip) ? COUNTER_CAPTURED_V4 : COUNTER_CAPTURED_V6);
	return 1;
}

/*
 * The ztunnel dials the app: from a source of the block. Without one (its port
 * is an app's, or a v6 socket may not bind to what is no interface's) it dials
 * from the pod's own address, which has fewer ports and works as well.
 */
INLINE void choose_source(struct bpf_sock_addr *ctx,
			  const struct pod_value *pod, const struct peer *app,
			  int family)
{
	struct name_v4 v4 = { .family = FAMILY_V4 };
	struct name_v6 v6 = { .family = FAMILY_V6 };
	struct address source;
	long failed;

	if (!is_own(pod, &app->ip) || app->port == TO_BE16(HBONE_PORT))
		return;
	source_for(&app->ip, random_u32(), random_u32(), &source);
	if (family == FAMILY_V4) {
		v4.ip = source.word[3];
		v4.port = TO_BE16(SOURCE_PORT);
		failed = bind_source(ctx, &v4, sizeof(v4));
		v4.port = 0;		/* then any port of that address */
		if (failed)
			failed = bind_source(ctx, &v4, sizeof(v4));
	} else {
		v6.ip = source;
		v6.port = TO_BE16(SOURCE_PORT);
		failed = bind_source(ctx, &v6, sizeof(v6));
		v6.port = 0;
		if (failed)
			failed = bind_source(ctx, &v6, sizeof(v6));
	}
	count(failed ? COUNTER_SOURCE_MISSING : COUNTER_SOURCE_CHOSEN);
}

#define LEAVE 0			/* the destination as it is */
#define REFUSE 1
#define REFUSE_NO_MEMORY 2
#define REWRITE 3		/* the destination to `to` */

INLINE int refuse(__u32 reason)
{
	count(reason);
	return reason == COUNTER_STORAGE_FAILED ? REFUSE_NO_MEMORY : REFUSE;
}

INLINE int decide(struct bpf_sock_addr *ctx, const struct pod_value *pod,
		  const struct peer *dialled, struct target *to)
{
	struct bpf_sock *sk = READ_POINTER(ctx, sk);

	if (!sk)
		return refuse(COUNTER_STORAGE_FAILED);
	/* Set before its pod was enrolled; later ones are refused (route.c). */
	if (sk_storage_get(MAP(SOURCE_ROUTED), sk, 0, 0))
		return refuse(COUNTER_DENIED_SOURCE_ROUTE);
	/* An earlier connect() of this socket may have failed. */
	sk_storage_delete(MAP(DIRECT_SOCKET), sk);
	switch (outbound_verdict(pod, &dialled->ip)) {
	case OUTBOUND_PASS:
		sk_storage_delete(MAP(SHOWN_PEER), sk);
		count(COUNTER_PASSED_LOCAL);
		return LEAVE;
	case OUTBOUND_CAPTURE_V4:
	case OUTBOUND_CAPTURE_V6:
		if (steer(ctx, sk, pod, dialled, to))
			return REWRITE;
		return refuse(COUNTER_STORAGE_FAILED);
	case OUTBOUND_DENY_NO_ADDRESS:
		return refuse(COUNTER_DENIED_NO_ADDRESS);
	case OUTBOUND_DENY_LINK_LOCAL:
		return refuse(COUNTER_DENIED_LINK_LOCAL);
	default:
		return refuse(COUNTER_DENIED_CLOSED);
	}
}

int connect4(struct bpf_sock_addr *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct peer dialled = {};
	struct target to = {};
	int verdict;

	if (!pod)			/* not enrolled: the cost ends here */
		return 1;
	if (READ32(ctx, type) != STREAM)
		return 1;
	map_v4(&dialled.ip, READ32(ctx, user_ip4));
	dialled.port = (__be16)READ32(ctx, user_port);
	if (is_exempt()) {		/* the ztunnel itself */
		choose_source(ctx, pod, &dialled, FAMILY_V4);
		count(COUNTER_EXEMPT);
		return 1;
	}
	verdict = decide(ctx, pod, &dialled, &to);
	if (verdict == REFUSE)
		return deny(ERRNO_NETUNREACH);
	if (verdict == REFUSE_NO_MEMORY)
		return deny(ERRNO_NOBUFS);
	if (verdict == REWRITE) {
		WRITE32(ctx, user_ip4, to.ip.word[3]);
		WRITE32(ctx, user_port, to.port);
	}
	return 1;
}

int connect6(struct bpf_sock_addr *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct peer dialled = {};
	struct target to = {};
	int verdict;

	if (!pod)
		return 1;
	if (READ32(ctx, type) != STREAM)
		return 1;
	READ_ADDRESS(&dialled.ip, ctx, user_ip6);
	dialled.port = (__be16)READ32(ctx, user_port);
	if (is_exempt()) {
		choose_source(ctx, pod, &dialled, FAMILY_V6);
		count(COUNTER_EXEMPT);
		return 1;
	}
	verdict = decide(ctx, pod, &dialled, &to);
	if (verdict == REFUSE)
		return deny(ERRNO_NETUNREACH);
	if (verdict == REFUSE_NO_MEMORY)
		return deny(ERRNO_NOBUFS);
	if (verdict == REWRITE) {	/* ::ffff:a.b.c.d stays v4-mapped */
		WRITE_ADDRESS(ctx, user_ip6, &to.ip);
		WRITE32(ctx, user_port, to.port);
	}
	return 1;
}
