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

/* Kubernetes recommends 110 pods a node at most, large setups run 500; x2. */
#define PODS_MAX 1024

/* One ztunnel per node, two during an upgrade; x8 for helpers beside it. */
#define EXEMPT_CGROUPS_MAX 16

/*
 * An entry lives from the SYN until the ztunnel has accepted and read it, some
 * milliseconds. At 9,300 connects/s, the most of one core, 16,384 entries last
 * 1.7 s with a ztunnel that does not accept at all: more than its listen
 * backlog (4,096) holds. About 128 bytes each: 2 MiB.
 */
#define DESTINATIONS_MAX 16384

/* The same for inbound: from the ztunnel's SYN to the app's accept(). */
#define CLIENTS_MAX 16384
/* One address per family for every pod. */
#define LOCALS_MAX (2 * PODS_MAX)

/*
 * Allowed pairs, port by port: 500 pods with 60 local peers each. After an
 * eviction the pair goes through the ztunnel once more. 72 bytes each: 2.8 MiB
 * with buckets.
 */
#define VERDICTS_MAX 32768

/* 500 pods with 8 services each that have an endpoint here: 2.1 MiB. */
#define SERVICES_MAX 4096

/* Local endpoints of one service; any beyond that count as elsewhere. */
#define SLOTS_MAX 16

/*
 * From a SYN to the accepting side's handshake, as in `destinations`: 1 s of
 * one core's direct connects. 112 bytes each: 2 MiB.
 */
#define VOUCHED_MAX 16384

/*
 * Connections that ztunnels open in the clear, until they are established or
 * given up. At 5,000 a second, one core's most, each lasts 3 s: the SYN can be
 * sent twice more. 96 bytes each: 1.5 MiB.
 */
#define PASSTHROUGH_MAX 16384

/* A ztunnel's patience with a SYN that nobody answers: 10 s. */
#define PASSTHROUGH_NS 10000000000ULL

/*
 * Two for each open direct connection, 96 bytes each: 1.8 MiB. Not LRU: if one
 * of a pair were evicted, the host's conntrack would see one direction only.
 * Connections without room pass through the host's stack in both directions.
 */
#define SHORTCUTS_MAX 16384

/*
 * Reports of direct connections opened and closed, 128 bytes each: 8,192, a
 * quarter of a second of one core's work. A power of two, whole pages.
 */
#define FLOWS_BYTES (1 << 20)

/*
 * Nothing goes direct while the reader is this far behind: a connection can be
 * ended only after its report was read. The other half is for reports of ends.
 */
#define FLOWS_UNREAD_MAX (FLOWS_BYTES / 2)

/*
 * A generation may change between connect() and the SYN's arrival. The ztunnel,
 * too, would have decided by the old one, and it decides live flows again.
 */
#define VOUCH_GRACE_NS 250000000ULL

/* A probe's SYN may be sent again, after 1, 3 and 7 s, if the app is busy. */
#define PROBE_GRACE_NS 10000000000ULL

/*
 * Slots of a pod's listener map: so many for each role, see listener_slot(). A
 * power of two, so that a hash's upper bits choose one.
 */
#define ROLE_SLOTS_BITS 5
#define ROLE_SLOTS (1 << ROLE_SLOTS_BITS)
#define LISTENERS_MAX (ROLES_MAX * ROLE_SLOTS)

/* One JSON record about a pod; agents alone write and read it. */
#define ABOUT_MAX 1
#define ABOUT_BYTES 1024

/* Ports of a pod with a rule of their own about plaintext, and the others. */
#define PLAINTEXT_MAX 64
/* probes[port], host order: the pod itself asks the kubelet to come there */
#define PROBES_MAX 64

/*
 * The ztunnel's only port in a pod: its listeners and, in the block below, the
 * connections that are steered to it. No app can have it.
 */
#define HBONE_PORT 15008

/*
 * The mesh's own addresses inside every captured pod, which the agent makes
 * local there: 127.64.0.0/10 and fd74:756c:6c65::/48. A connection to the
 * ztunnel goes to an address that stands for its destination, one to the app
 * comes from an address of its own. So neither leg shares the 4-tuples of
 * another destination or client, or the app's own ports.
 *
 *	targets		127.64.0.0/11	fd74:756c:6c65:1::/64
 *	sources		127.96.0.0/11	fd74:756c:6c65:2::/64
 */
