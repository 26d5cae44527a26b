/*
 * One call of the plugin: its environment, its configuration, its time.
 */
#ifndef TULLE_CNI_CALL_H
#define TULLE_CNI_CALL_H

#include "scan.h"

#ifndef TULLE_VERSION
#define TULLE_VERSION "0"	/* the build says better */
#endif

#ifndef DEADLINE_MS
#define DEADLINE_MS 10000	/* the kubelet waits for minutes; people do not */
#endif
#define STDIN_BYTES_MAX (512 * 1024)
#define VARIABLE_BYTES_MAX (16 * 1024)
#define PATH_CHARS_MAX 256
#define VERSION_CHARS_MAX 15

/* The codes of the CNI specification that we use. */
enum cni_code {
	CNI_INCOMPATIBLE = 1,
	CNI_BAD_ENVIRONMENT = 4,
	CNI_IO = 5,
	CNI_UNDECODABLE = 6,
	CNI_BAD_CONFIG = 7,
	CNI_TRY_LATER = 11,
	CNI_UNAVAILABLE = 50,
};

struct call {
	long long deadline_ms;	/* on the monotonic clock */
	const char *command;
	struct text config;	/* standard input, whole */
	char version[VERSION_CHARS_MAX + 1];	/* its cniVersion */
	char socket[PATH_CHARS_MAX];	/* where the agent listens */
	char marker[PATH_CHARS_MAX];	/* the boot in which it did last */
	char namespaces[PATH_CHARS_MAX];	/* what it knew of namespaces */
	struct text exempt;	/* an array; size 0: there is none */
	struct text namespace;	/* of the pod; size 0: it is no pod's */
};

long long now_ms(void);
void pause_ms(int ms);

/* True while there is time left. */
bool has_time(const struct call *call);

#endif
