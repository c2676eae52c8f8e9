/*
 * read.h
 *		What es_read_stream() and es_read_all() do, for the functions themselves
 *		and for the custom scan that takes their place in FROM.
 *
 * A read's memory is that of the caller: CurrentMemoryContext at es_read_begin,
 * which must be current at es_read_next too.  A read must be ended in the
 * transaction that began it; after an error the resource owner cleans up.
 */
#ifndef EVENTSRC_READ_H
#define EVENTSRC_READ_H

#include "eventsrc.h"

#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/snapshot.h"

typedef struct EsRead EsRead;

/*
 * es_read_begin checks the function's arguments and begins to read.  A stream
 * is read as the given snapshot sees it, and that snapshot must stay
 * registered; all events are read with a snapshot of their own.
 */
extern EsRead *es_read_begin(EsReader reader, FunctionCallInfo fcinfo, Snapshot snapshot);

extern TupleTableSlot *es_read_next(EsRead *read);	/* NULL at the end */

/* from the beginning once more: the same events, whatever was appended since */
extern void es_read_restart(EsRead *read);

extern void es_read_end(EsRead *read);

/* puts the custom scan in place (plan.c) */
extern void es_read_install_hooks(void);

/* node.c */
struct CustomScanMethods;
extern const struct CustomScanMethods es_read_scan_methods;

#endif							/* EVENTSRC_READ_H */
