/*
 * Addresses: kinds of them, and the block that stands in for destinations and
 * sources (sizes.h). IPv4 is always v4-mapped. No helper, no map: plain cc
 * builds this too.
 */
#ifndef TULLE_ADDRESS_H
#define TULLE_ADDRESS_H

#include "maps.h"

#define INLINE static inline __attribute__((always_inline))

/* For x86_64 and aarch64, both little endian; bpf has the host's order. */
#define TO_BE32(x) ((__be32)__builtin_bswap32(x))
#define TO_BE16(x) ((__be16)__builtin_bswap16(x))

#define MAPPED_WORD TO_BE32(0x0000ffff)

INLINE int is_v4(const struct address *ip)
{
	return !ip->word[0] && !ip->word[1] && ip->word[2] == MAPPED_WORD;
}

INLINE int same_address(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/*
 * True for loopback, and for 0.0.0.0 and ::, with which connect() means this
 * host. IPv4-compatible ::a.b.c.d is an ordinary (dead) v6 address.
 */
INLINE int is_this_host(const struct address *ip)
{
	__u32 last = TO_BE32(ip->word[3]);

	if (is_v4(ip))
		return last >> 24 == 127 || !last;
	return !ip->word[0] && !ip->word[1] && !ip->word[2] && last <= 1;
}

INLINE int is_multicast(const struct address *ip)
{
	if (is_v4(ip))
		return TO_BE32(ip->word[3]) >> 28 == 0xe;
	return TO_BE32(ip->word[0]) >> 24 == 0xff;
}

INLINE int is_link_local_v6(const struct address *ip)
{
	return TO_BE32(ip->word[0]) >> 22 == 0xfe80 >> 6;
}

INLINE int is_in_block(const struct address *ip)
{
	__u32 last = TO_BE32(ip->word[3]);

	if (is_v4(ip))
		return last >> (32 - BLOCK_V4_BITS) ==
		       BLOCK_V4 >> (32 - BLOCK_V4_BITS);
	return ip->word[0] == TO_BE32(BLOCK_V6_HIGH) &&
	       TO_BE32(ip->word[1]) >> 16 == BLOCK_V6_LOW;
}

/* 0.0.0.0 or ::, which is nobody's address. */
INLINE void unspecified(int v4, struct address *ip)
{
	ip->word[0] = 0;
	ip->word[1] = 0;
	ip->word[2] = v4 ? MAPPED_WORD : 0;
	ip->word[3] = 0;
}

INLINE int is_source(const struct address *ip)
{
	if (is_v4(ip))
		return TO_BE32(ip->word[3]) >> (32 - SIDE_V4_BITS) ==
		       SOURCES_V4 >> (32 - SIDE_V4_BITS);
	return ip->word[0] == TO_BE32(BLOCK_V6_HIGH) &&
	       ip->word[1] == TO_BE32(SOURCES_V6);
}

/* Odd, with its bits well mixed: 2^64 over the golden ratio. */
#define SPREAD 0x9e3779b97f4a7c15ULL

/*
 * Two words as one. A word that is widened elsewhere as well shares a shift with
 * this; clang 11 erases it there and crashes here. So it is another value.
 */
INLINE __u64 joined(__u32 high, __u32 low)
{
	__u64 wide = high;

	asm("" : "+r"(wide));
	return wide << 32 | low;
}

INLINE __u64 spread(const struct address *ip, __u32 port)
{
	__u64 high = joined(ip->word[0], ip->word[1]);
	__u64 low = joined(ip->word[2], ip->word[3]);

	high = (high ^ (__u64)port << 13) * SPREAD;
	low = (low ^ high >> 29 ^ high) * SPREAD;
	return (low ^ low >> 32) * SPREAD;
}

/*
 * The target that stands for a destination: always the same one, so that two
 * connections from one port to one destination meet, as they would without the
 * mesh. Two destinations share a target with a chance of 1 to 2^21, or 2^64.
 */
INLINE void target_of(const struct address *dst, __be16 port,
		      struct address *to)
{
	__u64 hash = spread(dst, port);

	if (is_v4(dst)) {
		to->word[0] = 0;
		to->word[1] = 0;
		to->word[2] = MAPPED_WORD;
		to->word[3] = TO_BE32(BLOCK_V4 |
				      (__u32)(hash >> (32 + SIDE_V4_BITS)));
		return;
	}
	to->word[0] = TO_BE32(BLOCK_V6_HIGH);
	to->word[1] = TO_BE32(TARGETS_V6);
	to->word[2] = (__u32)(hash >> 32);
	to->word[3] = (__u32)hash;
}

/* A source for a connection to `dst`, by two random numbers. */
INLINE void source_for(const struct address *dst, __u32 first, __u32 second,
		       struct address *from)
{
	if (is_v4(dst)) {
		from->word[0] = 0;
		from->word[1] = 0;
		from->word[2] = MAPPED_WORD;
		from->word[3] = TO_BE32(SOURCES_V4 | first >> SIDE_V4_BITS);
		return;
	}
	from->word[0] = TO_BE32(BLOCK_V6_HIGH);
	from->word[1] = TO_BE32(SOURCES_V6);
	from->word[2] = first;
	from->word[3] = second;
}

#endif