#define BLOCK_V4 0x7f400000
#define BLOCK_V4_BITS 10
#define SOURCES_V4 0x7f600000
#define SIDE_V4_BITS 11
#define BLOCK_V6_HIGH 0xfd74756c
#define BLOCK_V6_LOW 0x6c65		/* the upper half of the second word */
#define TARGETS_V6 0x6c650001
#define SOURCES_V6 0x6c650002

/*
 * The port of all sources: with an address each they need only one, and an app
 * can bind all the others. IANA has reserved it.
 */
#define SOURCE_PORT 1024

/*
 * setsockopt(SOL_IP, SHOW_CLIENT_OPTION, struct peer) by the ztunnel, before it
 * dials the app: "show this client to the app". The kernel has no such option.
 */
#define SHOW_CLIENT_OPTION 0x7475

/* getsockopt(SOL_IP or SOL_IPV6, this): Linux's SO_ORIGINAL_DST. */
#define ORIGINAL_DESTINATION_OPTION 80

/* Programs carry a map's number until the loader puts in its descriptor. */
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
	MAP_LOCALS = 9,
	MAP_DIRECT_STATE = 10,
	MAP_VERDICTS = 11,
	MAP_SERVICES = 12,
	MAP_DIRECT_SOCKET = 13,
	MAP_VOUCHED = 14,
	MAP_FLOWS = 15,
	MAP_WORKLOAD_LAST = 16,	/* the highest id given; no program reads it */
	MAP_SHORTCUTS = 17,
	MAP_PASSTHROUGH = 18,
	MAP_PLAINTEXT = 19,	/* one per pod */
	MAP_PROBES = 20,	/* one per pod */
};

enum pod_mode {
	POD_CLOSED = 0,		/* nothing leaves; so says a zeroed entry */
	POD_CAPTURE = 1,	/* every outbound connection to the ztunnel */
};

/* Result of the kernel's draw, for the ztunnel that gets the connection. */
enum hint {
	HINT_NONE = 0,
	HINT_LOCAL = 1,
	HINT_ELSEWHERE = 2,
};

enum flow_kind {
	FLOW_NONE = 0,
	FLOW_OPENED = 1,
	FLOW_CLOSED = 2,
	FLOW_FAILED = 3,	/* never established */
};

/* plaintext[port of the pod, or 0 for all others]; host order, a u32 each */
enum plaintext_rule {
	PLAINTEXT_ASK = 0,	/* the ztunnel decides; so without an entry */
	PLAINTEXT_REFUSE = 1,	/* no one without an identity is let in here */
};

/* Roles of the ztunnel's listeners in a pod; a worker has one of each. */
enum listener_role {
	ROLE_HBONE = 0,
	ROLE_PLAINTEXT = 1,
	ROLE_OUTBOUND = 2,
	ROLES_MAX = 3,
};

/* The same nouns in the map, the metrics and the docs (layout.Counter). */
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
	COUNTER_DIRECT_CHOSEN = 18,
	COUNTER_DIRECT_NO_LEASE = 19,
	COUNTER_DIRECT_NO_VERDICT = 20,
	COUNTER_DIRECT_READER_BEHIND = 21,
	COUNTER_DIRECT_ODD_SOCKET = 22,	/* bound, or going, elsewhere */
	COUNTER_DIRECT_LATE = 23,	/* SYN after its generation's end */
	COUNTER_DIRECT_VOUCHED = 24,
	COUNTER_INBOUND_VOUCHED = 25,
	COUNTER_INBOUND_STALE = 26,
	COUNTER_FLOW_TOLD = 27,
	COUNTER_FLOW_LOST = 28,		/* the ring was full */
	COUNTER_SHORTCUT_OPENED = 29,
	COUNTER_SHORTCUT_FULL = 30,
	COUNTER_SHORTCUT_TAKEN = 31,	/* segments */
	COUNTER_PASSTHROUGH_TOLD = 32,
	COUNTER_INBOUND_PASSTHROUGH = 33,
	COUNTER_INBOUND_UNVOUCHED = 34,
	COUNTER_INBOUND_STRICT = 35,
	COUNTER_INBOUND_OUTBOUND = 36,	/* steered here by connect() */
	COUNTER_INBOUND_REFUSED = 37,	/* to an address of the mesh's block */
	COUNTER_SOURCE_CHOSEN = 38,
	COUNTER_SOURCE_MISSING = 39,	/* dialled from the pod's own address */
	COUNTER_PROBE_VOUCHED = 40,
	COUNTER_INBOUND_PROBE = 41,	/* of the kubelet, to the app */
	COUNTERS_MAX = 42,
};

