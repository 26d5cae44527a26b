/*
 * The agent at the other end of a unix socket. It decides; we only ask.
 */
#ifndef TULLE_CNI_AGENT_H
#define TULLE_CNI_AGENT_H

#include "call.h"

#define ANSWER_BYTES_MAX (64 * 1024)	/* a verdict, or an error of a sentence */

enum outcome {
	AGENT_AWAY,	/* nobody listens, or the line broke */
	AGENT_SILENT,	/* it took the call, and time ran out */
	AGENT_YES,
	AGENT_NO,	/* `answer` is an error as the runtime wants it */
};

/* False: a variable is too long to be passed on. */
bool agent_takes_environment(void);

/* Ask once. */
enum outcome agent_ask(const struct call *call, struct text *answer);

#endif
