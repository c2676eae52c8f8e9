/*
 * import_write.c
 *		Writes the rows of an import: many at a time straight into their
 *		partitions, or one by one by the executor where only that is right.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/xid8.h"

#include "append/import.h"
#include "append/target.h"
#include "store/position.h"

/*
 * write_partition writes those of the waiting rows, from the given one on, that
 * go to its partition.
 */
static void
write_partition(EsImport *import, int from)
{
	TimestampTz lower = import->rows[from].partition;
	EsPartition partition = *es_store_partition(import->store, lower);
	EsTarget   *target;
	TupleTableSlot **slots;
	int			count = 0;

	target = es_target_open(import->store, partition.relid);
	slots = es_target_slots(target, import->nrows - from);
	for (int i = from; i < import->nrows; i++)
	{
		EsImportRow *row = &import->rows[i];

		if (row->written || row->partition != lower)
			continue;
		row->written = true;
		es_target_store(target, slots[count++], row->values, row->nulls);
	}

	ReleaseBulkInsertStatePin(import->bulk);
	es_target_insert(target, slots, count, import->bulk, import->eager, NULL);
	es_target_close(target);
}

/*
 * insert_plan prepares the INSERT of one row.
 */
static SPIPlanPtr
insert_plan(EsImport *import)
{
	Oid			types[ES_NATTS];
	char	   *query;
	SPIPlanPtr	plan;

	for (int i = 0; i < ES_NATTS; i++)
		types[i] = TupleDescAttr(es_event_tupdesc(), i)->atttypid;
	query = psprintf("INSERT INTO %s (aggregate_type, aggregate_id, version, event_id, event_type,"
					 " schema_version, data, metadata, user_id, correlation_id, causation_id,"
					 " traceparent, recorded_at, occurred_at)"
					 " VALUES ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
					 quote_qualified_identifier(NameStr(import->store->name), "events"));
	plan = SPI_prepare(query, ES_NATTS, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * write_by_executor writes the waiting rows by INSERTs; the trigger of events
 * fills in what is missing, and row security and users' triggers hold.
 */
static void
write_by_executor(EsImport *import)
{
	if (import->plan == NULL)
		import->plan = insert_plan(import);
	for (int i = 0; i < import->nrows; i++)
	{
		EsImportRow *row = &import->rows[i];
		char		nulls[ES_NATTS];
		int			result;

		CHECK_FOR_INTERRUPTS();
		for (int n = 0; n < ES_NATTS; n++)
			nulls[n] = row->nulls[n] ? 'n' : ' ';
		nulls[ES_ATT_GLOBAL_POSITION - 1] = 'n';
		nulls[ES_ATT_TRANSACTION - 1] = 'n';
		import->inserting = row;
		result = SPI_execute_plan(import->plan, row->values, nulls, false, 0);
		import->inserting = NULL;
		if (result != SPI_OK_INSERT && result != SPI_OK_REWRITTEN)
			elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
		if (SPI_processed != 1)
			ereport(ERROR,
					(errcode(ERRCODE_ES_SUPPRESSED),
					 errmsg("an event of stream %s %s was not written",
							TextDatumGetCString(row->values[ES_ATT_AGGREGATE_TYPE - 1]),
							TextDatumGetCString(row->values[ES_ATT_AGGREGATE_ID - 1])),
					 errdetail("A trigger or rule on %s suppressed or redirected version %lld.",
							   quote_qualified_identifier(NameStr(import->store->name), "events"),
							   (long long) DatumGetInt64(row->values[ES_ATT_VERSION - 1])),
					 errhint("An import is all or nothing: leave the event out of the query, or disable the trigger.")));
	}
}

/*
 * es_import_flush writes the waiting rows.  Their positions are in the order
 * in which they came.
 */
void
es_import_flush(EsImport *import)
{
	int64		position;
	Datum		transaction;

	if (import->nrows == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	if (import->eager)
		es_import_settle(import);

	if (import->by_executor)
		write_by_executor(import);
	else
	{
		es_known_forget();
		position = es_position_allocate(import->nrows);
		transaction = FullTransactionIdGetDatum(GetTopFullTransactionId());
		for (int i = 0; i < import->nrows; i++)
		{
			EsImportRow *row = &import->rows[i];

			row->values[ES_ATT_GLOBAL_POSITION - 1] = Int64GetDatum(position + i);
			row->nulls[ES_ATT_GLOBAL_POSITION - 1] = false;
			row->values[ES_ATT_TRANSACTION - 1] = transaction;
			row->nulls[ES_ATT_TRANSACTION - 1] = false;
		}
		for (int i = 0; i < import->nrows; i++)
		{
			if (!import->rows[i].written)
				write_partition(import, i);
		}
	}
	import->imported += import->nrows;
	import->nrows = 0;
}

/*
 * es_import_settle writes to "streams" what the import owes it.
 */
void
es_import_settle(EsImport *import)
{
	HASH_SEQ_STATUS seq;
	EsImportStream *stream;

	if (import->nentered == 0)
		return;
	hash_seq_init(&seq, import->streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		if (!stream->entered)
			continue;
		es_stream_record(import->store, stream->aggregate_type, stream->aggregate_id,
						 !stream->stored, stream->first_partition, stream->head.partition);
		stream->stored = true;
		stream->entered = false;
	}
	import->nentered = 0;
}
