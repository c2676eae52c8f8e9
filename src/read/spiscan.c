/*
 * spiscan.c
 *		Reads events through the executor, where row security applies.
 *
 * The rows go to a tuplestore, which spills to disk, before the first is
 * returned: no SPI connection stays open while reducers and callers run.
 */
#include "eventsrc.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "read/spiscan.h"

#define ROWS_AT_A_TIME	500

const int	es_spi_page = 1000;

/*
 * event_columns appends the columns of es_event, for a select list.
 */
static void
event_columns(StringInfo query)
{
	TupleDesc	desc = es_event_tupdesc();

	for (int i = 0; i < desc->natts; i++)
		appendStringInfo(query, "%s%s", i ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
}

/*
 * run reads a query's rows, as the snapshot sees them, into a tuplestore that
 * lives in the caller's memory context.
 */
static Tuplestorestate *
run(const char *query, int nargs, Oid *types, Datum *values, Snapshot snapshot)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	Portal		portal;

	PushActiveSnapshot(snapshot);
	SPI_connect();
	portal = SPI_cursor_open_with_args(NULL, query, nargs, types, values, NULL, true, 0);
	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, ROWS_AT_A_TIME);
		for (uint64 i = 0; i < SPI_processed; i++)
			tuplestore_puttuple(rows, SPI_tuptable->vals[i]);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	SPI_finish();
	PopActiveSnapshot();
	return rows;
}

/*
 * es_spi_stream reads one stream's versions from..to.
 */
Tuplestorestate *
es_spi_stream(EsStore *store, text *aggregate_type, text *aggregate_id,
			  int64 from_version, int64 to_version, bool backward, Snapshot snapshot)
{
	Oid			types[4] = {TEXTOID, TEXTOID, INT8OID, INT8OID};
	Datum		values[4];
	StringInfoData query;

	values[0] = PointerGetDatum(aggregate_type);
	values[1] = PointerGetDatum(aggregate_id);
	values[2] = Int64GetDatum(from_version);
	values[3] = Int64GetDatum(to_version);

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT ");
	event_columns(&query);
	appendStringInfo(&query, " FROM %s WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
					 " AND aggregate_id OPERATOR(pg_catalog.=) $2"
					 " AND version OPERATOR(pg_catalog.>=) $3 AND version OPERATOR(pg_catalog.<=) $4"
					 " ORDER BY version%s",
					 quote_qualified_identifier(NameStr(store->name), "events"),
					 backward ? " DESC" : "");
	return run(query.data, 4, types, values, snapshot);
}

/*
 * es_spi_all reads a page of the events with after < global_position <= upto.
 */
Tuplestorestate *
es_spi_all(EsStore *store, int64 after, int64 upto, Snapshot snapshot)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2];
	StringInfoData query;

	values[0] = Int64GetDatum(after);
	values[1] = Int64GetDatum(upto);

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT ");
	event_columns(&query);
	appendStringInfo(&query, " FROM %s WHERE global_position OPERATOR(pg_catalog.>) $1"
					 " AND global_position OPERATOR(pg_catalog.<=) $2"
					 " ORDER BY global_position LIMIT %d",
					 quote_qualified_identifier(NameStr(store->name), "events"), es_spi_page);
	return run(query.data, 2, types, values, snapshot);
}
