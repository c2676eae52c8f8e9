/*
 * take.c
 *		Taking snapshots, and trying those that there are.
 *
 * It is done as the store's owner, so that the appender needs no rights on
 * snapshots and row security that is meant for the appender does not cut the
 * state short.
 */
#include "state/state.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "read/upcast.h"

/* for whom it is taken whatever the type's number of versions: es_snapshot() */
#define ES_SNAPSHOT_NOW		(-1)

/* The commands that write snapshots, prepared once a store. */
typedef struct SnapshotPlans
{
	Oid			table;			/* hash key */
	NameData	schema;			/* as it stands in the commands */
	SPIPlanPtr	insert;
	SPIPlanPtr	prune;
} SnapshotPlans;

/* What is changed while the store's owner works. */
typedef struct OwnerWork
{
	Oid			user;
	int			security;
	int			nestlevel;
} OwnerWork;

/* What run_compute() and run_prune() are called with. */
typedef struct Compute
{
	EsStateQuery *query;
	int			every;
	EsAggregate *aggregate;
	EsStateAnswer *answer;
	bool		computed;
} Compute;

typedef struct Prune
{
	SPIPlanPtr	plan;
	Datum	   *values;
} Prune;

static HTAB *prepared = NULL;

PG_FUNCTION_INFO_V1(es_take_snapshot);
PG_FUNCTION_INFO_V1(es_verify_snapshot);

static void begin_work(EsStateQuery *query, OwnerWork *work);
static void end_work(OwnerWork *work);
static void read_owner_query(FunctionCallInfo fcinfo, EsStateQuery *query, int store);
static bool compute_guarded(EsStateQuery *query, int every,
							EsAggregate *aggregate, EsStateAnswer *answer,
							char **failure);
static bool compute_snapshot(EsStateQuery *query, int every,
							 EsAggregate *aggregate, EsStateAnswer *answer);
static void run_compute(void *arg);
static void set_path(const char *path);
static void save_snapshot(EsStateQuery *query, EsAggregate *aggregate,
						  EsStateAnswer *answer);
static void prune(SPIPlanPtr plan, Datum *values);
static void prune_guarded(SPIPlanPtr plan, Datum *values);
static void run_prune(void *arg);
static SnapshotPlans *snapshot_plans(Oid table, const char *schema);
static void prepare(SPIPlanPtr *place, int nargs, Oid *types, const char *command);

/*
 * es_snapshot_take takes the snapshot that a trigger for every so many versions
 * is to take; there is none where another trigger serves the type.
 */
void
es_snapshot_take(EsStateQuery *query, int every)
{
	EsAggregate aggregate;
	EsStateAnswer answer;
	OwnerWork	work;

	begin_work(query, &work);
	if (compute_guarded(query, every, &aggregate, &answer, NULL))
		save_snapshot(query, &aggregate, &answer);
	end_work(&work);
}

/*
 * es_take_snapshot is eventsrc.take_snapshot(aggregate_type, aggregate_id,
 * guarded, store): takes the snapshot of an aggregate at its last version, and
 * returns whether it was not there already.  If guarded, errors are warnings.
 */
Datum
es_take_snapshot(PG_FUNCTION_ARGS)
{
	bool		guarded = PG_GETARG_BOOL(2);
	EsStateQuery query = {0};
	EsAggregate aggregate;
	EsStateAnswer answer;
	OwnerWork	work;
	bool		taken = false;

	read_owner_query(fcinfo, &query, 3);
	query.snapshots = query.uncounted = true;
	begin_work(&query, &work);
	query.version = es_nearest_version(&query, PG_INT64_MAX, true);
	if (query.version > 0)
		taken = guarded ? compute_guarded(&query, ES_SNAPSHOT_NOW, &aggregate, &answer, NULL) :
			compute_snapshot(&query, ES_SNAPSHOT_NOW, &aggregate, &answer);
	if (taken)
		save_snapshot(&query, &aggregate, &answer);
	end_work(&work);
	PG_RETURN_BOOL(taken);
}

/*
 * es_verify_snapshot is eventsrc.verify_snapshot(aggregate_type, aggregate_id,
 * version, recorded_at, state, reducer, from_version, from_state, store): says
 * what is wrong with a snapshot, NULL if nothing.  from_version is 0, or that of
 * an earlier snapshot that was found right, with its state.
 */
