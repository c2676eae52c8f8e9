/*
 * snapshot.c
 *		Snapshots: finding the one that shortens a fold, and the trigger that
 *		has them taken.
 *
 * A snapshot is only a cache of es_state().  It is good for the reducer and
 * the initial state whose identity it carries, and ignored else.
 */
#include "state/state.h"

#include "catalog/partition.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "append/import.h"

/* columns of snapshots */
#define ATT_VERSION		3
#define ATT_RECORDED_AT	4
#define ATT_STATE		5
#define ATT_REDUCER		6

PG_FUNCTION_INFO_V1(es_snapshot_trigger);

static Datum event_column(TriggerData *trigdata, const char *name);

/*
 * es_snapshot_find looks for the latest snapshot of an aggregate at or before
 * a version and a moment.  Returns its version, or 0, and copies its state.
 */
int64
es_snapshot_find(EsStore *store, text *aggregate_type, text *aggregate_id,
				 int64 upto_version, TimestampTz upto_time,
				 const char *identity, Snapshot snapshot, Jsonb **state)
{
	EsLookup	lookup;
	HeapTuple	tuple;
	int64		version = 0;

	es_lookup_open(&lookup, store->snapshots);
	es_lookup_text(&lookup, aggregate_type);
	es_lookup_text(&lookup, aggregate_id);
	es_lookup_upto(&lookup, upto_version);
	while ((tuple = es_lookup_last(&lookup, snapshot)) != NULL)
	{
		Datum		reducer = es_lookup_value(&lookup, tuple, ATT_REDUCER);
		Datum		recorded_at = es_lookup_value(&lookup, tuple, ATT_RECORDED_AT);

		CHECK_FOR_INTERRUPTS();
		if (DatumGetTimestampTz(recorded_at) > upto_time)
			continue;
		if (strcmp(TextDatumGetCString(reducer), identity) != 0)
			continue;
		version = DatumGetInt64(es_lookup_value(&lookup, tuple, ATT_VERSION));
		*state = DatumGetJsonbPCopy(es_lookup_value(&lookup, tuple, ATT_STATE));
		break;
	}
	es_lookup_close(&lookup);
	return version;
}

/*
 * es_snapshot_trigger takes the snapshot of an aggregate at the version of the
 * event that fired it.
 *
 * A state that cannot be computed is a warning: the append is not refused for a
 * reducer's mistake.
 */
Datum
es_snapshot_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsStateQuery query = {0};
	EsReducer	reducer = {0};
	Oid			table;
	int			every = ES_SNAPSHOT_EVERY;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("snapshot_trigger() must be fired AFTER INSERT FOR EACH ROW on a store's events")));

	/*
	 * what replication applies brings its snapshots along; a stream that is
	 * imported gets one as it grows
	 */
	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA || es_import_running)
		return PointerGetDatum(NULL);

	table = RelationGetRelid(trigdata->tg_relation);
	if (trigdata->tg_relation->rd_rel->relispartition)
		table = llast_oid(get_partition_ancestors(table));
	query.store = es_store_of_relation(table);
	if (query.store == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_UNKNOWN_STORE),
				 errmsg("\"%s\" is not the events table of a store",
						get_rel_name(table)),
				 errhint("The trigger function eventsrc.snapshot_trigger() is only for tables that es_create_store() made.")));

	query.aggregate_type = DatumGetTextPP(event_column(trigdata, "aggregate_type"));
	query.aggregate_id = DatumGetTextPP(event_column(trigdata, "aggregate_id"));
	query.version = DatumGetInt64(event_column(trigdata, "version"));
	query.to_version = true;
	query.as_of = DT_NOEND;
	query.snapshots = query.uncounted = true;
	query.reducer = &reducer;
	reducer.context = CurrentMemoryContext;

	if (trigdata->tg_trigger->tgnargs == 2)
		every = pg_strtoint32(trigdata->tg_trigger->tgargs[1]);
	es_snapshot_take(&query, every);
	return PointerGetDatum(NULL);
}

/*
 * event_column returns a column of the inserted event, found by name: a
 * partition's columns can stand in another order.
 */
static Datum
event_column(TriggerData *trigdata, const char *name)
{
	int			attno = SPI_fnumber(RelationGetDescr(trigdata->tg_relation), name);
	Datum		value = (Datum) 0;
	bool		isnull = true;

	if (attno > 0)
		value = slot_getattr(trigdata->tg_trigslot, attno, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_ES_STORE_DAMAGED),
				 errmsg("table \"%s\" has an event without %s",
						RelationGetRelationName(trigdata->tg_relation), name)));
	return value;
}
