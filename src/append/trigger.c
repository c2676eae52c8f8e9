/*
 * trigger.c
 *		The trigger of events tables, behind INSERT and COPY; and es_append()
 *		by way of an INSERT, where only the executor can do it right: row
 *		security, rules, users' BEFORE or statement triggers, more columns.
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "append/row.h"

PG_FUNCTION_INFO_V1(es_append_trigger_function);

/* the append whose INSERT is running */
EsPending  *es_pending = NULL;

/*
 * find_partition finds the partition of its store that a relation is.
 */
static EsPartition *
find_partition(EsStore *store, Oid relid)
{
	for (int i = 0; store && i < store->npartitions; i++)
	{
		if (store->partitions[i].relid == relid)
			return &store->partitions[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_ES_STORE_DAMAGED),
			 errmsg("table \"%s\" is not a partition of a store's events table",
					get_rel_name(relid)),
			 errhint("The trigger eventsrc.append_trigger() is for the tables that es_create_store() makes.")));
}

/*
 * es_append_trigger_function is eventsrc.append_trigger(), BEFORE INSERT FOR
 * EACH ROW on every partition: it makes the row an append.
 */
Datum
es_append_trigger_function(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	EsRow		row;
	EsStore    *store;
	EsPartition partition;
	HeapTuple	result;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) || !TRIGGER_FIRED_BY_INSERT(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eventsrc.append_trigger() must be fired BEFORE INSERT FOR EACH ROW")));

	store = es_store_of_relation(RelationGetRelid(data->tg_relation));
	partition = *find_partition(store, RelationGetRelid(data->tg_relation));

	row.bulk = NULL;
	row.desc = RelationGetDescr(data->tg_relation);
	row.values = palloc(row.desc->natts * sizeof(Datum));
	row.nulls = palloc(row.desc->natts * sizeof(bool));
	heap_deform_tuple(data->tg_trigtuple, row.desc, row.values, row.nulls);
	if (!es_row_fill(&row, store, &partition, es_known_usable(store, data->tg_relation)))
		return PointerGetDatum(NULL);
	result = heap_form_tuple(row.desc, row.values, row.nulls);
	return PointerGetDatum(result);
}

/*
 * array_of makes an array of one column of an append's events.
 */
static Datum
array_of(EsAppend *append, AttrNumber attribute, Oid type, int16 length, bool byvalue, char align)
{
	Datum	   *values = palloc(append->nevents * sizeof(Datum));
	bool	   *nulls = palloc0(append->nevents * sizeof(bool));
	int			lower = 1;

	for (int i = 0; i < append->nevents; i++)
	{
		EsNewEvent *event = &append->events[i];

		switch (attribute)
		{
			case ES_ATT_EVENT_ID:
				values[i] = PointerGetDatum(event->event_id);
				break;
			case ES_ATT_EVENT_TYPE:
				values[i] = PointerGetDatum(event->event_type);
				break;
			case ES_ATT_SCHEMA_VERSION:
				values[i] = Int32GetDatum(event->schema_version);
				nulls[i] = event->schema_version == 0;
				break;
			case ES_ATT_DATA:
				values[i] = event->data;
				break;
			case ES_ATT_METADATA:
				values[i] = event->metadata;
				nulls[i] = !event->has_metadata;
				break;
			default:
				values[i] = TimestampTzGetDatum(event->occurred_at);
				nulls[i] = !event->has_occurred_at;
				break;
		}
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &append->nevents, &lower,
											  type, length, byvalue, align));
}

/*
 * es_insert_by_executor appends by an INSERT into events; the trigger checks
 * the expectation and sets the result.
 */
void
es_insert_by_executor(EsAppend *append)
{
	EsPending  *outer = es_pending;
	EsPending	mine = {append, 0, false};
	Oid			types[8] = {TEXTOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID,
	JSONBARRAYOID, JSONBARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[8];
	char	   *query;
	int			result;
	uint64		written;

	values[0] = PointerGetDatum(append->aggregate_type);
	values[1] = PointerGetDatum(append->aggregate_id);
	values[2] = array_of(append, ES_ATT_EVENT_ID, TEXTOID, -1, false, TYPALIGN_INT);
	values[3] = array_of(append, ES_ATT_EVENT_TYPE, TEXTOID, -1, false, TYPALIGN_INT);
	values[4] = array_of(append, ES_ATT_SCHEMA_VERSION, INT4OID, 4, true, TYPALIGN_INT);
	values[5] = array_of(append, ES_ATT_DATA, JSONBOID, -1, false, TYPALIGN_INT);
	values[6] = array_of(append, ES_ATT_METADATA, JSONBOID, -1, false, TYPALIGN_INT);
	values[7] = array_of(append, ES_ATT_OCCURRED_AT, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	query = psprintf("INSERT INTO %s (aggregate_type, aggregate_id, event_id, event_type,"
					 " schema_version, data, metadata, occurred_at)"
					 " SELECT $1, $2, e.* FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4),"
					 " pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),"
					 " pg_catalog.unnest($8)) AS e",
					 quote_qualified_identifier(NameStr(append->store->name), "events"));

	es_pending = &mine;
	PG_TRY();
	{
		SPI_connect();
		result = SPI_execute_with_args(query, 8, types, values, NULL, false, 0);
		if (result != SPI_OK_INSERT && result != SPI_OK_REWRITTEN)
			elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(result));
		written = SPI_processed;
		SPI_finish();
	}
	PG_FINALLY();
	{
		es_pending = outer;
	}
	PG_END_TRY();

	if (!mine.retry && (mine.rows < append->nevents || written < (uint64) append->nevents))
		ereport(ERROR,
				(errcode(ERRCODE_ES_SUPPRESSED),
				 errmsg("events of stream %s %s were not written",
						text_to_cstring(append->aggregate_type),
						text_to_cstring(append->aggregate_id)),
				 errdetail("A trigger or rule on %s suppressed or redirected %d of %d.",
						   quote_qualified_identifier(NameStr(append->store->name), "events"),
						   append->nevents - (int) written, append->nevents),
				 errhint("An append is all or nothing: let the trigger raise an error, or leave the event alone.")));
}
