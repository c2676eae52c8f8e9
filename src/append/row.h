/*
 * row.h
 *		Rows that come to an events table by INSERT or COPY.
 */
#ifndef EVENTSRC_ROW_H
#define EVENTSRC_ROW_H

#include "append/append.h"

/* a new row, taken apart */
typedef struct EsRow
{
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
	struct EsBulk *bulk;		/* whose rows wait to be written; or NULL */
} EsRow;

/* the append whose INSERT is running: its first row meets the expectation */
typedef struct EsPending
{
	EsAppend   *append;
	int			rows;			/* that came by so far */
	bool		retry;			/* the append succeeded before: write nothing */
} EsPending;

extern EsPending *es_pending;	/* trigger.c */

/* row.c */
extern bool es_row_fill(EsRow *row, EsStore *store, const EsPartition *partition, bool certain);

#endif							/* EVENTSRC_ROW_H */
