/*
 * import.c
 *		es_import(): appends what a query returns, from another event store,
 *		with its versions, ids and times.
 */
#include "eventsrc.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/timestamp.h"

#include "append/import.h"
#include "store/arguments.h"

PG_FUNCTION_INFO_V1(es_import);

/* bytes of rows that are fetched at once, about; and rows of the first fetch */
#define FETCH_BYTES		(8 * 1024 * 1024)
#define FETCH_FIRST		50

EsImport   *es_import_running = NULL;

/*
 * es_importing tells whether a row that is inserted into a store is the one
 * that an import writes by the executor: its time was checked.
 */
bool
es_importing(EsStore *store, int64 version, TimestampTz recorded_at)
{
	EsImport   *import = es_import_running;
	EsImportRow *row = import ? import->inserting : NULL;

	return row && import->store == store &&
		DatumGetInt64(row->values[ES_ATT_VERSION - 1]) == version &&
		DatumGetTimestampTz(row->values[ES_ATT_RECORDED_AT - 1]) == recorded_at;
}

/*
 * column_names lists the columns that a query may give.
 */
static const char *
column_names(void)
{
	return "aggregate_type, aggregate_id, version, event_id, event_type, schema_version, data, "
		"metadata, user_id, correlation_id, causation_id, traceparent, recorded_at, occurred_at";
}

/*
 * find_column finds the column of es_event that a query's column is; raises an
 * error if it is none that can be given.
 */
static int
find_column(const char *name)
{
	TupleDesc	desc = es_event_tupdesc();

	for (int i = 0; i < ES_NATTS; i++)
	{
		if (i != ES_ATT_GLOBAL_POSITION - 1 && i != ES_ATT_TRANSACTION - 1 &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_ARGUMENT),
			 errmsg("the query's column \"%s\" is none of an event's that can be given", name),
			 errdetail("These can: %s.", column_names()),
			 errhint("Name the query's columns so with AS; global positions are given out in the order of its rows.")));
}

/*
 * select_columns writes the select list that brings the query's columns into
 * the order and types of es_event.
 */
static char *
select_columns(TupleDesc desc)
{
	TupleDesc	event = es_event_tupdesc();
	int			from[ES_NATTS] = {0};
	StringInfoData list;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		int			to = find_column(NameStr(column->attname));

		if (from[to] > 0)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("the query gives \"%s\" twice", NameStr(column->attname)),
					 errhint("Leave one of them out.")));
		if (TupleDescAttr(event, to)->atttypid == TIMESTAMPTZOID &&
			(column->atttypid == TIMESTAMPOID || column->atttypid == DATEOID))
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("the query's column \"%s\" is a time without time zone",
							NameStr(column->attname)),
					 errhint("Say which one it is meant in, for example: time AT TIME ZONE 'UTC' AS %s.",
							 NameStr(column->attname))));
		from[to] = i + 1;
	}

	initStringInfo(&list);
	for (int i = 0; i < ES_NATTS; i++)
	{
		Form_pg_attribute to = TupleDescAttr(event, i);
		bool		needed = (i == ES_ATT_AGGREGATE_TYPE - 1 || i == ES_ATT_AGGREGATE_ID - 1 ||
							  i == ES_ATT_EVENT_TYPE - 1);

		if (needed && from[i] == 0)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("the query gives no \"%s\"", NameStr(to->attname)),
					 errhint("It must give aggregate_type, aggregate_id and event_type, and may give the rest of: %s.",
							 column_names())));
		appendStringInfo(&list, "%s%s::%s", i > 0 ? ", " : "",
						 from[i] > 0 ? quote_qualified_identifier("q", NameStr(to->attname)) : "NULL",
						 format_type_extended(to->atttypid, -1, FORMAT_TYPE_FORCE_QUALIFY));
	}
	return list.data;
}

/*
 * prepare prepares the query so that its rows have the columns of es_event.
 */
