/*
 * row.c
 *		Makes a row that comes to an events table by INSERT or COPY an append:
 *		checks it and sets what the store sets.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "append/bulk.h"
#include "schema/registry.h"
#include "store/arguments.h"
#include "store/position.h"
#include "store/texts.h"

/*
 * row_text reads a text column of the new row that must have content.
 */
static text *
row_text(EsRow *row, AttrNumber attribute, int max)
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
set_value(EsRow *row, AttrNumber attribute, Datum value)
{
	row->values[attribute - 1] = value;
	row->nulls[attribute - 1] = false;
}

/*
 * default_text sets a column that the row leaves NULL, if there is a value.
 */
static void
default_text(EsRow *row, AttrNumber attribute, text *value)
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
	return es_pending && es_pending->append->store == store &&
		es_pending->rows < es_pending->append->nevents &&
		es_text_same(aggregate_type, es_pending->append->aggregate_type) &&
		es_text_same(aggregate_id, es_pending->append->aggregate_id);
}

/*
 * assign_time sets recorded_at.  The row was routed to its partition by the
 * column's default, a moment ago; a time of the user's own is refused, for it
 * would falsify the record.
 */
static void
assign_time(EsRow *row, EsStore *store, const EsPartition *partition, TimestampTz now,
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
is_closing(EsRow *row)
{
	return es_text_is(DatumGetTextPP(row->values[ES_ATT_EVENT_TYPE - 1]), ES_CLOSING_TYPE);
}

/*
 * es_row_fill checks a new row and sets what the store sets.  False if it is not
 * to be written.  certain: a row that is let through is written, or the
 * statement fails; so where its stream stands can be remembered.
 */
bool
es_row_fill(EsRow *row, EsStore *store, const EsPartition *partition, bool certain)
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
	bool		may_know = certain && !replica && !mine;

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
		if (row->bulk)
			es_bulk_before_look(row->bulk, hash);
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
	if (mine && es_pending->rows == 0)
		checked = es_pending->append;
	else if (!row->nulls[ES_ATT_VERSION - 1] && !mine)
		append.expected = DatumGetInt64(row->values[ES_ATT_VERSION - 1]) - 1;
	if (append.expected < 0 && append.expected != ES_EXPECT_ANY)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("version %lld is not valid", (long long) append.expected + 1),
				 errhint("Versions count from 1; leave the column out for the next one.")));
	if ((mine && es_pending->retry) || !es_arbitrate(checked, &head))
	{
		es_pending->retry = true;
		es_pending->rows++;
		return false;
	}

	/* a subscriber takes what its publisher checked */
	if (!(replica && !row->nulls[ES_ATT_GLOBAL_POSITION - 1]) &&
		!(mine && es_pending->append->closes) && !row->nulls[ES_ATT_DATA - 1])
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
	if (may_know && is_closing(row))
		es_known_forget();
	else if (may_know)
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
		es_pending->rows++;
		es_pending->append->version = head.version + 1;
		es_pending->append->position = DatumGetInt64(row->values[ES_ATT_GLOBAL_POSITION - 1]);
	}
	return true;
}
