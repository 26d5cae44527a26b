/*
 * The contract between the kernel programs and the agent: every shared struct,
 * enum, size and map number. bpf/layout.py is its twin in ctypes; a unit test
 * compiles this header and compares the two field by field.
 *
 * The zero value of every enum is the safe one. Pads are always zero, because
 * keys are compared as bytes. Addresses are 16 bytes in network order; IPv4 is
 * written v4-mapped (::ffff:a.b.c.d), so one table serves both families.
 */
#ifndef TULLE_MAPS_H
#define TULLE_MAPS_H

#include <linux/types.h>

/* Kubernetes' own ceiling is 110 pods a node, large setups run 500; x2. */
#define PODS_MAX 1024

/* One tunnel per node, two during an upgrade; x8 for helpers beside it. */
#define EXEMPT_CGROUPS_MAX 16

/*
 * An entry lives from the SYN until the tunnel has accepted and read it, some
 * milliseconds. At the 9,300 connects/s that one core manages, 16,384 entries
 * hold 1.7 s of a tunnel that does not accept at all, which is more than its
 * listen backlog (4,096) holds. About 128 bytes each: 2 MiB.
 */
#define DESTINATIONS_MAX 16384

/* The same life for inbound: from the tunnel's SYN to the app's accept. */
#define CLIENTS_MAX 16384

/* Slots of a pod's listener map, see enum listener_slot. */
#define LISTENERS_MAX 2

/* One JSON record about a pod, written and read by agents only. */
#define ABOUT_MAX 1
#define ABOUT_BYTES 1024

#define HBONE_PORT 15008

/*
 * setsockopt(SOL_IP, SHOW_CLIENT_OPTION, struct peer) by the tunnel, before it
 * dials the app: "the app is to see this client". No kernel option has it.
 */
#define SHOW_CLIENT_OPTION 0x7475

/* getsockopt(SOL_IP or SOL_IPV6, this): Linux's name for the question. */
#define ORIGINAL_DESTINATION_OPTION 80

/* A map's number is what programs carry until the loader knows its fd. */
enum map_id {
	MAP_PODS = 0,
	MAP_EXEMPT_CGROUPS = 1,
	MAP_DESTINATIONS = 2,
	MAP_CLIENTS = 3,
	MAP_SHOWN_PEER = 4,
	MAP_CLAIMED_CLIENT = 5,
	MAP_COUNTERS = 6,
	MAP_LISTENERS = 7,	/* one per pod */
	MAP_ABOUT = 8,		/* one per pod; no program reads it */
};

enum pod_mode {
	POD_CLOSED = 0,		/* nothing leaves: what a zeroed entry says */
	POD_CAPTURE = 1,	/* every outbound connection to the tunnel */
};

enum listener_slot {
	SLOT_HBONE = 0,
	SLOT_PLAINTEXT = 1,
};

/* One noun list for the map, the metrics and the docs (layout.Counter). */
enum counter {
	COUNTER_CAPTURED_V4 = 0,
	COUNTER_CAPTURED_V6 = 1,
	COUNTER_PASSED_LOCAL = 2,	/* loopback, own address, multicast */
	COUNTER_EXEMPT = 3,
	COUNTER_DENIED_CLOSED = 4,
	COUNTER_DENIED_NO_ADDRESS = 5,
	COUNTER_DENIED_LINK_LOCAL = 6,
	COUNTER_DESTINATION_KEPT = 7,
	COUNTER_DESTINATION_READ = 8,
	COUNTER_DESTINATION_MISSING = 9,
	COUNTER_CLIENT_CLAIMED = 10,
	COUNTER_CLIENT_REFUSED = 11,	/* malformed SHOW_CLIENT_OPTION */
	COUNTER_CLIENT_SHOWN = 12,
	COUNTER_INBOUND_LOCAL = 13,
	COUNTER_INBOUND_HBONE = 14,
	COUNTER_INBOUND_PLAINTEXT = 15,
	COUNTER_INBOUND_DROPPED = 16,
	COUNTER_STORAGE_FAILED = 17,
	COUNTERS_MAX = 18,
};

struct address {
	__be32 word[4];
};

/* pods[netns cookie] */
struct pod_value {
	struct address ip4;	/* v4-mapped */
	struct address ip6;
	__be16 outbound_port;	/* the tunnel's listener inside the pod */
	__u8 has4;
	__u8 has6;
	__u8 mode;		/* enum pod_mode */
	__u8 pad[3];
};

/* A socket seen from its other end: who sent that SYN? */
struct socket_key {
	__u64 netns;		/* cookie: unique until the next boot */
	struct address ip;
	__u16 port;		/* host order */
	__u8 pad[6];
};

/* Also the bytes of SHOW_CLIENT_OPTION. */
struct peer {
	struct address ip;
	__be16 port;
	__u8 pad[6];
};

#endif
