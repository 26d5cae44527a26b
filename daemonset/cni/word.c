#include "word.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define LINE_CHARS_MAX 80	/* a namespace's name has 63 at most */
#define LINES_MAX 1000000	/* no cluster has so many namespaces */

/* A line without its end; false at the file's, or if it is too long. */
static bool line_of(FILE *file, char *line)
{
	size_t size;

	if (!fgets(line, LINE_CHARS_MAX, file))
		return false;
	size = strlen(line);
	if (!size || line[size - 1] != '\n')
		return false;
	line[size - 1] = 0;
	return true;
}

static enum word word_in(FILE *file, struct text namespace)
{
	enum word found = WORD_UNKNOWN;
	char line[LINE_CHARS_MAX];

	if (!line_of(file, line) || strcmp(line, "tulle namespaces 1"))
		return WORD_MISSING;
	for (int i = 0; i < LINES_MAX && line_of(file, line); i++) {
		if (!strcmp(line, "end"))
			return found;
		if (strlen(line) == namespace.size + 1 &&
		    !memcmp(line + 1, namespace.at, namespace.size))
			found = *line == '-' ? WORD_OUTSIDE : WORD_IN_MESH;
	}
	return WORD_MISSING;
}

enum word local_word(const struct call *call)
{
	FILE *file = fopen(call->namespaces, "re");
	enum word found;

	if (!file)
		return WORD_MISSING;
	found = word_in(file, call->namespace);
	fclose(file);
	return found;
}
