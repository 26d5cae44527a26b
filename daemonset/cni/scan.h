/*
 * JSON, read where it lies: nothing is copied, decoded or changed.
 *
 * The runtime's configuration and the agent's answer are text of root, yet
 * both are bounded and checked whole before a byte of them is used.
 */
#ifndef TULLE_CNI_SCAN_H
#define TULLE_CNI_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#define SCAN_DEPTH_MAX 64	/* nested arrays and objects; CNI needs six */

struct text {
	const char *at;
	size_t size;
};

/* A whole JSON text and nothing behind it but space. */
bool scan_is_json(struct text json);

/*
 * The member of a JSON object, as it is written; of equal names the last, as
 * Go has it. False: it is not there, or the text is no JSON object.
 */
bool scan_member(struct text object, const char *name, struct text *value);

/* The characters of a string without escapes; false for all else. */
bool scan_string(struct text value, struct text *chars);

/* True if the array has the string among its elements. */
bool scan_contains(struct text array, struct text wanted);

#endif
