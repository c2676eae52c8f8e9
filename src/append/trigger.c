/*
 * trigger.c
 *		The trigger of events tables, behind INSERT and COPY; and es_append()
 *		by way of an INSERT, where only the executor can do it right: row
 *		security, rules, users' BEFORE or statement triggers, more columns.
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "catalog/pg_collation.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "append/append.h"
#include "schema/registry.h"
#include "store/arguments.h"
#include "store/position.h"
#include "store/texts.h"

PG_FUNCTION_INFO_V1(es_append_trigger_function);

/* the append whose INSERT is running: its first row meets the expectation */
typedef struct Pending
{
	EsAppend   *append;
	int			rows;			/* that came by so far */
	bool		retry;			/* the append succeeded before: write nothing */
} Pending;

static Pending *pending = NULL;

/* the new row, taken apart */
typedef struct Row
{
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
} Row;

/*
 * row_text reads a text column of the new row that must have content.
 */
static text *
row_text(Row *row, AttrNumber attribute, int max)
{
	const char *name = NameStr(TupleDescAttr(row->desc, attribute - 1)->attname);
	text	   *value;

	if (row->nulls[attribute - 1])
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be NULL", name),
				 errhint("Pass a text of 1 to %d bytes.", max)));
	value = DatumGetTextPP(row->values[attribute - 1]);
	es_check_text(value, name, max);
	return value;
}

/*
 * set_value sets a column of the new row.
 */
static void
set_value(Row *row, AttrNumber attribute, Datum value)
{
	row->values[attribute - 1] = value;
	row->nulls[attribute - 1] = false;
}

/*
 * default_text sets a column that the row leaves NULL, if there is a value.
 */
static void
default_text(Row *row, AttrNumber attribute, text *value)
{
	if (row->nulls[attribute - 1] && value)
		set_value(row, attribute, PointerGetDatum(value));
}

/*
 * is_pending tells whether a row is one of the append whose INSERT is running.
 */
static bool
is_pending(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	return pending && pending->append->store == store &&
		pending->rows < pending->append->nevents &&
		DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
											 PointerGetDatum(aggregate_type),
											 PointerGetDatum(pending->append->aggregate_type))) &&
		DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
											 PointerGetDatum(aggregate_id),
											 PointerGetDatum(pending->append->aggregate_id)));
}

/*
 * assign_time sets recorded_at.  The row was routed to its partition by the
 * column's default, a moment ago; a time of the user's own is refused, for it
 * would falsify the record.
 */
static void
assign_time(Row *row, EsStore *store, EsPartition *partition, TimestampTz now,
			const EsStreamHead *head)
{
	TimestampTz routed = DatumGetTimestampTz(row->values[ES_ATT_RECORDED_AT - 1]);
	TimestampTz recorded_at = Max(now, head->recorded_at);

	if (!row->nulls[ES_ATT_RECORDED_AT - 1] && es_importing(store, head->version + 1, routed))
		return;
	if (row->nulls[ES_ATT_RECORDED_AT - 1] ||
		routed < GetCurrentTransactionStartTimestamp() || routed > now)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("recorded_at is the store's to set"),
				 errdetail("It says when the event was recorded, which is now."),
				 errhint("Leave the column out; put the time at which the event happened into occurred_at.")));

	/* the month may turn between the routing and now */
	if (recorded_at >= partition->upper)
		recorded_at = Max(routed, head->recorded_at);
	if (recorded_at >= partition->upper || recorded_at < partition->lower)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the stream's last event was recorded later than now"),
				 errdetail("It was recorded at %s; the clock may have been set back.",
						   timestamptz_to_str(head->recorded_at)),
				 errhint("The transaction might succeed if retried, or by es_append().")));
	set_value(row, ES_ATT_RECORDED_AT, TimestampTzGetDatum(recorded_at));
}

/*
 * is_closing tells whether the new row is of the type that closes a stream.
 */
static bool
is_closing(Row *row)
{
	return es_text_is(DatumGetTextPP(row->values[ES_ATT_EVENT_TYPE - 1]), ES_CLOSING_TYPE);
}

/*
 * fill_in checks the new row and sets what the store sets.  False if it is not
 * to be written.
 */