Datum
es_verify_snapshot(PG_FUNCTION_ARGS)
{
	EsStateQuery query = {0};
	EsAggregate aggregate;
	EsStateAnswer answer;
	OwnerWork	work;
	char	   *reducer = text_to_cstring(PG_GETARG_TEXT_PP(5));
	char	   *failure = NULL;
	Jsonb	   *state = PG_GETARG_JSONB_P(4);

	read_owner_query(fcinfo, &query, 8);
	query.version = PG_GETARG_INT64(2);
	query.from_version = PG_GETARG_INT64(6);
	query.from_state = PG_GETARG_JSONB_P(7);

	begin_work(&query, &work);
	memset(&aggregate, 0, sizeof(aggregate));
	if (!compute_guarded(&query, ES_SNAPSHOT_NOW, &aggregate, &answer, &failure) && failure == NULL)
		failure = aggregate.identity && strcmp(aggregate.identity, reducer) != 0 ? "outdated" :
			"there are not all events up to its version";
	end_work(&work);

	if (failure == NULL && strcmp(aggregate.identity, reducer) != 0)
		failure = "outdated";
	if (failure == NULL && answer.recorded_at != PG_GETARG_TIMESTAMPTZ(3))
		failure = "its recorded_at is not that of its event";
	if (failure == NULL &&
		(VARSIZE(answer.state) != VARSIZE(state) ||
		 memcmp(VARDATA(answer.state), VARDATA(state), VARSIZE(state) - VARHDRSZ) != 0) &&
		strcmp(JsonbToCString(NULL, &answer.state->root, VARSIZE(answer.state)),
			   JsonbToCString(NULL, &state->root, VARSIZE(state))) != 0)
		failure = "its state is not that of the events";
	if (failure == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(failure));
}

/*
 * read_owner_query reads which aggregate of which store is meant; only its
 * owner may go on.
 */
static void
read_owner_query(FunctionCallInfo fcinfo, EsStateQuery *query, int store)
{
	query->aggregate_type = es_identifier_arg(fcinfo, 0, "aggregate_type");
	query->aggregate_id = es_identifier_arg(fcinfo, 1, "aggregate_id");
	query->store = es_store_open(es_store_name_arg(fcinfo, store), AccessShareLock);
	query->to_version = true;
	query->as_of = DT_NOEND;
	query->reducer = es_kept_reducer(fcinfo);
	es_store_check_owner(query->store);
	if (check_enable_rls(query->store->events, query->store->owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security hides events of store \"%s\" from its owner",
						NameStr(query->store->name)),
				 errdetail("States that lack what is hidden cannot be kept for everybody."),
				 errhint("ALTER TABLE %s NO FORCE ROW LEVEL SECURITY.",
						 quote_qualified_identifier(NameStr(query->store->name), "events"))));
}

/*
 * begin_work makes the store's owner the user, with a search_path that nobody
 * else chose and a snapshot that sees what the statement did.
 */
static void
begin_work(EsStateQuery *query, OwnerWork *work)
{
	GetUserIdAndSecContext(&work->user, &work->security);
	SetUserIdAndSecContext(query->store->owner,
						   work->security | SECURITY_RESTRICTED_OPERATION);
	work->nestlevel = NewGUCNestLevel();
	set_path("pg_catalog, pg_temp");

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	query->snapshot = GetActiveSnapshot();
}

/*
 * end_work goes back to what was before begin_work.
 */
static void
end_work(OwnerWork *work)
{
	PopActiveSnapshot();
	AtEOXact_GUC(false, work->nestlevel);
	SetUserIdAndSecContext(work->user, work->security);
}

/*
 * compute_guarded computes the state to keep, and returns false where there is
 * none.  The reducer is a user's: it runs in a subtransaction, and its errors
 * become warnings, or the text of failure if the caller wants that.
 */
static bool
compute_guarded(EsStateQuery *query, int every, EsAggregate *aggregate,
				EsStateAnswer *answer, char **failure)
{
	Compute		compute = {query, every, aggregate, answer};
	ErrorData  *error = es_run_guarded(run_compute, &compute);

	if (error == NULL)
		return compute.computed;
	if (es_error_stops(error))
		ReThrowError(error);

	if (failure)
		*failure = error->message ? error->message : "an error without message";
	else
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("no snapshot was taken of %s %s at version " INT64_FORMAT,
						text_to_cstring(query->aggregate_type),
						text_to_cstring(query->aggregate_id), query->version),
				 errdetail("%s", error->message ? error->message : ""),
				 error->hint ? errhint("%s", error->hint) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
	return false;
}

/*
 * run_compute is compute_snapshot for es_run_guarded().
 */
