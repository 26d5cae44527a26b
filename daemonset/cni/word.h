/*
 * What is known of a pod's namespace while the agent cannot be asked: the file
 * that it wrote when the control plane told it, and that outlives a reboot.
 *
 *	tulle namespaces 1
 *	+shop			pods of it may be in the mesh
 *	-kube-system		none of them is
 *	end
 */
#ifndef TULLE_CNI_WORD_H
#define TULLE_CNI_WORD_H

#include "call.h"

enum word {
	WORD_MISSING,	/* no file, or not a whole one */
	WORD_UNKNOWN,	/* the file does not have the namespace */
	WORD_IN_MESH,
	WORD_OUTSIDE,
};

enum word local_word(const struct call *call);

#endif
