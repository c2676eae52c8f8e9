/*
 * rabbitmq_options.c
 *		The options of foreign servers and user mappings of type "rabbitmq".
 *
 * Credentials belong in user mappings, which only their user and the server's
 * owner see.  What makes the server process read a file needs the privilege
 * that COPY asks for the same.
 */
#include "relay/rabbitmq.h"

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "relay/relay.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#define PORT		5672
#define PORT_TLS	5671

typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_NAME,				/* at most ES_RABBITMQ_NAME bytes */
	OPTION_NUMBER,
	OPTION_BOOLEAN,
	OPTION_CHOICE,
	OPTION_FILE,
	OPTION_HOSTS,
	OPTION_QUEUES
} OptionKind;

typedef enum OptionPlace
{
	ON_SERVER,
	ON_MAPPING,
	ON_EITHER
} OptionPlace;

typedef struct Option
{
	const char *name;
	OptionKind	kind;
	OptionPlace place;
	const char *initial;
	int			least;			/* of a number */
	int			most;
	const char *choices;		/* separated by commas and spaces */
} Option;

static const Option known[] =
{
	{"host", OPTION_HOSTS, ON_SERVER},
	{"port", OPTION_NUMBER, ON_SERVER, NULL, 1, 65535},
	{"vhost", OPTION_NAME, ON_SERVER, "/"},
	{"exchange", OPTION_NAME, ON_SERVER, ""},
	{"exchange_type", OPTION_NAME, ON_SERVER, "topic"},
	{"declare", OPTION_CHOICE, ON_SERVER, "none", 0, 0, "none, exchange, queues"},
	{"queues", OPTION_QUEUES, ON_SERVER},
	{"queue_type", OPTION_CHOICE, ON_SERVER, "quorum", 0, 0, "classic, quorum, stream"},
	{"window", OPTION_NUMBER, ON_SERVER, "1000", 1, ES_WINDOW_EVENTS},
	{"heartbeat", OPTION_NUMBER, ON_SERVER, "10", 1, 600},
	{"connect_timeout", OPTION_NUMBER, ON_SERVER, "5", 1, 60},
	{"fence", OPTION_BOOLEAN, ON_SERVER, "on"},
	{"tls", OPTION_BOOLEAN, ON_SERVER, "off"},
	{"tls_verify_peer", OPTION_BOOLEAN, ON_SERVER, "on"},
	{"tls_verify_hostname", OPTION_BOOLEAN, ON_SERVER, "on"},
	{"tls_ca", OPTION_FILE, ON_SERVER},
	{"tls_cert", OPTION_FILE, ON_EITHER},
	{"tls_key", OPTION_FILE, ON_EITHER},
	{"tls_key_password", OPTION_TEXT, ON_MAPPING},
	{"user", OPTION_NAME, ON_MAPPING, "guest"},
	{"password", OPTION_TEXT, ON_MAPPING, "guest"},
};

static const Option *find_option(const char *name);
static void check_place(const Option *option, bool on_server);
static void check_file(const Option *option);
static void check_number(const Option *option, const char *value);
static void check_choice(const Option *option, const char *value);
static void refuse_value(const char *name, const char *detail);
static char *closest_option(const char *name);
static List *split_list(const char *value);
static List *split_queues(const char *value);
static const char *value_of(List *options, const char *name);
static bool is_set(List *options, const char *name);
static bool boolean_of(List *options, const char *name);

/*
 * es_rabbitmq_check_option raises an error unless an option may be set there,
 * by this user, to this value.
 */
