/*
 * insert.c
 *		Writes events straight into their partition, by the executor's insert
 *		routines: constraints, indexes and AFTER ROW triggers are theirs.
 *
 * Row security, other triggers and rules need a plan: see
 * es_insert_by_executor().
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "append/append.h"
#include "append/target.h"
#include "read/scan.h"
#include "schema/registry.h"
#include "store/position.h"
#include "store/texts.h"

/* events that go to the table in one call */
#define EVENTS_AT_A_TIME	1000

/* what all events of an append have in common */
typedef struct Common
{
	EsContext	context;
	TimestampTz recorded_at;
	FullTransactionId transaction;
	int64		version;		/* of the first */
	int64		position;
} Common;

/*
 * set_text sets a nullable text column.
 */
static void
set_text(TupleTableSlot *slot, AttrNumber attribute, text *value)
{
	slot->tts_values[attribute - 1] = PointerGetDatum(value);
	slot->tts_isnull[attribute - 1] = (value == NULL);
}

/*
 * fill_slot makes the row of the append's i-th event.
 */
static void
fill_slot(TupleTableSlot *slot, EsAppend *append, int i, const Common *common)
{
	EsNewEvent *event = &append->events[i];
	Datum	   *values = slot->tts_values;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, false, ES_NATTS);
	values[ES_ATT_GLOBAL_POSITION - 1] = Int64GetDatum(common->position + i);
	values[ES_ATT_AGGREGATE_TYPE - 1] = PointerGetDatum(append->aggregate_type);
	values[ES_ATT_AGGREGATE_ID - 1] = PointerGetDatum(append->aggregate_id);
	values[ES_ATT_VERSION - 1] = Int64GetDatum(common->version + i);
	values[ES_ATT_EVENT_ID - 1] = PointerGetDatum(event->event_id);
	values[ES_ATT_EVENT_TYPE - 1] = PointerGetDatum(event->event_type);
	values[ES_ATT_SCHEMA_VERSION - 1] = Int32GetDatum(event->schema_version);
	values[ES_ATT_DATA - 1] = event->data;
	values[ES_ATT_METADATA - 1] = event->metadata;
	slot->tts_isnull[ES_ATT_METADATA - 1] = !event->has_metadata;
	set_text(slot, ES_ATT_USER_ID, common->context.user_id);
	set_text(slot, ES_ATT_CORRELATION_ID, common->context.correlation_id);
	set_text(slot, ES_ATT_CAUSATION_ID, common->context.causation_id);
	set_text(slot, ES_ATT_TRACEPARENT, common->context.traceparent);
	values[ES_ATT_RECORDED_AT - 1] = TimestampTzGetDatum(common->recorded_at);
	values[ES_ATT_OCCURRED_AT - 1] = TimestampTzGetDatum(event->occurred_at);
	slot->tts_isnull[ES_ATT_OCCURRED_AT - 1] = !event->has_occurred_at;
	values[ES_ATT_TRANSACTION - 1] = FullTransactionIdGetDatum(common->transaction);
	ExecStoreVirtualTuple(slot);
}

/*
 * keep_head remembers where the stream stands after the append, unless that
 * may have closed it.
 */
static void
keep_head(EsAppend *append, uint64 hash, TimestampTz recorded_at, TimestampTz partition)
{
	text	   *type = append->events[append->nevents - 1].event_type;
	EsStreamHead head;

	if (es_text_is(type, ES_CLOSING_TYPE))
		return;
	head.hash = hash;
	head.version = append->version;
	head.recorded_at = recorded_at;
	head.partition = partition;
	es_head_keep(append->store, append->aggregate_type, append->aggregate_id, &head);
}

/*
 * check_events checks an append's events by what is registered about their
 * types.
 */
static void
check_events(EsAppend *append)
{
	for (int i = 0; i < append->nevents; i++)
	{
		EsNewEvent *event = &append->events[i];

		CHECK_FOR_INTERRUPTS();
		event->schema_version = append->closes ? 1 :
			es_event_check(append->store, event->event_type, event->schema_version, event->data);
	}
}

/*
 * es_insert_direct writes an append's events after the stream's head; sets the
 * result.
 */
void
es_insert_direct(EsAppend *append, const EsStreamHead *head, TimestampTz now)
{
	Common		common;
	EsPartition partition;
	EsTarget   *target;
	TupleTableSlot **slots;
	int			nslots = Min(append->nevents, EVENTS_AT_A_TIME);
	BulkInsertState bulk = NULL;

	es_known_forget();
	check_events(append);
	es_context_get(&common.context);
	common.recorded_at = Max(now, head->recorded_at);
	common.transaction = GetTopFullTransactionId();
	common.version = head->version + 1;

	partition = *es_store_partition(append->store, common.recorded_at);
	if (head->version == 0 || head->partition != partition.lower)
		es_stream_enter_partition(append->store, append->aggregate_type, append->aggregate_id,
								  head, &partition);
	(void) es_position_latest_partition(partition.lower);

	target = es_target_open(append->store, partition.relid);
	slots = es_target_slots(target, nslots);
	if (append->nevents > EVENTS_AT_A_TIME)
		bulk = GetBulkInsertState();

	common.position = es_position_allocate(append->nevents);
	for (int done = 0; done < append->nevents; done += nslots)
	{
		int			count = Min(nslots, append->nevents - done);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < count; i++)
		{
			fill_slot(slots[i], append, done + i, &common);
			es_target_check(target, slots[i]);
		}
		es_target_insert(target, slots, count, bulk, true, NULL);
	}

	if (bulk)
		FreeBulkInsertState(bulk);
	append->version = common.version + append->nevents - 1;
	append->position = common.position + append->nevents - 1;
	/* before triggers fire, which may append to the stream too */
	keep_head(append, head->hash, common.recorded_at, partition.lower);
	es_target_close(target);
}