static bool
fill_in(Row *row, EsStore *store, EsPartition *partition, Relation rel)
{
	text	   *type = row_text(row, ES_ATT_AGGREGATE_TYPE, ES_MAX_TYPE);
	text	   *id = row_text(row, ES_ATT_AGGREGATE_ID, ES_MAX_ID);
	bool		replica = (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA);
	EsStreamHead head;
	EsContext	context;
	EsAppend	append = {0};
	EsAppend   *checked = &append;
	TimestampTz now;
	uint64		hash;
	int32		schema_version;
	bool		mine = is_pending(store, type, id);
	bool		may_know = !replica && !mine && es_known_usable(store, rel);

	(void) row_text(row, ES_ATT_EVENT_TYPE, ES_MAX_TYPE);
	if (!row->nulls[ES_ATT_EVENT_ID - 1])
		(void) row_text(row, ES_ATT_EVENT_ID, ES_MAX_TYPE);
	if (!row->nulls[ES_ATT_DATA - 1])
		es_check_data(row->values[ES_ATT_DATA - 1], "");
	schema_version = es_schema_version(!row->nulls[ES_ATT_SCHEMA_VERSION - 1],
									   DatumGetInt32(row->values[ES_ATT_SCHEMA_VERSION - 1]));

	hash = es_stream_hash(store, type, id);
	if (may_know && es_known_find(store, hash, type, id, partition->lower, &head))
		now = GetCurrentTimestamp();
	else
	{
		es_stream_lock_hash(hash);
		now = GetCurrentTimestamp();
		es_stream_head(store, type, id, hash, ES_EXPECT_ANY, now, &head);
	}

	/* who wins */
	append.store = store;
	append.aggregate_type = type;
	append.aggregate_id = id;
	append.expected = ES_EXPECT_ANY;
	append.nevents = 1;
	if (replica && !row->nulls[ES_ATT_GLOBAL_POSITION - 1])
		head.closing = false;	/* the publisher's stream was open */
	if (mine && pending->rows == 0)
		checked = pending->append;
	else if (!row->nulls[ES_ATT_VERSION - 1] && !mine)
		append.expected = DatumGetInt64(row->values[ES_ATT_VERSION - 1]) - 1;
	if (append.expected < 0 && append.expected != ES_EXPECT_ANY)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("version %lld is not valid", (long long) append.expected + 1),
				 errhint("Versions count from 1; leave the column out for the next one.")));
	if ((mine && pending->retry) || !es_arbitrate(checked, &head))
	{
		pending->retry = true;
		pending->rows++;
		return false;
	}

	/* a subscriber takes what its publisher checked */
	if (!(replica && !row->nulls[ES_ATT_GLOBAL_POSITION - 1]) &&
		!(mine && pending->append->closes) && !row->nulls[ES_ATT_DATA - 1])
		schema_version = es_event_check(store, DatumGetTextPP(row->values[ES_ATT_EVENT_TYPE - 1]),
										schema_version, row->values[ES_ATT_DATA - 1]);
	set_value(row, ES_ATT_SCHEMA_VERSION, Int32GetDatum(Max(schema_version, 1)));

	if (replica && !row->nulls[ES_ATT_GLOBAL_POSITION - 1])
		/* a subscriber keeps what its publisher recorded */
		es_position_import(DatumGetInt64(row->values[ES_ATT_GLOBAL_POSITION - 1]));
	else
	{
		assign_time(row, store, partition, now, &head);
		set_value(row, ES_ATT_TRANSACTION, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	}
	if (head.version == 0 || head.partition != partition->lower)
		es_stream_enter_partition(store, type, id, &head, partition);
	(void) es_position_latest_partition(partition->lower);

	set_value(row, ES_ATT_VERSION, Int64GetDatum(head.version + 1));
	es_stream_remember(hash, head.version + 1);
	if (may_know && !is_closing(row))
		es_known_set(store, hash, type, id, head.version + 1,
					 DatumGetTimestampTz(row->values[ES_ATT_RECORDED_AT - 1]), partition->lower);
	if (!replica || row->nulls[ES_ATT_GLOBAL_POSITION - 1])
		set_value(row, ES_ATT_GLOBAL_POSITION, Int64GetDatum(es_position_allocate(1)));
	es_context_get(&context);
	if (row->nulls[ES_ATT_EVENT_ID - 1])
		set_value(row, ES_ATT_EVENT_ID, PointerGetDatum(es_uuid_v7()));
	default_text(row, ES_ATT_USER_ID, context.user_id);
	default_text(row, ES_ATT_CORRELATION_ID, context.correlation_id);
	default_text(row, ES_ATT_CAUSATION_ID, context.causation_id);
	default_text(row, ES_ATT_TRACEPARENT, context.traceparent);

	if (mine)
	{
		pending->rows++;
		pending->append->version = head.version + 1;
		pending->append->position = DatumGetInt64(row->values[ES_ATT_GLOBAL_POSITION - 1]);
	}
	return true;
}

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
	Row			row;
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

	row.desc = RelationGetDescr(data->tg_relation);
	row.values = palloc(row.desc->natts * sizeof(Datum));
	row.nulls = palloc(row.desc->natts * sizeof(bool));
	heap_deform_tuple(data->tg_trigtuple, row.desc, row.values, row.nulls);
	if (!fill_in(&row, store, &partition, data->tg_relation))
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
	Pending    *outer = pending;
	Pending		mine = {append, 0, false};
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

	pending = &mine;
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
		pending = outer;
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
