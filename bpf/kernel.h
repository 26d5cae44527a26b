/*
 * The kernel's side of the programs: helper numbers (a stable ABI), map access
 * and the counter. The helpers are declared here, not taken from BCC, whose
 * set depends on its age; so are maps, by number (see enum map_id): nothing has
 * to exist in the kernel while the programs are compiled.
 */
#ifndef TULLE_KERNEL_H
#define TULLE_KERNEL_H

#include "verdict.h"

/* LLVM's "load the fd of map N": the loader replaces N by the real fd. */
__u64 tulle_map_fd(__u64 kind, __u64 number) asm("llvm.bpf.pseudo");
#define MAP(name) ((void *)tulle_map_fd(1, MAP_##name))

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value,
			  __u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static __u64 (*now_ns)(void) = (void *)5;	/* CLOCK_MONOTONIC */
static __u32 (*random_u32)(void) = (void *)7;
static long (*skb_change_type)(void *ctx, __u32 type) = (void *)32;
static __u64 (*socket_cookie)(void *ctx) = (void *)46;
static long (*set_callbacks)(void *ctx, int flags) = (void *)59;
static __u64 (*current_cgroup_id)(void) = (void *)80;
static long (*sk_release)(void *sk) = (void *)86;
static void *(*sk_storage_get)(void *map, void *sk, void *value,
			       __u64 flags) = (void *)107;
static long (*sk_storage_delete)(void *map, void *sk) = (void *)108;
static __u64 (*netns_cookie)(void *ctx) = (void *)122;
static long (*sk_assign)(void *ctx, void *sk, __u64 flags) = (void *)124;
static void *(*ring_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*ring_submit)(void *data, __u64 flags) = (void *)132;
static __u64 (*ring_query)(void *ring, __u64 flags) = (void *)134;
static long (*redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;
static int (*set_retval)(int retval) = (void *)186;
static void *(*to_mptcp_socket)(void *sk) = (void *)196;

#define STORAGE_CREATE 1	/* BPF_SK_STORAGE_GET_F_CREATE */

#define STREAM 1		/* SOCK_STREAM: TCP and MPTCP */
#define PROTOCOL_TCP 6

#define ERRNO_NETUNREACH 101
#define ERRNO_NOBUFS 105

INLINE void count(__u32 reason)
{
	__u64 *total = map_lookup(MAP(COUNTERS), &reason);

	if (total)
		*total += 1;	/* per CPU: nobody else writes this one */
}

/*
 * A context field by its offset, in one instruction. LLVM would share the code
 * of two branches by computing the address first, and the verifier refuses a
 * context (or socket) pointer that was added to.
 */
#define READ32(from, offset)						\
	({								\
		__u64 value_;						\
		asm volatile("%0 = *(u32 *)(%1 + %2)"			\
			     : "=r"(value_)				\
			     : "r"(from), "i"(offset));			\
		(__u32)value_;						\
	})

#define READ_ADDRESS(to, from, field)					\
	do {								\
		(to)->word[0] = READ32(from, OFFSET(from, field));	\
		(to)->word[1] = READ32(from, OFFSET(from, field) + 4);	\
		(to)->word[2] = READ32(from, OFFSET(from, field) + 8);	\
		(to)->word[3] = READ32(from, OFFSET(from, field) + 12);	\
	} while (0)

#define OFFSET(pointer, field) __builtin_offsetof(typeof(*(pointer)), field)

INLINE void map_v4(struct address *to, __be32 ip4)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_WORD;
	to->word[3] = ip4;
}

/* Kernels before 5.18 have no bpf_set_retval: the app sees EPERM then. */
INLINE int deny(int error)
{
#ifdef TULLE_HAS_SET_RETVAL
	set_retval(-error);
#endif
	return 0;
}

#endif
