/*
 * arguments.h
 *		Checks of what users pass to the es_* functions.
 */
#ifndef EVENTSRC_ARGUMENTS_H
#define EVENTSRC_ARGUMENTS_H

#include "postgres.h"

#include "fmgr.h"

/* limits in bytes; type and id together fit an index entry */
#define ES_MAX_TYPE		256		/* aggregate types, event types */
#define ES_MAX_ID		1024	/* aggregate ids, event ids, context */

extern text *es_text_arg(FunctionCallInfo fcinfo, int argno, const char *name, int max);
extern void es_check_text(text *value, const char *name, int max);

#endif							/* EVENTSRC_ARGUMENTS_H */
