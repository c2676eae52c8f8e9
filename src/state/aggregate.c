/*
 * aggregate.c
 *		Aggregate types: es_create_aggregate(), and reading what it registered.
 *
 * The registry is the store's table aggregates.  It is read anew for every
 * answer, by its primary key: a microsecond or two buys that a change by
 * es_create_aggregate(), by hand or by a restore is never missed.
 */
#include "state/state.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "read/upcast.h"

/* columns of aggregates */
#define ATT_REDUCER			2
#define ATT_INITIAL			3
#define ATT_SNAPSHOT_EVERY	4

#define TRIGGER_PREFIX		"eventsrc_snapshot_"

PG_FUNCTION_INFO_V1(es_create_aggregate);

static text *read_registration(EsStore *store, text *aggregate_type,
							   Snapshot snapshot, EsAggregate *aggregate);
static void check_owner(EsStore *store);
static void write_registration(const char *schema, Datum aggregate_type,
							   Oid reducer, Jsonb *initial, int snapshot_every);
static void replace_trigger(const char *schema, Oid events,
							const char *aggregate_type, int snapshot_every);
static bool trigger_exists(Oid events, const char *name,
						   const char *aggregate_type, int snapshot_every);
static char *trigger_name(const char *aggregate_type);
static void run_utility(const char *command);

/*
 * es_aggregate_load finds what is registered for an aggregate type, else the
 * defaults, and checks that the reducer can serve.
 */
void
es_aggregate_load(EsStore *store, text *aggregate_type, Snapshot snapshot,
				  EsAggregate *aggregate)
{
	text	   *reducer = read_registration(store, aggregate_type, snapshot, aggregate);

	if (reducer)
		aggregate->reducer = es_reducer_find(reducer);
	aggregate->identity = es_aggregate_identity(store, aggregate);
}

/*
 * es_aggregate_scratch is es_aggregate_load with another reducer (InvalidOid:
 * the built-in merge) and, unless it is NULL, another initial state.
 */
void
es_aggregate_scratch(EsStore *store, text *aggregate_type, Snapshot snapshot,
					 Oid reducer, Jsonb *initial, EsAggregate *aggregate)
{
	(void) read_registration(store, aggregate_type, snapshot, aggregate);
	if (OidIsValid(reducer))
		es_reducer_check(reducer);
	aggregate->reducer = reducer;
	if (initial)
		aggregate->initial = initial;
	aggregate->identity = es_aggregate_identity(store, aggregate);
}

/*
 * read_registration reads what is registered for an aggregate type, and returns
 * the reducer's name, or NULL.
 */
static text *
read_registration(EsStore *store, text *aggregate_type, Snapshot snapshot,
				  EsAggregate *aggregate)
{
	EsLookup	lookup;
	HeapTuple	tuple;
	text	   *name = NULL;

	aggregate->reducer = InvalidOid;
	aggregate->initial = NULL;
	aggregate->snapshot_every = ES_SNAPSHOT_EVERY;

	es_lookup_open(&lookup, store->aggregates);
	es_lookup_text(&lookup, aggregate_type);
	tuple = es_lookup_last(&lookup, snapshot);
	if (tuple)
	{
		Datum		reducer = es_lookup_value(&lookup, tuple, ATT_REDUCER);

		if (reducer != (Datum) 0)
			name = DatumGetTextPCopy(reducer);
		aggregate->initial =
			DatumGetJsonbPCopy(es_lookup_value(&lookup, tuple, ATT_INITIAL));
		aggregate->snapshot_every =
			DatumGetInt32(es_lookup_value(&lookup, tuple, ATT_SNAPSHOT_EVERY));
	}
	es_lookup_close(&lookup);

	if (aggregate->initial == NULL)
		aggregate->initial =
			DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	return name;
}

/*
 * es_aggregate_identity returns the identity of an aggregate type's reducer,
 * initial state and the store's upcasters, as they are now.
 */
const char *
es_aggregate_identity(EsStore *store, const EsAggregate *aggregate)
{
	const char *reducer = es_reducer_identity(aggregate->reducer, aggregate->initial);
	const char *upcasters = es_upcasters_identity(store);

	return upcasters ? psprintf("%s+%s", reducer, upcasters) : reducer;
}

/*
 * es_create_aggregate registers an aggregate type's reducer, initial state and
 * snapshots, or replaces what was registered.
 */
Datum
es_create_aggregate(PG_FUNCTION_ARGS)
{
	EsStore    *store;
	Oid			reducer = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	Jsonb	   *initial;
	int			snapshot_every;
	char	   *schema;
	Oid			events;
	int			nestlevel;

	PreventCommandIfReadOnly("es_create_aggregate()");
	if (PG_ARGISNULL(0) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("aggregate_type must not be NULL or empty"),
				 errhint("Name the type, such as 'Order'.")));
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("initial must not be NULL"),
				 errhint("Use '{}' to start from an empty object.")));
	if (PG_ARGISNULL(3) || PG_GETARG_INT32(3) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("snapshot_every must be 0 or more"),
				 PG_ARGISNULL(3) ? 0 :
				 errdetail("snapshot_every=%d", PG_GETARG_INT32(3)),
				 errhint("0 takes no snapshots.")));
	initial = PG_GETARG_JSONB_P(2);
	snapshot_every = PG_GETARG_INT32(3);

	if (OidIsValid(reducer))
		es_reducer_check(reducer);
	else if (!JB_ROOT_IS_OBJECT(initial))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("initial must be a JSON object"),
				 errdetail("Without a reducer the events' data is merged into the initial state."),
				 errhint("Give an object, or a reducer that handles another kind of state.")));

	store = es_store_open(es_store_name_arg(fcinfo, 4), AccessShareLock);
	check_owner(store);
	schema = get_namespace_name(store->schema);
	events = store->events;

	/* one such change at a time; appends and reads go on */
	LockRelationOid(events, ShareUpdateExclusiveLock);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	write_registration(schema, PG_GETARG_DATUM(0), reducer, initial,
					   snapshot_every);
	replace_trigger(schema, events, text_to_cstring(PG_GETARG_TEXT_PP(0)),
					snapshot_every);
	AtEOXact_GUC(true, nestlevel);
	SPI_finish();

	CacheInvalidateRelcacheByRelid(events);
	PG_RETURN_VOID();
}

