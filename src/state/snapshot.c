/*
 * snapshot.c
 *		Snapshots: finding the one that shortens a fold, and the trigger that
 *		takes them.
 *
 * A snapshot is only a cache of es_state().  It is good for the reducer and
 * the initial state whose identity it carries, and ignored else.
 */
#include "state/state.h"

#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/import.h"
#include "read/upcast.h"

/* columns of snapshots */
#define ATT_VERSION		3
#define ATT_RECORDED_AT	4
#define ATT_STATE		5
#define ATT_REDUCER		6

/* The INSERT of snapshots, prepared once a store. */
typedef struct SnapshotPlan
{
	Oid			table;			/* hash key */
	NameData	schema;			/* as it stands in the command */
	SPIPlanPtr	plan;
} SnapshotPlan;

static HTAB *snapshot_plans = NULL;

PG_FUNCTION_INFO_V1(es_snapshot_trigger);

static bool compute_guarded(EsStateQuery *query, int every,
							EsAggregate *aggregate, EsStateAnswer *answer);
static bool compute_snapshot(EsStateQuery *query, int every,
							 EsAggregate *aggregate, EsStateAnswer *answer);
static void set_path(const char *path);
static void save_snapshot(EsStateQuery *query, EsAggregate *aggregate,
						  EsStateAnswer *answer);
static SPIPlanPtr snapshot_plan(Oid table, const char *schema);
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
 * It works as the store's owner, so that the appender needs no rights on
 * snapshots and row security that is meant for the appender does not cut the
 * state short.  A state that cannot be computed is a warning: the append is not
 * refused for a reducer's mistake.
 */
Datum
es_snapshot_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	EsStateQuery query = {0};
	EsStateAnswer answer;
	EsAggregate aggregate;
	EsReducer	reducer = {0};
	Oid			table;
	Oid			user;
	int			security;
	int			nestlevel;
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
	query.snapshots = true;
	query.reducer = &reducer;
	reducer.context = CurrentMemoryContext;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(query.store->owner,
						   security | SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	set_path("pg_catalog, pg_temp");

	/* see what the statement inserted */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	query.snapshot = GetActiveSnapshot();

	if (trigdata->tg_trigger->tgnargs == 2)
		every = pg_strtoint32(trigdata->tg_trigger->tgargs[1]);
	if (compute_guarded(&query, every, &aggregate, &answer))
		save_snapshot(&query, &aggregate, &answer);

	PopActiveSnapshot();
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(user, security);
	return PointerGetDatum(NULL);
}

/*
 * compute_guarded computes the state to keep, and returns false where there is
 * none.  The reducer is a user's: it runs in a subtransaction, and its errors
 * become warnings.
 */
static bool
compute_guarded(EsStateQuery *query, int every, EsAggregate *aggregate,
				EsStateAnswer *answer)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool computed = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		computed = compute_snapshot(query, every, aggregate, answer);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		/* what stops the statement or transaction is not ours to swallow */
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			edata->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
			edata->sqlerrcode == ERRCODE_ASSERT_FAILURE)
			ReThrowError(edata);

		ereport(WARNING,
				(errcode(edata->sqlerrcode),
				 errmsg("no snapshot was taken of %s %s at version " INT64_FORMAT,
						text_to_cstring(query->aggregate_type),
						text_to_cstring(query->aggregate_id), query->version),
				 errdetail("%s", edata->message ? edata->message : ""),
				 edata->hint ? errhint("%s", edata->hint) : 0,
				 edata->context ? errcontext("%s", edata->context) : 0));
		computed = false;
	}
	PG_END_TRY();

	return computed;
}

/*
 * compute_snapshot computes the state at the query's version, and says whether
 * it is one to keep.
 */
