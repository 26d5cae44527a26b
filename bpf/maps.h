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

#include "sizes.h"

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
	MAP_REFUSED = 21,	/* one per pod */
	MAP_KUBELET_NETNS = 22,	/* cookie of the kubelet's own namespace */
	MAP_SOURCE_ROUTED = 23,
	MAP_ORIGINAL = 24,	/* on the ztunnel's end: where the app went */
	MAP_POD_FLOWS = 25,
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
	COUNTER_DENIED_SOURCE_ROUTE = 42,
	COUNTER_CLIENT_MISSING = 43,	/* the ztunnel's dial, shown as nobody's */
	COUNTER_DIRECT_POD_FULL = 44,	/* see POD_FLOWS_MAX */
	COUNTERS_MAX = 45,
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

/* pod_flows[workload] is the u64 number of its open connections, as source. */

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

/* refused[slot_of_refused()], per CPU: how many SYNs, and the last of them. */
struct refused_slot {
	__u64 count;
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 reason;		/* enum counter */
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
	__u8 own;		/* 1: of the pod to itself, of none either */
	__u8 pad[2];
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
