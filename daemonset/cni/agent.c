/*
 * A request is HTTP/1.1, POST /cni: the environment as NAME=VALUE, each with a
 * NUL behind it, one more NUL, and standard input as it came. The answer's
 * status says yes (200) or no; with a no comes the error to print. Whatever is
 * not a whole answer of this form counts as a broken line.
 */
#define _GNU_SOURCE		/* memmem */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEAD_BYTES_MAX 256
#define RETRY_MS 50		/* while the agent's queue is full */

static const char *const PASSED_ON[] = {
	"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS",
	"CNI_IFNAME",  "CNI_ARGS",
};
#define PASSED_ON_SIZE (sizeof(PASSED_ON) / sizeof(*PASSED_ON))

static char request[HEAD_BYTES_MAX +
		    (PASSED_ON_SIZE + 1) * (VARIABLE_BYTES_MAX + 32) +
		    STDIN_BYTES_MAX];
static char reply[ANSWER_BYTES_MAX];

static size_t put_variable(char *to, const char *name, const char *value)
{
	return sprintf(to, "%s=%.*s", name, VARIABLE_BYTES_MAX, value) + 1;
}

bool agent_takes_environment(void)
{
	for (size_t i = 0; i < PASSED_ON_SIZE; i++) {
		const char *value = getenv(PASSED_ON[i]);

		if (value && strlen(value) > VARIABLE_BYTES_MAX)
			return false;
	}
	return true;
}

/* The request's size; it lies at `from`. */
static size_t compose(const struct call *call, char **from)
{
	char *body = request + HEAD_BYTES_MAX;
	char *end = body;
	char left_ms[24], head[HEAD_BYTES_MAX];
	int head_size;

	for (size_t i = 0; i < PASSED_ON_SIZE; i++) {
		const char *value = getenv(PASSED_ON[i]);

		if (value)
			end += put_variable(end, PASSED_ON[i], value);
	}
	snprintf(left_ms, sizeof(left_ms), "%lld",
		 call->deadline_ms - now_ms());
	end += put_variable(end, "TULLE_LEFT_MS", left_ms);
	*end++ = 0;
	memcpy(end, call->config.at, call->config.size);
	end += call->config.size;
	head_size = snprintf(head, sizeof(head),
			     "POST /cni HTTP/1.1\r\nHost: localhost\r\n"
			     "User-Agent: tulle-cni/" TULLE_VERSION "\r\n"
			     "Content-Length: %zu\r\n\r\n",
			     (size_t)(end - body));
	*from = body - head_size;
	memcpy(*from, head, head_size);
	return end - *from;
}

/* Wait for the socket; false when time has run out. */
static bool ready(const struct call *call, int sock, short events)
{
	struct pollfd waiting = { .fd = sock, .events = events };
	int found;

	do {
		long long left = call->deadline_ms - now_ms();

		if (left <= 0)
			return false;
		found = poll(&waiting, 1, (int)left);
	} while (found < 0 && errno == EINTR);
	return found > 0;
}

static int connected(const struct call *call)
{
	struct sockaddr_un where = { .sun_family = AF_UNIX };
	int sock;

	if (strlen(call->socket) >= sizeof(where.sun_path))
		return -1;
	strcpy(where.sun_path, call->socket);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -1;
	while (connect(sock, (struct sockaddr *)&where, sizeof(where)) < 0) {
		if ((errno != EAGAIN && errno != EINTR) || !has_time(call)) {
			close(sock);
			return -1;
		}
		pause_ms(RETRY_MS);
	}
	return sock;
}

static enum outcome sent(const struct call *call, int sock, const char *from,
			 size_t size)
{
	while (size > 0) {
		ssize_t part = send(sock, from, size, MSG_NOSIGNAL);

		if (part < 0 && errno == EINTR)
			continue;
		if (part < 0 && errno != EAGAIN)
			return AGENT_AWAY;
		if (part < 0) {
			if (!ready(call, sock, POLLOUT))
				return AGENT_SILENT;
			continue;
		}
		from += part;
		size -= part;
	}
	return AGENT_YES;
}

/* The body's place in an answer so far; false: the head is not whole. */
static bool head(size_t got, size_t *body, size_t *body_size, int *status)
{
	char *end = memmem(reply, got, "\r\n\r\n", 4);
	char *line;

	if (!end)
		return false;
	*body = end + 4 - reply;
	*body_size = SIZE_MAX;	/* not told: not an answer of ours */
	*status = 0;
	if (*body > 13 && !memcmp(reply, "HTTP/1.1 ", 9))
		*status = atoi(reply + 9);
	for (line = reply; line < end; line += 2) {
		line = memmem(line, end + 2 - line, "\r\n", 2);
		if (line && !strncasecmp(line + 2, "content-length:", 15))
			*body_size = strtoull(line + 17, NULL, 10);
		if (!line)
			break;
	}
	return true;
}

static enum outcome received(const struct call *call, int sock,
			     struct text *answer)
{
	size_t got = 0, body, body_size;
	int status;

	for (;;) {
		ssize_t part;

		if (!ready(call, sock, POLLIN))
			return AGENT_SILENT;
		part = recv(sock, reply + got, sizeof(reply) - 1 - got, 0);
		if (part < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (part <= 0)	/* its end, or ours: no room is left */
			return AGENT_AWAY;
		got += part;
		reply[got] = 0;
		if (!head(got, &body, &body_size, &status))
			continue;
		if (body_size > sizeof(reply) - 1 - body)
			return AGENT_AWAY;
		if (got >= body + body_size)
			break;
	}
	if (status == 200)
		return AGENT_YES;
	*answer = (struct text){ reply + body, body_size };
	return scan_member(*answer, "code", &(struct text){ 0 }) &&
			       scan_member(*answer, "msg", &(struct text){ 0 }) ?
		       AGENT_NO :
		       AGENT_AWAY;
}

enum outcome agent_ask(const struct call *call, struct text *answer)
{
	int sock = connected(call);
	enum outcome found;
	char *from;
	size_t size;

	if (sock < 0)
		return AGENT_AWAY;
	size = compose(call, &from);
	found = sent(call, sock, from, size);
	if (found == AGENT_YES || found == AGENT_AWAY)
		found = received(call, sock, answer);
	close(sock);
	return found;
}
