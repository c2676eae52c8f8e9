/*
 * catalog.c
 *		The table eventsrc.relays, and what a relay's row names.
 *
 * The table is private: it is read and written with the rights of the
 * extension, after the functions of functions.c have checked the user's.
 */
#include "relay/content.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "store/position.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define COLUMNS	"r.id, r.name, r.store, r.server, r.topic, r.owner::pg_catalog.oid, l.position, r.paused, " \
				"r.system_identifier, r.database, l.epoch, r.delivery, coalesce(r.to_position, 0), " \
				"coalesce(r.retry_of, 0), r.options, l.lane, r.lanes, coalesce(l.halted_at, -1), " \
				"coalesce(r.turn_position, -1)"

/* a row for each lane */
#define LANES	"eventsrc.relays r CROSS JOIN LATERAL (" \
				"SELECT 0 AS lane, r.position, r.epoch, r.halted_at UNION ALL " \
				"SELECT n.lane, n.position, n.epoch, n.halted_at FROM eventsrc.relay_lanes n WHERE n.relay = r.id) l"

static EsRelay *load_lane(int64 id, int lane, bool read_only, MemoryContext context);
static EsRelay *relay_of_row(HeapTuple row, TupleDesc desc, MemoryContext context);
static Datum row_value(HeapTuple row, TupleDesc desc, int column);
static List *user_mapping_options(Oid user, Oid server);

/*
 * es_relay_list reads all lanes of all relays, by name and number.
 */
List *
es_relay_list(MemoryContext context)
{
	List	   *relays = NIL;

	SPI_connect();
	es_relay_execute("SELECT " COLUMNS " FROM " LANES " ORDER BY r.name, l.lane", 0, NULL, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		EsRelay    *relay = relay_of_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, context);
		MemoryContext before = MemoryContextSwitchTo(context);

		relays = lappend(relays, relay);
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
	return relays;
}

/*
 * es_relay_load reads one lane of a relay, NULL if there is none.
 */
EsRelay *
es_relay_load(int64 id, int lane, MemoryContext context)
{
	EsRelay    *relay;

	SPI_connect();
	relay = load_lane(id, lane, true, context);
	SPI_finish();
	return relay;
}

/*
 * es_relay_find finds a relay by name, locks its row and reads it and its first
 * lane, NULL if there is none.
 */
EsRelay *
es_relay_find(const char *name)
{
	Oid			types[] = {NAMEOID};
	Datum		values[] = {CStringGetDatum(name)};
	EsRelay    *relay = NULL;
	MemoryContext context = CurrentMemoryContext;

	SPI_connect();
	if (es_relay_execute("SELECT id FROM eventsrc.relays WHERE name = $1 FOR UPDATE",
						 1, types, values, false) > 0)
		relay = load_lane(DatumGetInt64(row_value(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
						  0, false, context);
	SPI_finish();
	return relay;
}

/*
 * es_relay_lock locks a relay's row to the end of the transaction.
 */
void
es_relay_lock(int64 id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};

	SPI_connect();
	es_relay_execute("SELECT FROM eventsrc.relays WHERE id = $1 FOR UPDATE", 1, types, values, false);
	SPI_finish();
}

/*
 * es_relay_insert makes a relay of the current user; false if the name is
 * taken.
 */
bool
es_relay_insert(const EsRelay *relay)
{
	Oid			types[] = {NAMEOID, NAMEOID, TEXTOID, INT8OID, NAMEOID, OIDOID, INT8OID, OIDOID,
	TEXTOID, INT8OID, INT8OID, JSONBOID, INT4OID};
	Datum		values[13];
	bool		inserted;

	values[0] = NameGetDatum(&relay->name);
	values[1] = NameGetDatum(&relay->server);
	values[2] = CStringGetTextDatum(relay->topic);
	values[3] = Int64GetDatum(relay->position);
	values[4] = NameGetDatum(&relay->store);
	values[5] = ObjectIdGetDatum(relay->owner);
	values[6] = Int64GetDatum((int64) GetSystemIdentifier());
	values[7] = ObjectIdGetDatum(MyDatabaseId);
	values[8] = CStringGetTextDatum(relay->delivery);
	values[9] = Int64GetDatum(relay->to_position);
	values[10] = Int64GetDatum(relay->retry_of);
	values[11] = JsonbPGetDatum(relay->options);
	values[12] = Int32GetDatum(relay->content->lanes);

	SPI_connect();
	inserted = es_relay_execute("INSERT INTO eventsrc.relays (name, server, topic, position, store, owner,"
								" system_identifier, database, delivery, to_position, retry_of, options, lanes)"
								" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, 0), nullif($11, 0), $12, $13)"
								" ON CONFLICT (name) DO NOTHING",
								13, types, values, false) > 0;
	if (inserted)
		es_relay_execute("INSERT INTO eventsrc.relay_lanes (relay, lane, position, epoch)"
						 " SELECT r.id, n, r.position, r.epoch"
						 " FROM eventsrc.relays r, generate_series(1, r.lanes - 1) n WHERE r.name = $1",
						 1, types, values, false);
	SPI_finish();
	return inserted;
}

/*
 * es_relay_alter changes what a relay sends, and where; its workers are told at
 * commit.  Who wants as many lanes as there are takes back what was asked for
 * before.
 */
void
es_relay_alter(const EsRelay *relay)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, JSONBOID};
	Datum		values[4];

	values[0] = Int64GetDatum(relay->id);
	values[1] = CStringGetTextDatum(relay->topic);
	values[2] = CStringGetTextDatum(relay->delivery);
	values[3] = JsonbPGetDatum(relay->options);

	SPI_connect();
	es_relay_execute("UPDATE eventsrc.relays SET topic = $2, delivery = $3, options = $4 WHERE id = $1",
					 4, types, values, false);
	if (!es_lanes_change(relay))
		es_lanes_set_off(relay->id);
	SPI_finish();
	es_relay_tell_workers();
}