struct address {
	__be32 word[4];
};

/* pods[netns cookie] */
struct pod_value {
	struct address ip4;	/* v4-mapped */
	struct address ip6;
	__u32 workload;		/* id; 0: none, never direct */
	__u32 device;		/* ifindex of its veth's host end, or 0 */
	__u8 has4;
	__u8 has6;
	__u8 mode;		/* enum pod_mode */
	__u8 direct;		/* 1: its connections may go direct */
};

/* A connection inside a pod, as the sender of its SYN names it. */
struct connection_key {
	__u64 netns;		/* cookie: unique until the next boot */
	struct address ip;
	struct address to;
	__u16 port;		/* both in host order */
	__u16 to_port;
	__u8 pad[4];
};

/* Also the bytes of SHOW_CLIENT_OPTION. */
struct peer {
	struct address ip;
	__be16 port;
	__u8 hint;		/* enum hint, for the ztunnel */
	__u8 pad[5];
};

/*
 * passthrough[struct peer] is the time of a SYN in the clear that a ztunnel
 * sent from a captured pod. Not by destination: the host may translate that.
 *
 * locals[address] is the captured pod of this node at that address.
 */
struct local {
	__u32 workload;		/* 0: none, never direct */
	__u32 device;		/* as in struct pod_value */
	__u8 direct;		/* 1: it may be reached directly */
	__u8 pad[3];
};

/* The direct path: connections between two pods of this node without ztunnel. */

struct direct_state {
	__u64 generation;	/* 0: none, every verdict is stale */
	__u64 lease_until_ns;	/* CLOCK_MONOTONIC; 0: over */
};

/* verdicts[key] is the u64 generation in which the pair was allowed. */
struct verdict_key {
	__u32 source;
	__u32 destination;
	__be16 port;
	__u8 pad[2];
};

struct service_key {
	__u32 source;
	__be16 port;
	__u8 pad[2];
	struct address vip;
};

struct service_slot {
	__u32 cumulative;	/* weights of this slot and those before it */
	__u32 workload;
	struct address ip;
	__be16 port;
	__u8 pad[2];
};

struct service_value {
	__u32 total;		/* all weights; the rest is elsewhere */
	__u32 count;
	struct service_slot slots[SLOTS_MAX];
};

/* On the client's socket, from connect() to its end. */
struct direct_socket {
	__u64 generation;
	__u64 opened_ns;
	__u64 received;		/* bytes at FIN_WAIT2, see flow_state() */
	struct address client;
	struct address target;
	struct address original;
	__u32 source;
	__u32 destination;
	__be16 client_port;
	__be16 target_port;
	__be16 original_port;
	__u8 established;
	__u8 fin_acked;
	__u8 fin_received;
	__u8 pad[7];
};

struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 pad[4];
};

struct vouched {
	__u64 generation;
	__u64 at_ns;
	__u32 destination;	/* its address may be another pod's by then */
	__u8 probe;		/* 1: the kubelet's, of no generation */
	__u8 pad[3];
};

/* shortcuts[tuple]: segments from the source device go to the target's peer. */
struct shortcut {
	__u32 source;
	__u32 target;
	__u32 ending;		/* one of the two ends has closed */
};

/* One record of the ring buffer. */
struct flow_event {
	__u64 id;		/* the client's socket cookie */
	__u64 generation;
	__u64 opened_ns;
	__u64 age_ns;
	__u64 sent;		/* bytes from the client, acknowledged */
	__u64 received;
	struct address client;
	struct address target;
	struct address original;
	__u32 source;
	__u32 destination;
	__u32 srtt_us;
	__u32 retransmits;
	__be16 client_port;
	__be16 target_port;
	__be16 original_port;
	__u8 kind;		/* enum flow_kind */
	__u8 aborted;		/* ended without both FINs */
};

#endif