static SPIPlanPtr
prepare(const char *query)
{
	SPIPlanPtr	plan = SPI_prepare(query, 0, NULL);
	CachedPlanSource *source;
	List	   *sources;
	int			length = strlen(query);
	char	   *wrapped;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	sources = SPI_plan_get_plan_sources(plan);
	source = list_length(sources) == 1 ? linitial(sources) : NULL;
	if (source == NULL || source->commandTag != CMDTAG_SELECT || source->resultDesc == NULL ||
		!SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("the query must be one SELECT"),
				 errhint("Its rows are the events; give them in the order in which they are to be appended.")));

	while (length > 0 && strchr(" \t\r\n;", query[length - 1]) != NULL)
		length--;
	wrapped = psprintf("SELECT %s FROM (%.*s\n) AS q",
					   select_columns(source->resultDesc), length, query);
	SPI_freeplan(plan);
	plan = SPI_prepare(wrapped, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * fetch_rows fetches the next rows of the query and gives them to the import;
 * returns how many came, and how many to ask for next.
 */
static uint64
fetch_rows(EsImport *import, Portal portal, long *count)
{
	Datum		values[ES_NATTS];
	bool		nulls[ES_NATTS];
	uint64		fetched;
	SPITupleTable *rows;
	Size		bytes = 0;

	SPI_cursor_fetch(portal, true, *count);
	fetched = SPI_processed;
	rows = SPI_tuptable;
	for (uint64 i = 0; i < fetched; i++)
	{
		heap_deform_tuple(rows->vals[i], rows->tupdesc, values, nulls);
		bytes += rows->vals[i]->t_len;
		es_import_add(import, values, nulls);
	}
	es_import_write(import);
	SPI_freetuptable(rows);

	if (fetched > 0)
		*count = Min(Max(FETCH_BYTES / (long) Max(bytes / fetched, 1), 1), ES_IMPORT_ROWS);
	return fetched;
}

/*
 * run_query imports what the query returns.
 */
static void
run_query(EsImport *import, const char *query)
{
	MemoryContext batch;
	MemoryContext old;
	Portal		portal;
	long		count = FETCH_FIRST;
	uint64		fetched;

	SPI_connect();
	portal = SPI_cursor_open(NULL, prepare(query), NULL, NULL, false);
	es_import_begin(import);
	batch = AllocSetContextCreate(CurrentMemoryContext, "eventsrc import rows",
								  ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(batch);
	do
	{
		CHECK_FOR_INTERRUPTS();
		fetched = fetch_rows(import, portal, &count);
		MemoryContextReset(batch);
	} while (fetched > 0);
	MemoryContextSwitchTo(old);
	es_import_end(import);
	SPI_cursor_close(portal);
	SPI_finish();
}

/*
 * add_context says which row an error is about.
 */
static void
add_context(void *arg)
{
	EsImport   *import = arg;

	if (import->in_row)
		errcontext("row %lld of the import", (long long) import->row);
}

/*
 * es_import(query, clamp, store) appends the events that a query returns, all
 * or none, and returns how many it appended and how many were there already.
 *
 * Errors: VE001 a version does not follow, VE002 unknown store, VE004 a bad
 * query or row, VE015 a closed stream, 25006 on a standby or in a read-only
 * transaction, 40001 at REPEATABLE READ and above, 42501 without INSERT on
 * events, or with recorded_at and not as the store's owner.
 */
Datum
es_import(PG_FUNCTION_ARGS)
{
	EsImport	import = {0};
	EsImport   *outer = es_import_running;
	ErrorContextCallback context;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	char	   *query;

	es_check_writable("es_import()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("query must not be NULL"),
				 errhint("Pass a SELECT that returns the events.")));
	query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	import.clamp = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	import.store = es_store_open(es_store_name_arg(fcinfo, 2), RowExclusiveLock);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	context.callback = add_context;
	context.arg = &import;
	context.previous = error_context_stack;
	error_context_stack = &context;
	es_import_running = &import;
	PG_TRY();
	{
		run_query(&import, query);
	}
	PG_FINALLY();
	{
		es_import_running = outer;
	}
	PG_END_TRY();
	error_context_stack = context.previous;

	values[0] = Int64GetDatum(import.imported);
	values[1] = Int64GetDatum(import.skipped);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
