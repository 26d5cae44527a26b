/*
 * tulle-cni: a chained CNI plugin. It asks the node's agent, and prints what
 * the runtime waits for: the result of the plugins before it, or an error of
 * one sentence. It makes no process, knows no API server and holds no secret.
 *
 * A pod of the mesh starts only on the agent's word that it is captured. While
 * the agent is away, a pod starts if the file of namespaces says that it is
 * outside the mesh, and waits otherwise. Pods stop in any case.
 */
#include "agent.h"
#include "call.h"
#include "word.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define AGAIN_MS 100		/* between two looks for an agent that is away */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_CHARS 36
#define VERSIONS "\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""
#define NEWEST "1.1.0"

static char input[STDIN_BYTES_MAX + 1];

long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void pause_ms(int ms)
{
	poll(NULL, 0, ms);
}

bool has_time(const struct call *call)
{
	return now_ms() < call->deadline_ms;
}

static bool print(struct text what)
{
	while (what.size > 0) {
		ssize_t part = write(STDOUT_FILENO, what.at, what.size);

		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0)
			return false;
		what.at += part;
		what.size -= part;
	}
	return true;
}

/* The sentence has no character that JSON would escape. */
static int fail(const struct call *call, enum cni_code code,
		const char *sentence)
{
	char text[1024];
	int size = snprintf(text, sizeof(text),
			    "{\"cniVersion\":\"%s\",\"code\":%d,"
			    "\"msg\":\"tulle: %s\"}\n",
			    *call->version ? call->version : NEWEST, code,
			    sentence);

	print((struct text){ text, size });
	return 1;
}

/* Standard input, whole; an errno otherwise. */
static int read_config(struct call *call)
{
	size_t got = 0;

	for (;;) {
		struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
		long long left = call->deadline_ms - now_ms();
		ssize_t part;

		if (left <= 0 || poll(&in, 1, (int)left) == 0)
			return ETIMEDOUT;
		part = read(STDIN_FILENO, input + got, sizeof(input) - got);
		if (part < 0 && errno == EINTR)
			continue;
		if (part < 0)
			return errno;
		if (part == 0)
			break;
		got += part;
		if (got == sizeof(input))
			return EFBIG;
	}
	call->config = (struct text){ input, got };
	return 0;
}

static bool copy(const struct call *call, const char *name, char *to,
		 size_t size)
{
	struct text value, chars;

	if (!scan_member(call->config, name, &value) ||
	    !scan_string(value, &chars) || chars.size >= size)
		return false;
	memcpy(to, chars.at, chars.size);
	to[chars.size] = 0;
	return true;
}

/* Fill in the call; 0, or what is wrong with it and `sentence`. */
static enum cni_code parse(struct call *call, const char **sentence)
{
	int error = read_config(call);

	*sentence = "a variable of the environment is too long";
	if (!agent_takes_environment())
		return CNI_BAD_ENVIRONMENT;
	if (error) {
		*sentence = error == EFBIG ?
				    "the network configuration is too long" :
				    "standard input cannot be read";
		return error == EFBIG ? CNI_UNDECODABLE : CNI_IO;
	}
	*sentence = "the network configuration is not a JSON object with a "
		    "cniVersion";
	if (!copy(call, "cniVersion", call->version, sizeof(call->version)))
		return CNI_UNDECODABLE;
	if (call->version[strspn(call->version, "0123456789.")])
		*call->version = 0;	/* not one to repeat */
	if (!strcmp(call->command, "VERSION"))
		return 0;
	*sentence = "this cniVersion is not supported, but 0.3.0 to 1.1.0 are";
	if (!strstr(VERSIONS, call->version) || strlen(call->version) != 5)
		return CNI_INCOMPATIBLE;
	*sentence = "the network configuration lacks socket, marker or "
		    "namespaces";
	if (!copy(call, "socket", call->socket, sizeof(call->socket)) ||
	    !copy(call, "marker", call->marker, sizeof(call->marker)) ||
	    !copy(call, "namespaces", call->namespaces,
		  sizeof(call->namespaces)))
		return CNI_BAD_CONFIG;
	if (!scan_member(call->config, "exempt", &call->exempt))
		call->exempt.size = 0;
	return 0;
}

/* The value of a name in CNI_ARGS: NAME=VALUE;NAME=VALUE. */
static struct text argument(const char *name)
{
	const char *at = getenv("CNI_ARGS");
	size_t size = strlen(name);

	while (at && *at) {
		size_t part = strcspn(at, ";");

		if (part > size && at[size] == '=' && !memcmp(at, name, size))
			return (struct text){ at + size + 1, part - size - 1 };
		at += part + (at[part] == ';');
	}
	return (struct text){ "", 0 };
}