/*
 * check_owner raises 42501 unless the current user owns the store.
 */
static void
check_owner(EsStore *store)
{
	if (!es_class_ownercheck(store->events, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
					   get_rel_name(store->events));
}

/*
 * write_registration writes the row of the registry.
 */
static void
write_registration(const char *schema, Datum aggregate_type, Oid reducer,
				   Jsonb *initial, int snapshot_every)
{
	Oid			types[4] = {TEXTOID, TEXTOID, JSONBOID, INT4OID};
	Datum		values[4];
	char		nulls[4] = {' ', ' ', ' ', ' '};
	StringInfoData command;

	values[0] = aggregate_type;
	values[1] = (Datum) 0;
	values[2] = JsonbPGetDatum(initial);
	values[3] = Int32GetDatum(snapshot_every);
	if (OidIsValid(reducer))
		values[1] = CStringGetTextDatum(es_reducer_name(reducer));
	else
		nulls[1] = 'n';

	initStringInfo(&command);
	appendStringInfo(&command,
					 "INSERT INTO %s.aggregates (aggregate_type, reducer, initial, snapshot_every)"
					 " VALUES ($1, $2, $3, $4)"
					 " ON CONFLICT (aggregate_type) DO UPDATE SET reducer = excluded.reducer,"
					 " initial = excluded.initial, snapshot_every = excluded.snapshot_every",
					 quote_identifier(schema));
	if (SPI_execute_with_args(command.data, 4, types, values, nulls, false, 0)
		!= SPI_OK_INSERT)
		elog(ERROR, "could not write table aggregates");
}

/*
 * replace_trigger makes the trigger that takes a type's snapshots, or drops
 * it where the store's own (every 100 events) or none serves.  Nothing is
 * locked against appends if it is already as it should be.
 */
static void
replace_trigger(const char *schema, Oid events, const char *aggregate_type,
				int snapshot_every)
{
	char	   *name = trigger_name(aggregate_type);
	const char *table = quote_qualified_identifier(schema,
												   get_rel_name(events));
	bool		wanted = snapshot_every != 0 &&
		snapshot_every != ES_SNAPSHOT_EVERY;

	if (wanted && !trigger_exists(events, name, aggregate_type, snapshot_every))
	{
		char	   *literal = quote_literal_cstr(aggregate_type);

		run_utility(psprintf("CREATE OR REPLACE TRIGGER %s AFTER INSERT ON %s"
							 " FOR EACH ROW WHEN (NEW.aggregate_type = %s AND NEW.version %% %d = 0)"
							 " EXECUTE FUNCTION %s.snapshot_trigger(%s, '%d')",
							 quote_identifier(name), table, literal,
							 snapshot_every, ES_PRIVATE_SCHEMA, literal,
							 snapshot_every));
	}
	else if (!wanted && OidIsValid(get_trigger_oid(events, name, true)))
		run_utility(psprintf("DROP TRIGGER %s ON %s",
							 quote_identifier(name), table));
}

/*
 * trigger_exists tells whether events has a trigger of that name that takes
 * the type's snapshots as often as is wanted.
 */
static bool
trigger_exists(Oid events, const char *name, const char *aggregate_type,
			   int snapshot_every)
{
	Relation	rel = table_open(events, NoLock);
	bool		found = false;

	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, name) == 0 && trigger->tgnargs == 2 &&
			strcmp(trigger->tgargs[0], aggregate_type) == 0 &&
			strcmp(trigger->tgargs[1], psprintf("%d", snapshot_every)) == 0)
			found = true;
	}
	table_close(rel, NoLock);
	return found;
}

/*
 * trigger_name names a type's own trigger; the names of long types are cut and
 * told apart by a hash.
 */
static char *
trigger_name(const char *aggregate_type)
{
	int			room = NAMEDATALEN - 1 - strlen(TRIGGER_PREFIX);
	int			length = strlen(aggregate_type);

	if (length <= room)
		return psprintf("%s%s", TRIGGER_PREFIX, aggregate_type);
	return psprintf("%s%.*s_%08x", TRIGGER_PREFIX,
					pg_mbcliplen(aggregate_type, length, room - 9),
					aggregate_type,
					hash_bytes((const unsigned char *) aggregate_type, length));
}

/*
 * run_utility runs a command of DDL.
 */
static void
run_utility(const char *command)
{
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run \"%s\"", command);
}
