/*
 * options.c
 *		Foreign servers as brokers: the validator of CREATE SERVER and CREATE
 *		USER MAPPING, and the broker types.
 */
#include "relay/relay.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

/* longer names are not compared */
#define LONGEST_NAME	255

static const EsBrokerType *const broker_types[] = {&es_kafka_broker, &es_rabbitmq_broker};

PG_FUNCTION_INFO_V1(es_server_options_validator);

static void check_server(List *options);
static void check_user_mapping(List *options);
static const EsBrokerType *find_broker_type(const char *name);
static const char *list_broker_types(void);

/*
 * es_server_options_validator checks the options of a foreign server or user
 * mapping; nothing else of the foreign-data machinery takes options here.
 */
Datum
es_server_options_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);

	if (catalog == ForeignServerRelationId)
		check_server(options);
	else if (catalog == UserMappingRelationId)
		check_user_mapping(options);
	else if (catalog != ForeignDataWrapperRelationId)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign-data wrapper eventsrc has no foreign tables"),
				 errdetail("Its servers are the brokers that relays send to."),
				 errhint("Use es_create_relay().")));
	else if (options != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("foreign-data wrapper eventsrc has no options"),
				 errhint("Options belong on servers and user mappings.")));

	PG_RETURN_VOID();
}

/*
 * check_server checks the options of a server.
 */
static void
check_server(List *options)
{
	const EsBrokerType *type = es_server_type(options);
	ListCell   *cell;

	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"type\" is required"),
				 errdetail("It says what kind of broker the server is: %s.", list_broker_types()),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', \"bootstrap.servers\" 'host:9092');")));

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "type") != 0)
			type->check_option(option->defname, defGetString(option), true);
	}
	type->check_server(options);
}

/*
 * check_user_mapping checks the options of a user mapping.  The validator is
 * not told of which server, so that each must be good for some broker type.
 */
static void
check_user_mapping(List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (es_rabbitmq_claims_option(option->defname))
			es_rabbitmq_broker.check_option(option->defname, defGetString(option), false);
		else
			es_kafka_broker.check_option(option->defname, defGetString(option), false);
	}
}

/*
 * es_server_type returns the broker type that a server's options name, NULL if
 * they name none; raises an error for an unknown one.
 */
const EsBrokerType *
es_server_type(List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);
		const EsBrokerType *type;

		if (strcmp(option->defname, "type") != 0)
			continue;
		type = find_broker_type(defGetString(option));
		if (type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("unknown broker type \"%s\"", defGetString(option)),
					 errhint("The broker types are: %s.", list_broker_types())));
		return type;
	}
	return NULL;
}

/*
 * find_broker_type finds a broker type by name.
 */
static const EsBrokerType *
find_broker_type(const char *name)
{
	for (int i = 0; i < lengthof(broker_types); i++)
	{
		if (strcmp(broker_types[i]->name, name) == 0)
			return broker_types[i];
	}
	return NULL;
}

/*
 * list_broker_types lists the broker types.
 */
static const char *
list_broker_types(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(broker_types); i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", broker_types[i]->name);
	return names.data;
}

/*
 * es_closest_name returns the one of names that is most like name, or NULL if
 * none is near.
 */
char *
es_closest_name(const char *name, List *names)
{
	char	   *closest = NULL;
	int			length = strlen(name);
	int			best = Min(length / 2, 6);
	ListCell   *cell;

	if (length > LONGEST_NAME)
		return NULL;
	foreach(cell, names)
	{
		char	   *candidate = lfirst(cell);
		int			distance;

		if (strlen(candidate) > LONGEST_NAME)
			continue;
		distance = varstr_levenshtein_less_equal(name, length,
												 candidate, strlen(candidate),
												 1, 1, 1, best, true);
		if (distance <= best)
		{
			/* from now on only those that are nearer */
			closest = candidate;
			best = distance - 1;
			if (best < 0)
				break;
		}
	}
	return closest;
}

/*
 * es_broker_error writes down what went wrong with a broker.
 */
void
es_broker_error(EsBroker *broker, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(broker->error, sizeof(broker->error), format, args);
	va_end(args);
	broker->errors++;
}

/*
 * es_broker_reject writes down that a broker refuses an event for good.
 */
void
es_broker_reject(EsBroker *broker, int64 position, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(broker->reject_reason, sizeof(broker->reject_reason), format, args);
	va_end(args);
	broker->rejected = position;
}
