/*
 * Access to the kernel: helpers by their numbers (a stable ABI), maps and the
 * counter. Helpers are declared here because BCC's own set depends on its
 * version. Maps are declared by number (see enum map_id), so that none has to
 * exist in the kernel while the programs are compiled.
 */
#ifndef TULLE_KERNEL_H
#define TULLE_KERNEL_H

#include "verdict.h"

/* LLVM's "load the fd of map N": the loader replaces N with the real fd. */
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
static long (*bind_source)(void *ctx, const void *name, int length) =
	(void *)64;
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

#define NO_EXIST 1		/* BPF_NOEXIST */
#define STORAGE_CREATE 1	/* BPF_SK_STORAGE_GET_F_CREATE */

#define STREAM 1		/* SOCK_STREAM: TCP and MPTCP */
#define PROTOCOL_TCP 6

#define ERRNO_NETUNREACH 101
#define ERRNO_NOBUFS 105

INLINE void count(__u32 reason)
{
	__u64 *total = map_lookup(MAP(COUNTERS), &reason);

	if (total)
		*total += 1;	/* per CPU: no other writer */
}

/*
 * Fields of a context or a kernel socket: one instruction each, by offset.
 *
 * In plain C a compiler may compute the address first to merge the code of two
 * branches, widen a load, or join two stores. Each depends on clang's version,
 * and the verifier refuses each ("dereference of modified ctx ptr", "invalid
 * bpf_context access"). So no program has ctx->field or sk->field; a unit test
 * checks that.
 */
#define OFFSET(pointer, field) __builtin_offsetof(typeof(*(pointer)), field)

#define LOAD(size, type, from, offset)					\
	({								\
		type value_;						\
		asm volatile("%0 = *(" size " *)(%1 + %2)"		\
			     : "=r"(value_)				\
			     : "r"(from), "i"(offset));			\
		value_;							\
	})

#define READ32_AT(from, offset) ((__u32)LOAD("u32", __u64, from, offset))
#define READ32(from, field) READ32_AT(from, OFFSET(from, field))
#define READ64(from, field) LOAD("u64", __u64, from, OFFSET(from, field))
#define READ_POINTER(from, field) LOAD("u64", void *, from, OFFSET(from, field))
/* data, data_end of a packet: the kernel turns their 32 bits into pointers */
#define READ_PACKET(from, field) LOAD("u32", void *, from, OFFSET(from, field))

#define WRITE32_AT(to, offset, value)					\
	asm volatile("*(u32 *)(%0 + %1) = %2"				\
		     :							\
		     : "r"(to), "i"(offset), "r"((__u64)(value))	\
		     : "memory")
#define WRITE32(to, field, value) WRITE32_AT(to, OFFSET(to, field), value)

#define READ_ADDRESS(to, from, field)					\
	do {								\
		(to)->word[0] = READ32_AT(from, OFFSET(from, field));	\
		(to)->word[1] = READ32_AT(from, OFFSET(from, field) + 4);\
		(to)->word[2] = READ32_AT(from, OFFSET(from, field) + 8);\
		(to)->word[3] = READ32_AT(from, OFFSET(from, field) + 12);\
	} while (0)

#define WRITE_ADDRESS(to, field, from)					\
	do {								\
		WRITE32_AT(to, OFFSET(to, field), (from)->word[0]);	\
		WRITE32_AT(to, OFFSET(to, field) + 4, (from)->word[1]);	\
		WRITE32_AT(to, OFFSET(to, field) + 8, (from)->word[2]);	\
		WRITE32_AT(to, OFFSET(to, field) + 12, (from)->word[3]);\
	} while (0)

struct name_v4 {		/* sockaddr_in */
	__u16 family;
	__be16 port;
	__be32 ip;
	__u64 rest;		/* sin_zero */
};

struct name_v6 {		/* sockaddr_in6 */
	__u16 family;
	__be16 port;
	__be32 flow;
	struct address ip;
	__u32 scope;
};

INLINE void map_v4(struct address *to, __be32 ip4)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_WORD;
	to->word[3] = ip4;
}

/* Before Linux 5.18 there is no bpf_set_retval, and the app sees EPERM. */
INLINE int deny(int error)
{
#ifdef TULLE_HAS_SET_RETVAL
	set_retval(-error);
#endif
	return 0;
}

#endif
