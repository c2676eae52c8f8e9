/*
 * functions.c
 *		es_create_relay(), es_drop_relay(), es_pause_relay(), es_resume_relay(),
 *		and what the functions that change relays share.
 */
#include "relay/content.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/htup_details.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "store/position.h"
#include "store/store.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(es_create_relay);
PG_FUNCTION_INFO_V1(es_drop_relay);
PG_FUNCTION_INFO_V1(es_pause_relay);
PG_FUNCTION_INFO_V1(es_resume_relay);

static char *server_names(void);

/*
 * es_create_relay makes a relay; its worker starts when the transaction
 * commits.
 */
Datum
es_create_relay(PG_FUNCTION_ARGS)
{
	EsRelay		relay = {0};
	const EsBrokerType *type;
	EsStore    *store;

	namestrcpy(&relay.name, es_relay_name_argument(fcinfo, 0, "name"));
	namestrcpy(&relay.server, es_relay_name_argument(fcinfo, 1, "server"));
	PreventCommandIfReadOnly("es_create_relay()");

	relay.topic = es_relay_topic_argument(fcinfo, 2);
	type = es_relay_check_server(NameStr(relay.server));
	type->check_topic(relay.topic);
	relay.position = PG_ARGISNULL(3) ? es_position_safe() :
		es_relay_check_position(PG_GETARG_INT64(3), "from_position");
	if (!PG_ARGISNULL(4))
	{
		relay.to_position = PG_GETARG_INT64(4);
		if (relay.to_position <= relay.position)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("to_position must be greater than from_position"),
					 errhint("Leave it NULL for a relay that never ends.")));
	}
	if (PG_ARGISNULL(5))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("options must not be null"),
				 errhint("Leave them out, or pass '{}'.")));
	relay.options = PG_GETARG_JSONB_P(5);

	store = es_store_open(es_store_name_arg(fcinfo, 6), AccessShareLock);
	es_store_check_acl(store, ACL_SELECT);
	relay.store = store->name;
	relay.owner = GetUserId();
	relay.options = es_content_merge(relay.options, relay.options);
	relay.content = es_content_parse(&relay.options, type, true);
	relay.delivery = es_relay_delivery(relay.content, type);

	es_relay_add(&relay);
	PG_RETURN_VOID();
}

/*
 * es_drop_relay removes a relay; its worker ends when the transaction commits.
 */
Datum
es_drop_relay(PG_FUNCTION_ARGS)
{
	es_relay_delete(es_relay_own(fcinfo, "es_drop_relay()")->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_pause_relay has a relay stop until it is resumed.
 */
Datum
es_pause_relay(PG_FUNCTION_ARGS)
{
	es_relay_pause(es_relay_own(fcinfo, "es_pause_relay()")->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_resume_relay has a relay run: one that is paused, one that came with a
 * copy of its database, or, at once, one that waits for its next attempt.
 */
Datum
es_resume_relay(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = es_relay_own(fcinfo, "es_resume_relay()");

	es_relay_resume(relay->id);
	es_lanes_tell(relay->id);
	es_lanes_nudge(relay->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_relay_name_argument returns an argument of type name, neither null nor empty.
 */
char *
es_relay_name_argument(FunctionCallInfo fcinfo, int argno, const char *what)
{
	char	   *name;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be null", what)));
	name = NameStr(*PG_GETARG_NAME(argno));
	if (*name == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be empty", what)));
	return name;
}

/*
 * es_relay_check_server raises an error unless the current user may send to a server,
 * and returns its broker type.
 */
const EsBrokerType *
es_relay_check_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ForeignDataWrapper *wrapper;
	const EsBrokerType *type;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("server \"%s\" does not exist", name),
				 errdetail_internal("%s", server_names()),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', \"bootstrap.servers\" 'host:9092');")));

	wrapper = GetForeignDataWrapper(server->fdwid);
	if (strcmp(wrapper->fdwname, "eventsrc") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("server \"%s\" is not a broker", name),
				 errdetail("It belongs to the foreign-data wrapper \"%s\".", wrapper->fdwname),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', \"bootstrap.servers\" 'host:9092');")));

	if (es_server_aclcheck(server->serverid, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", name),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s;",
						 quote_identifier(name),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));

	type = es_server_type(server->options);
	if (type == NULL)
		elog(ERROR, "server \"%s\" has no broker type", name);
	return type;
}

/*
 * server_names says which servers there are to choose from.
 */
static char *
server_names(void)
{
	Relation	servers = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(servers, InvalidOid, false, NULL, 0, NULL);
	StringInfoData names;
	HeapTuple	row;

	initStringInfo(&names);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(row);

		if (strcmp(GetForeignDataWrapper(server->srvfdw)->fdwname, "eventsrc") == 0)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "The servers are: ",
							 quote_identifier(NameStr(server->srvname)));
	}
	systable_endscan(scan);
	table_close(servers, AccessShareLock);

	if (names.len == 0)
		return "There is no server of the foreign-data wrapper eventsrc yet.";
	appendStringInfoChar(&names, '.');
	return names.data;
}

/*
 * es_relay_topic_argument returns an argument that is a topic's template.
 */
char *
es_relay_topic_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("topic must not be null"),
				 errhint("For example '{store}.{aggregate_type}'.")));
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * es_relay_check_position raises an error unless a relay can begin after a
 * position, and returns it.
 */
int64
es_relay_check_position(int64 position, const char *what)
{
	int64		head;

	if (position < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be negative", what),
				 errhint("0 sends everything from the beginning, NULL what comes from now on.")));
	head = es_position_head();
	if (position > head)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NO_SUCH_VERSION),
				 errmsg("position " INT64_FORMAT " does not exist yet", position),
				 errdetail("The highest position is " INT64_FORMAT ".", head),
				 errhint("0 sends everything from the beginning, NULL what comes from now on.")));
	return position;
}

/*
 * es_relay_delivery returns how a relay delivers: as its options say, else as
 * well as its broker can.
 */
const char *
es_relay_delivery(const EsContent *content, const EsBrokerType *type)
{
	if (content->delivery != NULL)
		return content->delivery;
	return type->exactly_once ? "exactly_once" : "at_least_once";
}

/*
 * es_relay_add inserts a relay and has its worker started.
 */
void
es_relay_add(const EsRelay *relay)
{
	if (!es_relay_insert(relay))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("relay \"%s\" already exists", NameStr(relay->name)),
				 errhint("Choose another name, or drop it with es_drop_relay().")));
	es_worker_wake_at_commit();
}

/*
 * es_relay_own finds the relay that the first argument names and raises an error
 * unless the user may change it.
 */
EsRelay *
es_relay_own(FunctionCallInfo fcinfo, const char *function)
{
	char	   *name = es_relay_name_argument(fcinfo, 0, "name");
	EsRelay    *relay;

	PreventCommandIfReadOnly(function);
	relay = es_relay_find(name);
	if (relay == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("relay \"%s\" does not exist", name),
				 errhint("The view es_relays lists them.")));
	if (!has_privs_of_role(GetUserId(), relay->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of relay %s", name)));
	return relay;
}