static void
run_compute(void *arg)
{
	Compute    *compute = arg;

	compute->computed = compute_snapshot(compute->query, compute->every, compute->aggregate,
										 compute->answer);
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
	if (every != ES_SNAPSHOT_NOW && aggregate->snapshot_every != every)
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
		answer->replayed == answer->version - Max(answer->snapshot_version, query->from_version) &&
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
 * save_snapshot writes a snapshot, over one that another reducer left, and drops
 * those of the aggregate beyond what is kept.  Not in the subtransaction: that
 * would take a transaction id a snapshot, and a bulk load more of them than
 * other backends' snapshots hold at hand.
 */
static void
save_snapshot(EsStateQuery *query, EsAggregate *aggregate,
			  EsStateAnswer *answer)
{
	SnapshotPlans *plans;
	Datum		values[6];

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plans = snapshot_plans(query->store->snapshots,
						   get_namespace_name(query->store->schema));
	values[0] = PointerGetDatum(query->aggregate_type);
	values[1] = PointerGetDatum(query->aggregate_id);
	values[2] = Int64GetDatum(answer->version);
	values[3] = TimestampTzGetDatum(answer->recorded_at);
	values[4] = JsonbPGetDatum(answer->state);
	values[5] = CStringGetTextDatum(aggregate->identity);
	if (SPI_execute_plan(plans->insert, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write table snapshots");

	if (aggregate->keep_snapshots > 0)
	{
		values[2] = Int32GetDatum(aggregate->keep_snapshots);
		if (IsolationUsesXactSnapshot())
			prune_guarded(plans->prune, values);
		else
			prune(plans->prune, values);
	}
	SPI_finish();
}

/*
 * prune drops an aggregate's oldest snapshots, as they are now whatever the
 * transaction sees.
 */
static void
prune(SPIPlanPtr plan, Datum *values)
{
	if (SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(),
							 InvalidSnapshot, false, true, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not drop old snapshots");
}

/*
 * prune_guarded is prune at REPEATABLE READ and above, where it fails if another
 * session drops one of them at that moment.  That session does the work then,
 * and the append must not be refused for it.
 */
static void
prune_guarded(SPIPlanPtr plan, Datum *values)
{
	Prune		arg = {plan, values};
	ErrorData  *error = es_run_guarded(run_prune, &arg);

	if (error && error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
		ReThrowError(error);
}

/*
 * run_prune is prune for es_run_guarded().
 */
static void
run_prune(void *arg)
{
	prune(((Prune *) arg)->plan, ((Prune *) arg)->values);
}

/*
 * snapshot_plans returns the prepared commands for a store's snapshots.
 */
static SnapshotPlans *
snapshot_plans(Oid table, const char *schema)
{
	Oid			columns[6] = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, JSONBOID, TEXTOID};
	Oid			keep[3] = {TEXTOID, TEXTOID, INT4OID};
	const char *quoted = quote_identifier(schema);
	SnapshotPlans *entry;
	bool		found;

	if (prepared == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(SnapshotPlans);
		prepared = hash_create("eventsrc snapshot plans", 8, &ctl,
							   HASH_ELEM | HASH_BLOBS);
	}

	entry = hash_search(prepared, &table, HASH_ENTER, &found);
	if (!found)
		entry->insert = entry->prune = NULL;
	if (entry->prune && strcmp(NameStr(entry->schema), schema) == 0)
		return entry;

	namestrcpy(&entry->schema, schema);
	prepare(&entry->insert, 6, columns,
			psprintf("INSERT INTO %s.snapshots (aggregate_type, aggregate_id, version, recorded_at, state, reducer)"
					 " VALUES ($1, $2, $3, $4, $5, $6)"
					 " ON CONFLICT (aggregate_type, aggregate_id, version) DO UPDATE"
					 " SET recorded_at = excluded.recorded_at, state = excluded.state,"
					 " reducer = excluded.reducer, taken_at = excluded.taken_at",
					 quoted));
	prepare(&entry->prune, 3, keep,
			psprintf("DELETE FROM %s.snapshots WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
					 " AND aggregate_id OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.<=)"
					 " (SELECT version FROM %s.snapshots WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
					 " AND aggregate_id OPERATOR(pg_catalog.=) $2 ORDER BY version DESC OFFSET $3 LIMIT 1)",
					 quoted, quoted));
	return entry;
}

/*
 * prepare prepares a command in the place of another.
 */
static void
prepare(SPIPlanPtr *place, int nargs, Oid *types, const char *command)
{
	SPIPlanPtr	plan = SPI_prepare(command, nargs, types);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", command);
	if (*place)
		SPI_freeplan(*place);
	*place = plan;
}