/*
 * es_relay_seek sets where all lanes of a relay go on; their workers are told
 * at commit, and what was found to be undeliverable after that position gets a
 * new chance.
 */
void
es_relay_seek(int64 id, int64 position)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(id), Int64GetDatum(position)};

	SPI_connect();
	es_relay_execute("UPDATE eventsrc.relays SET position = $2, epoch = greatest(epoch + 1,"
					 " (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) WHERE id = $1",
					 2, types, values, false);
	es_relay_execute("UPDATE eventsrc.relay_lanes l SET position = $2, epoch = r.epoch"
					 " FROM eventsrc.relays r WHERE r.id = $1 AND l.relay = $1",
					 2, types, values, false);
	es_relay_execute("DELETE FROM eventsrc.relay_dead_letters WHERE relay = $1 AND position > $2",
					 2, types, values, false);
	es_lanes_set_off(id);
	SPI_finish();
	es_relay_tell_workers();
}

/*
 * es_relay_finish notes that a lane of a relay has come to its end.  A relay that sent a dead
 * letter once more is gone then, with the dead letter.
 */
void
es_relay_finish(const EsRelay *relay)
{
	if (relay->retry_of == 0)
		(void) es_relay_save_position(relay->id, relay->lane, relay->epoch, relay->to_position);
	else
	{
		es_dead_letter_delete(relay->retry_of, relay->to_position);
		es_relay_delete(relay->id);
	}
}

/*
 * es_relay_delete removes a relay.
 */
void
es_relay_delete(int64 id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};

	SPI_connect();
	es_relay_execute("DELETE FROM eventsrc.relays WHERE id = $1", 1, types, values, false);
	SPI_finish();
}

/*
 * es_relay_pause marks a relay as paused.
 */
void
es_relay_pause(int64 id)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};

	SPI_connect();
	es_relay_execute("UPDATE eventsrc.relays SET paused = true WHERE id = $1", 1, types, values, false);
	SPI_finish();
}

/*
 * es_relay_resume marks a relay as one that is to run, in this database.
 */