void
es_rabbitmq_check_option(const char *name, const char *value, bool on_server)
{
	const Option *option = find_option(name);
	bool		boolean;

	if (option == NULL)
	{
		char	   *closest = closest_option(name);

		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", name),
				 errdetail("Brokers of type rabbitmq have no such option."),
				 closest ?
				 errhint("Perhaps you meant the option \"%s\".", closest) :
				 errhint("The options are listed in eventsrc's README, under \"Send to RabbitMQ\".")));
	}
	check_place(option, on_server);
	switch (option->kind)
	{
		case OPTION_TEXT:
			break;
		case OPTION_NAME:
			if (strlen(value) > ES_RABBITMQ_NAME)
				refuse_value(name, psprintf("It has at most %d bytes.", ES_RABBITMQ_NAME));
			break;
		case OPTION_NUMBER:
			check_number(option, value);
			break;
		case OPTION_BOOLEAN:
			if (!parse_bool(value, &boolean))
				refuse_value(name, "It is \"on\" or \"off\".");
			break;
		case OPTION_CHOICE:
			check_choice(option, value);
			break;
		case OPTION_FILE:
			check_file(option);
			break;
		case OPTION_HOSTS:
			if (split_list(value) == NIL)
				refuse_value(name, "It names one or more hosts, separated by commas.");
			break;
		case OPTION_QUEUES:
			if (split_queues(value) == NIL)
				refuse_value(name, "It names one or more queues, separated by commas, each with \"=\" and a binding key if need be.");
			break;
	}
}

/*
 * es_rabbitmq_check_server raises an error if a server's options do not go
 * together.
 */
void
es_rabbitmq_check_server(List *options)
{
	const char *declare = value_of(options, "declare");

	if (!is_set(options, "host"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"host\" is required"),
				 errhint("Name the broker, for example OPTIONS (type 'rabbitmq', host 'localhost', exchange 'events').")));
	if (strcmp(declare, "exchange") == 0 && value_of(options, "exchange")[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"exchange\" is required when \"declare\" is \"exchange\""),
				 errdetail("RabbitMQ's default exchange is there without being declared.")));
	if ((strcmp(declare, "queues") == 0) != is_set(options, "queues"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("options \"queues\" and \"declare\" do not go together"),
				 errdetail("\"queues\" lists what is declared when \"declare\" is \"queues\".")));
	if (is_set(options, "tls_key") && !is_set(options, "tls_cert"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"tls_cert\" is required with \"tls_key\"")));
	if (!boolean_of(options, "tls"))
	{
		ListCell   *cell;

		foreach(cell, options)
		{
			DefElem    *option = lfirst_node(DefElem, cell);

			if (strncmp(option->defname, "tls_", 4) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						 errmsg("option \"%s\" is of no use without \"tls\"", option->defname),
						 errhint("Add the option tls 'on'.")));
		}
	}
}

/*
 * es_rabbitmq_claims_option tells whether an option of a user mapping, of which
 * nobody says for what type of broker it is, is ours or meant to be: librdkafka's
 * properties have dots in their names.
 */
bool
es_rabbitmq_claims_option(const char *name)
{
	return find_option(name) != NULL ||
		(strchr(name, '.') == NULL && closest_option(name) != NULL);
}

/*
 * es_rabbitmq_options reads the options of a server and user mapping, which the
 * validator has seen.
 */
EsRabbitOptions *
es_rabbitmq_options(List *options)
{
	EsRabbitOptions *result = palloc0(sizeof(EsRabbitOptions));
	const char *declare = value_of(options, "declare");

	result->tls = boolean_of(options, "tls");
	result->tls_verify_peer = boolean_of(options, "tls_verify_peer");
	result->tls_verify_hostname = boolean_of(options, "tls_verify_hostname");
	result->tls_ca = value_of(options, "tls_ca");
	result->tls_cert = value_of(options, "tls_cert");
	result->tls_key = value_of(options, "tls_key");
	result->tls_key_password = value_of(options, "tls_key_password");
	result->hosts = split_list(value_of(options, "host"));
	result->port = is_set(options, "port") ? atoi(value_of(options, "port")) :
		result->tls ? PORT_TLS : PORT;
	result->vhost = value_of(options, "vhost");
	result->user = value_of(options, "user");
	result->password = value_of(options, "password");
	result->exchange = value_of(options, "exchange");
	result->exchange_type = value_of(options, "exchange_type");
	result->declare_exchange = strcmp(declare, "none") != 0;
	if (strcmp(declare, "queues") == 0)
		result->queues = split_queues(value_of(options, "queues"));
	result->queue_type = value_of(options, "queue_type");
	result->window = atoi(value_of(options, "window"));
	result->heartbeat = atoi(value_of(options, "heartbeat"));
	result->connect_timeout = atoi(value_of(options, "connect_timeout"));
	result->fence = boolean_of(options, "fence");
	return result;
}

/*
 * find_option finds what is known of an option, or NULL.
 */
