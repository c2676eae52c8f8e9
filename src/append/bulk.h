/*
 * bulk.h
 *		Many rows at a time into events, from INSERT ... SELECT or COPY.
 */
#ifndef EVENTSRC_BULK_H
#define EVENTSRC_BULK_H

#include "append/row.h"
#include "append/target.h"

#include "nodes/parsenodes.h"
#include "tcop/cmdtag.h"

/* rows that are written in one go: so many, or so many bytes of them */
#define ES_BULK_ROWS		1000
#define ES_BULK_BYTES		(256 * 1024)

typedef struct EsBulk
{
	EsStore    *store;
	MemoryContext context;		/* of es_bulk_begin's caller */
	BulkInsertState bistate;	/* NULL for a query, as in PostgreSQL */
	EsTarget   *target;			/* NULL: no row came yet */
	EsPartition partition;		/* that it is */

	/* rows that wait in the target's slots */
	int			nrows;
	Size		bytes;
	uint64		lines[ES_BULK_ROWS];	/* where they come from, for messages */
	int			at;				/* the one that is being written; -1: none */

	uint64		resets;			/* es_known_resets, before the first of them */
} EsBulk;

extern bool es_setting_bulk_insert;

/* bulk.c */
extern bool es_bulk_usable(EsStore *store);
extern bool es_bulk_harmless(Node *node);
extern void es_bulk_begin(EsBulk *bulk, EsStore *store, bool copy);
extern void es_bulk_before_look(EsBulk *bulk, uint64 hash);
extern void es_bulk_add(EsBulk *bulk, Datum *values, bool *nulls, uint64 line);
extern void es_bulk_flush(EsBulk *bulk);
extern void es_bulk_end(EsBulk *bulk);

/* bulk_plan.c */
extern void es_bulk_install_hooks(void);

/* bulk_copy.c */
extern bool es_bulk_copy(const CopyStmt *copy, const char *query, QueryCompletion *completion);

#endif							/* EVENTSRC_BULK_H */