void
es_relay_resume(int64 id)
{
	Oid			types[] = {INT8OID, INT8OID, OIDOID, INT8OID};
	Datum		values[4];

	values[0] = Int64GetDatum(id);
	values[1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	values[3] = Int64GetDatum(es_position_head());

	/* in a copy, positions that held no events are given out once more */
	SPI_connect();
	es_relay_execute("UPDATE eventsrc.relays SET paused = false, system_identifier = $2, database = $3,"
					 " position = least(position, $4) WHERE id = $1", 4, types, values, false);
	values[1] = values[3];
	es_relay_execute("UPDATE eventsrc.relay_lanes SET position = least(position, $2) WHERE relay = $1",
					 2, types, values, false);

	/* where lanes stood before a change may be elsewhere now */
	es_lanes_set_off(id);
	SPI_finish();
	es_relay_tell_workers();
}

/*
 * es_relay_save_position stores how far a lane of a relay has come; false if it
 * is gone, or its position was set by somebody else.
 */
bool
es_relay_save_position(int64 id, int lane, int64 epoch, int64 position)
{
	Oid			types[] = {INT8OID, INT8OID, INT8OID, INT4OID};
	Datum		values[4];
	bool		found;

	values[0] = Int64GetDatum(id);
	values[1] = Int64GetDatum(position);
	values[2] = Int64GetDatum(epoch);
	values[3] = Int32GetDatum(lane);

	SPI_connect();
	if (lane == 0)
		found = es_relay_execute("UPDATE eventsrc.relays SET position = $2 WHERE id = $1 AND epoch = $3",
								 3, types, values, false) > 0;
	else
		found = es_relay_execute("UPDATE eventsrc.relay_lanes SET position = $2"
								 " WHERE relay = $1 AND epoch = $3 AND lane = $4",
								 4, types, values, false) > 0;
	SPI_finish();
	return found;
}

/*
 * es_relay_runnable tells whether a lane of a relay is to have a worker: one
 * that has nothing more to send takes part in a change of their number.
 */
bool
es_relay_runnable(EsRelay *relay)
{
	return !relay->paused && relay->local &&
		(!es_relay_finished(relay) || es_lanes_change(relay));
}

/*
 * es_relay_finished tells whether a lane of a relay has sent all that it was to
 * send.
 */
bool
es_relay_finished(const EsRelay *relay)
{
	return relay->to_position > 0 && relay->position >= relay->to_position;
}

/*
 * es_relay_problem says what keeps a relay from running that only people can
 * put right, or returns NULL.
 */
char *
es_relay_problem(EsRelay *relay)
{
	ForeignServer *server;
	char	   *problem;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(relay->owner)))
		return pstrdup("the relay's owner is gone: drop the relay");

	server = GetForeignServerByName(NameStr(relay->server), true);
	if (server == NULL)
		return psprintf("server \"%s\" is gone: create it again or drop the relay",
						NameStr(relay->server));
	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "eventsrc") != 0)
		return psprintf("server \"%s\" is not of the foreign-data wrapper eventsrc",
						NameStr(relay->server));
	if (es_server_aclcheck(server->serverid, relay->owner, ACL_USAGE) != ACLCHECK_OK)
		return psprintf("the relay's owner \"%s\" lacks USAGE on server \"%s\"",
						GetUserNameFromId(relay->owner, true), NameStr(relay->server));

	problem = es_relay_store_problem(relay);
	if (problem == NULL)
		problem = es_select_problem(relay->content, relay->owner);
	return problem ? problem : es_standby_problem(relay->content);
}

/*
 * es_relay_store_problem says what keeps a relay's owner from reading the
 * store, or returns NULL.
 */
char *
es_relay_store_problem(EsRelay *relay)
{
	const char *store = NameStr(relay->store);
	Oid			schema = get_namespace_oid(store, true);
	Oid			events;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(relay->owner)))
		return pstrdup("the relay's owner is gone: drop the relay");

	events = OidIsValid(schema) ? get_relname_relid("events", schema) : InvalidOid;
	if (!OidIsValid(events))
		return psprintf("store \"%s\" is gone: rename it back, create it again or drop the relay", store);
	if (es_schema_aclcheck(schema, relay->owner, ACL_USAGE) != ACLCHECK_OK ||
		pg_class_aclcheck(events, relay->owner, ACL_SELECT) != ACLCHECK_OK)
		return psprintf("the relay's owner \"%s\" may not read the events of store \"%s\"",
						GetUserNameFromId(relay->owner, true), store);
	return NULL;
}

/*
 * es_relay_options returns the broker type and sets options to those of the
 * server and of the owner's user mapping; the relay has no problem.
 */
const EsBrokerType *
es_relay_options(EsRelay *relay, List **options)
{
	ForeignServer *server = GetForeignServerByName(NameStr(relay->server), false);

	*options = list_concat_copy(server->options,
								user_mapping_options(relay->owner, server->serverid));
	return es_server_type(server->options);
}

/*
 * es_relay_execute runs a statement through SPI with the extension's rights and
 * a safe search_path, and returns the number of rows.
 */
