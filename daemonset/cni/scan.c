#include "scan.h"

#include <string.h>

struct cursor {
	const char *at;
	const char *end;
};

static bool value(struct cursor *c, int depth);

static int peek(const struct cursor *c)
{
	return c->at < c->end ? (unsigned char)*c->at : -1;
}

static bool take(struct cursor *c, char wanted)
{
	if (peek(c) != wanted)
		return false;
	c->at++;
	return true;
}

static void space(struct cursor *c)
{
	while (peek(c) == ' ' || peek(c) == '\t' || peek(c) == '\n' ||
	       peek(c) == '\r')
		c->at++;
}

static bool is_hex(int found)
{
	return (found >= '0' && found <= '9') ||
	       (found >= 'a' && found <= 'f') || (found >= 'A' && found <= 'F');
}

static bool escape(struct cursor *c)
{
	int found = peek(c);

	if (found < 0 || !strchr("\"\\/bfnrtu", found) || !found)
		return false;
	c->at++;
	for (int i = 0; found == 'u' && i < 4; i++, c->at++)
		if (!is_hex(peek(c)))
			return false;
	return true;
}

static bool string(struct cursor *c)
{
	if (!take(c, '"'))
		return false;
	for (;;) {
		int found = peek(c);

		if (found < 0x20)	/* the end, or a control character */
			return false;
		c->at++;
		if (found == '"')
			return true;
		if (found == '\\' && !escape(c))
			return false;
	}
}

static bool digits(struct cursor *c)
{
	const char *from = c->at;

	while (peek(c) >= '0' && peek(c) <= '9')
		c->at++;
	return c->at > from;
}

static bool number(struct cursor *c)
{
	take(c, '-');
	if (!take(c, '0') && !digits(c))
		return false;
	if (take(c, '.') && !digits(c))
		return false;
	if (take(c, 'e') || take(c, 'E')) {
		if (!take(c, '+'))
			take(c, '-');
		return digits(c);
	}
	return true;
}

static bool word(struct cursor *c, const char *wanted)
{
	size_t size = strlen(wanted);

	if ((size_t)(c->end - c->at) < size || memcmp(c->at, wanted, size))
		return false;
	c->at += size;
	return true;
}

/* A name and its colon; the cursor is at the value after it. */
static bool name(struct cursor *c, struct text *found)
{
	space(c);
	found->at = c->at;
	if (!string(c))
		return false;
	found->size = c->at - found->at;
	space(c);
	if (!take(c, ':'))
		return false;
	space(c);
	return true;
}

static bool list(struct cursor *c, char closing, int depth)
{
	struct text unused;

	c->at++;
	space(c);
	if (take(c, closing))
		return true;
	do {
		if (closing == '}' && !name(c, &unused))
			return false;
		if (!value(c, depth + 1))
			return false;
	} while (take(c, ','));
	return take(c, closing);
}

/* One value, and the space around it. */
static bool value(struct cursor *c, int depth)
{
	bool is_good;

	if (depth > SCAN_DEPTH_MAX)
		return false;
	space(c);
	switch (peek(c)) {
	case '{':
		is_good = list(c, '}', depth);
		break;
	case '[':
		is_good = list(c, ']', depth);
		break;
	case '"':
		is_good = string(c);
		break;
	case 't':
		is_good = word(c, "true");
		break;
	case 'f':
		is_good = word(c, "false");
		break;
	case 'n':
		is_good = word(c, "null");
		break;
	default:
		is_good = number(c);
	}
	space(c);
	return is_good;
}

bool scan_is_json(struct text json)
{
	struct cursor c = { json.at, json.at + json.size };

	return value(&c, 0) && c.at == c.end;
}

static struct text trimmed(const char *from, const char *to)
{
	while (to > from && strchr(" \t\r\n", to[-1]))
		to--;
	return (struct text){ from, to - from };
}

bool scan_member(struct text object, const char *wanted, struct text *found)
{
	struct cursor c = { object.at, object.at + object.size };
	size_t size = strlen(wanted);
	bool is_found = false;
	struct text key;

	if (!scan_is_json(object))
		return false;
	space(&c);
	if (!take(&c, '{'))
		return false;
	do {
		const char *from;

		if (!name(&c, &key))	/* an empty object */
			return false;
		from = c.at;
		value(&c, 1);
		if (key.size == size + 2 && !memcmp(key.at + 1, wanted, size)) {
			*found = trimmed(from, c.at);
			is_found = true;
		}
	} while (take(&c, ','));
	return is_found;
}

bool scan_string(struct text json, struct text *chars)
{
	if (json.size < 2 || *json.at != '"' || !scan_is_json(json) ||
	    memchr(json.at, '\\', json.size))
		return false;
	chars->at = json.at + 1;
	chars->size = json.size - 2;
	return true;
}

bool scan_contains(struct text array, struct text wanted)
{
	struct cursor c = { array.at, array.at + array.size };

	if (!scan_is_json(array) || !take(&c, '['))
		return false;
	do {
		struct text chars;
		const char *from;

		space(&c);
		from = c.at;
		if (!value(&c, 1))	/* an empty array */
			return false;
		if (scan_string(trimmed(from, c.at), &chars) &&
		    chars.size == wanted.size &&
		    !memcmp(chars.at, wanted.at, wanted.size))
			return true;
	} while (take(&c, ','));
	return false;
}
