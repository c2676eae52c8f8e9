/*
 * import.h
 *		What the files of es_import() share.
 */
#ifndef EVENTSRC_IMPORT_H
#define EVENTSRC_IMPORT_H

#include "append/append.h"

#include "access/heapam.h"
#include "utils/hsearch.h"

/* rows that are written in one go */
#define ES_IMPORT_ROWS		1000

/* what an import remembers of a stream that it appends to */
typedef struct EsImportStream
{
	/* the hash key */
	uint64		hash;
	text	   *aggregate_type;
	text	   *aggregate_id;

	EsStreamHead head;			/* with the rows that wait to be written */
	bool		stored;			/* had events before the import */
	TimestampTz first_partition;	/* that the import entered, ... */
	bool		entered;		/* ... and "streams" is yet to tell */
} EsImportStream;

/* a row that waits to be written */
typedef struct EsImportRow
{
	Datum		values[ES_NATTS];
	bool		nulls[ES_NATTS];
	TimestampTz partition;		/* the begin of its partition */
	bool		written;
} EsImportRow;

typedef struct EsImport
{
	EsStore    *store;
	bool		clamp;			/* times that run backwards are moved up */
	bool		by_executor;	/* see es_append_by_executor() */
	bool		eager;			/* triggers may look at "streams" */
	bool		owner;			/* may say when events were recorded */
	EsContext	context;
	TimestampTz now;

	HTAB	   *streams;
	MemoryContext streams_context;
	EsImportStream *last_stream;
	int			nentered;		/* streams that "streams" is yet to tell of */
	uint64		appends;		/* es_append_count, as far as it is ours */

	EsImportRow *rows;
	int			nrows;
	BulkInsertState bulk;
	void	   *plan;			/* INSERT by the executor, ... */
	EsImportRow *inserting;		/* ... and its row */

	int64		row;			/* of the query, from 1; for messages, ... */
	bool		in_row;			/* ... while it is looked at */
	int64		imported;
	int64		skipped;
} EsImport;

/* the import that runs in this backend, if any */
extern EsImport *es_import_running;

extern void es_import_begin(EsImport *import);
extern void es_import_add(EsImport *import, Datum *values, bool *nulls);
extern void es_import_write(EsImport *import);
extern void es_import_end(EsImport *import);

/* import_write.c */
extern void es_import_flush(EsImport *import);
extern void es_import_settle(EsImport *import);

#endif							/* EVENTSRC_IMPORT_H */