uint64
es_relay_execute(const char *query, int nargs, Oid *types, Datum *values, bool read_only)
{
	Oid			user;
	int			context;
	int			nest_level;
	int			result;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	result = SPI_execute_with_args(query, nargs, types, values, NULL, read_only, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", query, SPI_result_code_string(result));

	AtEOXact_GUC(true, nest_level);
	SetUserIdAndSecContext(user, context);
	return SPI_processed;
}

/*
 * es_relay_tell_workers has the workers of relays look at the table again, once
 * the transaction commits.
 */
void
es_relay_tell_workers(void)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("relays", es_private_schema()));
}

/*
 * load_lane reads one lane of a relay through SPI, NULL if there is none.
 */
static EsRelay *
load_lane(int64 id, int lane, bool read_only, MemoryContext context)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(id), Int32GetDatum(lane)};

	if (es_relay_execute("SELECT " COLUMNS " FROM " LANES " WHERE r.id = $1 AND l.lane = $2",
						 2, types, values, read_only) == 0)
		return NULL;
	return relay_of_row(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, context);
}

/*
 * relay_of_row makes an EsRelay of a row with COLUMNS.
 */
static EsRelay *
relay_of_row(HeapTuple row, TupleDesc desc, MemoryContext context)
{
	EsRelay    *relay = MemoryContextAllocZero(context, sizeof(EsRelay));
	char	   *topic = TextDatumGetCString(row_value(row, desc, 5));
	char	   *delivery = TextDatumGetCString(row_value(row, desc, 12));
	MemoryContext before;

	relay->id = DatumGetInt64(row_value(row, desc, 1));
	namestrcpy(&relay->name, NameStr(*DatumGetName(row_value(row, desc, 2))));
	namestrcpy(&relay->store, NameStr(*DatumGetName(row_value(row, desc, 3))));
	namestrcpy(&relay->server, NameStr(*DatumGetName(row_value(row, desc, 4))));
	relay->topic = MemoryContextStrdup(context, topic);
	relay->owner = DatumGetObjectId(row_value(row, desc, 6));
	relay->position = DatumGetInt64(row_value(row, desc, 7));
	relay->paused = DatumGetBool(row_value(row, desc, 8));
	relay->local =
		DatumGetInt64(row_value(row, desc, 9)) == (int64) GetSystemIdentifier() &&
		DatumGetObjectId(row_value(row, desc, 10)) == MyDatabaseId;
	relay->epoch = DatumGetInt64(row_value(row, desc, 11));
	relay->delivery = MemoryContextStrdup(context, delivery);
	relay->to_position = DatumGetInt64(row_value(row, desc, 13));
	relay->retry_of = DatumGetInt64(row_value(row, desc, 14));
	relay->lane = DatumGetInt32(row_value(row, desc, 16));
	relay->lanes = DatumGetInt32(row_value(row, desc, 17));
	relay->halted_at = DatumGetInt64(row_value(row, desc, 18));
	relay->turn_position = DatumGetInt64(row_value(row, desc, 19));

	before = MemoryContextSwitchTo(context);
	relay->label = relay->lanes == 1 ? psprintf("\"%s\"", NameStr(relay->name)) :
		psprintf("\"%s\", lane %d,", NameStr(relay->name), relay->lane);
	relay->options = DatumGetJsonbPCopy(row_value(row, desc, 15));
	relay->content = es_content_parse(&relay->options, NULL, false);
	MemoryContextSwitchTo(before);
	return relay;
}

/*
 * row_value returns a column, none of which can be null.
 */
static Datum
row_value(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	if (isnull)
		elog(ERROR, "column %d of eventsrc.relays is null", column);
	return value;
}

/*
 * user_mapping_options returns the options of a user's mapping, or of PUBLIC's,
 * or none: a mapping is not required.
 */
static List *
user_mapping_options(Oid user, Oid server)
{
	HeapTuple	mapping;
	List	   *options = NIL;
	Datum		value;
	bool		isnull;

	mapping = SearchSysCache2(USERMAPPINGUSERSERVER,
							  ObjectIdGetDatum(user), ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(mapping))
		mapping = SearchSysCache2(USERMAPPINGUSERSERVER,
								  ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(mapping))
		return NIL;

	value = SysCacheGetAttr(USERMAPPINGUSERSERVER, mapping,
							Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		options = untransformRelOptions(value);
	ReleaseSysCache(mapping);
	return options;
}