static bool
compute_snapshot(EsStateQuery *query, int every, EsAggregate *aggregate,
				 EsStateAnswer *answer)
{
	/* row security that binds even the owner would cut the state short */
	if (check_enable_rls(query->store->events, InvalidOid, true) == RLS_ENABLED)
		return false;

	/* another trigger takes this type's snapshots, or none */
	es_aggregate_load(query->store, query->aggregate_type, query->snapshot,
					  aggregate);
	if (aggregate->snapshot_every != every)
		return false;

	/*
	 * The reducer and upcasters run with the owner's rights, so names in them
	 * must not be looked up in schemas that the appender chose.
	 */
	set_path(psprintf("pg_catalog, %s%s%s%s, pg_temp",
					  quote_identifier(get_namespace_name(es_public_schema())),
					  OidIsValid(aggregate->reducer) ? ", " : "",
					  OidIsValid(aggregate->reducer) ?
					  quote_identifier(get_namespace_name(get_func_namespace(aggregate->reducer))) : "",
					  es_upcasters_schemas(query->store)));

	es_state_compute(query, aggregate, answer);

	/* not if it is there already, or the reducer changed meanwhile */
	AcceptInvalidationMessages();
	return answer->version == query->version &&
		answer->replayed > 0 &&
		answer->replayed == answer->version - answer->snapshot_version &&
		strcmp(aggregate->identity, es_aggregate_identity(query->store, aggregate)) == 0;
}

/*
 * set_path sets the search_path until the enclosing nest level ends.
 */
static void
set_path(const char *path)
{
	(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * save_snapshot writes a snapshot, over one that another reducer left.  Not in
 * the subtransaction: that would take a transaction id a snapshot, and a bulk
 * load more of them than other backends' snapshots hold at hand.
 */
static void
save_snapshot(EsStateQuery *query, EsAggregate *aggregate,
			  EsStateAnswer *answer)
{
	Datum		values[6];
	SPIPlanPtr	plan;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = snapshot_plan(query->store->snapshots,
						 get_namespace_name(query->store->schema));
	values[0] = PointerGetDatum(query->aggregate_type);
	values[1] = PointerGetDatum(query->aggregate_id);
	values[2] = Int64GetDatum(answer->version);
	values[3] = TimestampTzGetDatum(answer->recorded_at);
	values[4] = JsonbPGetDatum(answer->state);
	values[5] = CStringGetTextDatum(aggregate->identity);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write table snapshots");
	SPI_finish();
}

/*
 * snapshot_plan returns the prepared INSERT of a store's snapshots.
 */
static SPIPlanPtr
snapshot_plan(Oid table, const char *schema)
{
	Oid			types[6] = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, JSONBOID, TEXTOID};
	SnapshotPlan *entry;
	StringInfoData command;
	SPIPlanPtr	plan;
	bool		found;

	if (snapshot_plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(SnapshotPlan);
		snapshot_plans = hash_create("eventsrc snapshot plans", 8, &ctl,
									 HASH_ELEM | HASH_BLOBS);
	}

	entry = hash_search(snapshot_plans, &table, HASH_ENTER, &found);
	if (!found)
		entry->plan = NULL;
	if (entry->plan && strcmp(NameStr(entry->schema), schema) == 0)
		return entry->plan;

	initStringInfo(&command);
	appendStringInfo(&command,
					 "INSERT INTO %s.snapshots (aggregate_type, aggregate_id, version, recorded_at, state, reducer)"
					 " VALUES ($1, $2, $3, $4, $5, $6)"
					 " ON CONFLICT (aggregate_type, aggregate_id, version) DO UPDATE"
					 " SET recorded_at = excluded.recorded_at, state = excluded.state,"
					 " reducer = excluded.reducer, taken_at = excluded.taken_at",
					 quote_identifier(schema));
	plan = SPI_prepare(command.data, 6, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", command.data);
	if (entry->plan)
		SPI_freeplan(entry->plan);
	entry->plan = plan;
	namestrcpy(&entry->schema, schema);
	return plan;
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