static int pass(const struct call *call)
{
	struct text result;

	if (strcmp(call->command, "ADD"))
		return 0;
	if (!scan_member(call->config, "prevResult", &result) ||
	    *result.at != '{')
		return fail(call, CNI_BAD_CONFIG,
			    "no result of a plugin before this one; it cannot "
			    "be the only one of a network");
	print(result);
	print((struct text){ "\n", 1 });
	return 0;
}

/* The pod may start without the agent's word. */
static bool is_outside(const struct call *call, enum word word)
{
	return word == WORD_OUTSIDE ||
	       (word == WORD_MISSING && call->exempt.size &&
		scan_contains(call->exempt, call->namespace));
}

static int give_up(const struct call *call, enum outcome outcome,
		   enum word word)
{
	const char *why = outcome == AGENT_SILENT ?
				  "the node agent did not answer in time" :
				  "the node agent is not running";
	const char *and = word == WORD_IN_MESH ?
				  "and pods of this namespace start only with "
				  "it" :
			  word == WORD_UNKNOWN ?
				  "and has not heard of this namespace yet" :
				  "and has left no list of the namespaces "
				  "outside the mesh";
	char sentence[256];

	snprintf(sentence, sizeof(sentence), "%s, %s; it is tried again", why,
		 and);
	return fail(call, CNI_TRY_LATER, sentence);
}

static int add(struct call *call)
{
	enum outcome outcome;
	enum word word;
	struct text error;

	if (!scan_member(call->config, "prevResult", &error))
		return pass(call);	/* it says what is wrong */
	call->namespace = argument("K8S_POD_NAMESPACE");
	if (!call->namespace.size)
		return pass(call);	/* not of Kubernetes */
	for (;;) {
		outcome = agent_ask(call, &error);
		if (outcome == AGENT_YES)
			return pass(call);
		if (outcome == AGENT_NO) {
			print(error);
			return 1;
		}
		word = local_word(call);
		if (is_outside(call, word))
			return pass(call);
		if (outcome == AGENT_SILENT || !has_time(call))
			return give_up(call, outcome, word);
		pause_ms(AGAIN_MS);
	}
}

static int check(const struct call *call)
{
	struct text error;

	if (agent_ask(call, &error) != AGENT_NO)
		return 0;	/* nobody knows of anything wrong */
	print(error);
	return 1;
}

static bool same_boot(const struct call *call)
{
	char told[BOOT_ID_CHARS], now[BOOT_ID_CHARS];
	const char *const paths[] = { call->marker, BOOT_ID };
	char *const ids[] = { told, now };

	for (int i = 0; i < 2; i++) {
		int file = open(paths[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		ssize_t size;

		if (file < 0)
			return false;
		size = read(file, ids[i], BOOT_ID_CHARS);
		close(file);
		if (size != BOOT_ID_CHARS)
			return false;
	}
	return !memcmp(told, now, BOOT_ID_CHARS);
}

static int status(const struct call *call)
{
	if (same_boot(call))
		return 0;
	return fail(call, CNI_UNAVAILABLE,
		    "the node agent has not started since this node did");
}

static int version(const struct call *call)
{
	char text[128];
	int size = snprintf(text, sizeof(text),
			    "{\"cniVersion\":\"%s\",\"supportedVersions\":["
			    VERSIONS "]}\n",
			    *call->version ? call->version : NEWEST);

	print((struct text){ text, size });
	return 0;
}

/* DEL and GC take away; a pod must be able to stop, whatever is wrong. */
static int tolerant(const struct call *call)
{
	struct text error;

	agent_ask(call, &error);
	return 0;
}

static int run(struct call *call)
{
	const char *sentence = "";
	enum cni_code code = parse(call, &sentence);
	const char *command = call->command;

	if (!strcmp(command, "DEL") || !strcmp(command, "GC"))
		return code ? 0 : tolerant(call);
	if (code)
		return fail(call, code, sentence);
	if (!strcmp(command, "VERSION"))
		return version(call);
	if (!strcmp(command, "STATUS"))
		return status(call);
	if (!strcmp(command, "CHECK"))
		return check(call);
	if (!strcmp(command, "ADD"))
		return add(call);
	return fail(call, CNI_BAD_ENVIRONMENT,
		    "CNI_COMMAND is none of ADD, DEL, CHECK, GC, STATUS, "
		    "VERSION");
}

int main(int argc, char **argv)
{
	struct call call = { .deadline_ms = now_ms() + DEADLINE_MS };

	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		print((struct text){ "tulle-cni " TULLE_VERSION "\n",
				     sizeof("tulle-cni " TULLE_VERSION "\n") -
					     1 });
		return 0;
	}
	call.command = getenv("CNI_COMMAND");
	if (!call.command)
		return fail(&call, CNI_BAD_ENVIRONMENT,
			    "CNI_COMMAND is not set; a container runtime "
			    "calls this program");
	return run(&call);
}
