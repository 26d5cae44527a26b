/*
 * Sizes, times, ports and addresses that programs and agent share: a part of
 * the contract in maps.h, with a twin in layout.py.
 */
#ifndef TULLE_SIZES_H
#define TULLE_SIZES_H

/* Kubernetes recommends 110 pods a node at most, large setups run 500; x2. */
#define PODS_MAX 1024

/* One ztunnel per node, two during an upgrade; x8 for helpers beside it. */
#define EXEMPT_CGROUPS_MAX 16

/*
 * An entry lives from the SYN to the end of the handshake inside the pod, some
 * microseconds; then it moves to the ztunnel's socket. Only those whose SYN found
 * a full backlog stay longer. About 128 bytes each: 2 MiB.
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
 * Open direct connections of one pod; its further ones go through the ztunnel.
 * A quarter of those that an agent can follow, and half of the shortcuts, so that
 * no pod takes the direct path from the others.
 */
#define POD_FLOWS_MAX 4096

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
 * Slots for refused SYNs, by their sender: enough to tell a few callers apart,
 * and nothing that a flood could fill.
 */
#define REFUSED_SLOTS_BITS 3
#define REFUSED_SLOTS (1 << REFUSED_SLOTS_BITS)

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

#endif