static const Option *
find_option(const char *name)
{
	for (int i = 0; i < lengthof(known); i++)
	{
		if (strcmp(known[i].name, name) == 0)
			return &known[i];
	}
	return NULL;
}

/*
 * check_place raises an error if an option stands on the server but belongs on
 * the user mapping, or the other way round.
 */
static void
check_place(const Option *option, bool on_server)
{
	if (on_server && option->place == ON_MAPPING)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is a credential and does not belong on a server", option->name),
				 errdetail("Everybody can read the options of servers."),
				 errhint("CREATE USER MAPPING FOR the relay's owner SERVER ... OPTIONS (\"%s\" '...');", option->name)));
	if (!on_server && option->place == ON_SERVER)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" does not belong on a user mapping", option->name),
				 errdetail("User mappings hold credentials."),
				 errhint("Set it on the server.")));
}

/*
 * check_file raises an error if the current user may not make the server
 * process read files.
 */
static void
check_file(const Option *option)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("It makes the server process read a file: only superusers and members of pg_read_server_files may set it.")));
}

/*
 * check_number raises an error unless a value is a number in the option's
 * range.
 */
static void
check_number(const Option *option, const char *value)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (*value == '\0' || *end != '\0' || errno != 0 ||
		number < option->least || number > option->most)
		refuse_value(option->name,
					 psprintf("It is a whole number from %d to %d.", option->least, option->most));
}

/*
 * check_choice raises an error unless a value is one of the option's choices.
 */
static void
check_choice(const Option *option, const char *value)
{
	ListCell   *cell;

	foreach(cell, split_list(option->choices))
	{
		if (strcmp(lfirst(cell), value) == 0)
			return;
	}
	refuse_value(option->name, psprintf("It is one of: %s.", option->choices));
}

/*
 * refuse_value raises the error for a bad value, which it does not show.
 */
static void
refuse_value(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", name),
			 errdetail_internal("%s", detail)));
}

/*
 * closest_option returns the option that a name most resembles, or NULL.
 */
static char *
closest_option(const char *name)
{
	List	   *names = NIL;

	for (int i = 0; i < lengthof(known); i++)
		names = lappend(names, unconstify(char *, known[i].name));
	return es_closest_name(name, names);
}

/*
 * split_list splits a value at commas; NIL if it has an empty part.
 */
static List *
split_list(const char *value)
{
	List	   *parts = NIL;
	const char *p = value;

	for (;;)
	{
		size_t		length;

		p += strspn(p, " ");
		length = strcspn(p, ",");
		while (length > 0 && p[length - 1] == ' ')
			length--;
		if (length == 0)
			return NIL;
		parts = lappend(parts, pnstrdup(p, length));
		p = strchr(p, ',');
		if (p == NULL)
			return parts;
		p++;
	}
}

/*
 * split_queues reads "name, name=binding key, ..."; NIL if a name is missing
 * or too long.
 */
static List *
split_queues(const char *value)
{
	List	   *queues = NIL;
	ListCell   *cell;

	foreach(cell, split_list(value))
	{
		char	   *part = lfirst(cell);
		char	   *equals = strchr(part, '=');
		EsRabbitQueue *queue = palloc(sizeof(EsRabbitQueue));

		queue->name = equals ? pnstrdup(part, equals - part) : part;
		queue->binding_key = equals ? equals + 1 : "#";
		if (queue->name[0] == '\0' || strlen(queue->name) > ES_RABBITMQ_NAME ||
			strlen(queue->binding_key) > ES_RABBITMQ_NAME)
			return NIL;
		queues = lappend(queues, queue);
	}
	return queues;
}

/*
 * value_of returns an option's value, or its default, which may be NULL.
 */
static const char *
value_of(List *options, const char *name)
{
	const char *value = find_option(name)->initial;
	ListCell   *cell;

	/* the user mapping's come last */
	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			value = defGetString(option);
	}
	return value;
}

/*
 * is_set tells whether an option is given.
 */
static bool
is_set(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			return true;
	}
	return false;
}

/*
 * boolean_of returns an option's value as a boolean.
 */
static bool
boolean_of(List *options, const char *name)
{
	bool		value = false;

	(void) parse_bool(value_of(options, name), &value);
	return value;
}
