/*
 * kafka_options.c
 *		librdkafka's properties as options of a foreign server or user mapping.
 *
 * Every property of a producer is allowed, checked by librdkafka itself,
 * except those by which the relay keeps its promises.  Credentials belong in
 * user mappings, which only their user and the server's owner see.  What makes
 * the server process read a file or run a program needs the privilege that
 * COPY asks for the same.
 */
#include "relay/relay.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"

/* librdkafka 2.6.1 */
#define FIRST_GOOD_SCRAM	0x020601ff

typedef enum RuleKind
{
	RULE_FREE,					/* on the server */
	RULE_EITHER,				/* on the server or the user mapping */
	RULE_SECRET,				/* on the user mapping */
	RULE_FILE,					/* either, names a file */
	RULE_PROGRAM,				/* either, runs a program or loads code */
	RULE_OWNED					/* set by the relay */
} RuleKind;

typedef struct Rule
{
	const char *name;
	RuleKind	kind;
	const char *reason;			/* for RULE_OWNED */
} Rule;

static const Rule rules[] =
{
	{"sasl.username", RULE_SECRET},
	{"sasl.password", RULE_SECRET},
	{"ssl.key.password", RULE_SECRET},
	{"ssl.key.pem", RULE_SECRET},
	{"ssl.keystore.password", RULE_SECRET},
	{"sasl.oauthbearer.client.secret", RULE_SECRET},
	{"sasl.oauthbearer.config", RULE_SECRET},
	{"sasl.oauthbearer.assertion.private.key.passphrase", RULE_SECRET},
	{"sasl.oauthbearer.assertion.private.key.pem", RULE_SECRET},
	{"sasl.oauthbearer.client.id", RULE_EITHER},
	{"sasl.oauthbearer.scope", RULE_EITHER},
	{"sasl.oauthbearer.extensions", RULE_EITHER},
	{"sasl.mechanism", RULE_EITHER},
	{"sasl.mechanisms", RULE_EITHER},
	{"ssl.certificate.pem", RULE_EITHER},
	{"client.id", RULE_EITHER},
	{"ssl.key.location", RULE_FILE},
	{"ssl.certificate.location", RULE_FILE},
	{"ssl.ca.location", RULE_FILE},
	{"ssl.crl.location", RULE_FILE},
	{"ssl.keystore.location", RULE_FILE},
	{"sasl.oauthbearer.assertion.file", RULE_FILE},
	{"sasl.oauthbearer.assertion.jwt.template.file", RULE_FILE},
	{"sasl.oauthbearer.assertion.private.key.file", RULE_FILE},
	{"https.ca.location", RULE_FILE},
	{"sasl.kerberos.kinit.cmd", RULE_PROGRAM},
	/* librdkafka writes these into that command as they are */
	{"sasl.kerberos.keytab", RULE_PROGRAM},
	{"sasl.kerberos.principal", RULE_PROGRAM},
	{"sasl.kerberos.service.name", RULE_PROGRAM},
	{"ssl.engine.location", RULE_PROGRAM},
	{"ssl.engine.id", RULE_PROGRAM},
	{"ssl.providers", RULE_PROGRAM},
	{"plugin.library.paths", RULE_OWNED, "Plug-ins cannot be loaded into the database server."},
	{"enable.idempotence", RULE_OWNED, "A relay always uses the idempotent producer."},
	{"enable.gapless.guarantee", RULE_OWNED, "A relay never lets later events overtake one that failed."},
	{"acks", RULE_OWNED, "A relay waits for all in-sync replicas."},
	{"request.required.acks", RULE_OWNED, "A relay waits for all in-sync replicas."},
	{"transactional.id", RULE_OWNED, "The relay chooses it."},
	{"transaction.timeout.ms", RULE_OWNED, "The relay chooses it."},
	{"message.timeout.ms", RULE_OWNED, "A relay never gives an event up."},
	{"delivery.timeout.ms", RULE_OWNED, "A relay never gives an event up."},
	{"message.send.max.retries", RULE_OWNED, "A relay never gives an event up."},
	{"retries", RULE_OWNED, "A relay never gives an event up."},
	{"queuing.strategy", RULE_OWNED, "A relay keeps the order of events."},
	{"delivery.report.only.error", RULE_OWNED, "A relay needs every delivery report."},
	{"enabled_events", RULE_OWNED, "The relay chooses what it listens to."},
	{"log.queue", RULE_OWNED, "The relay writes librdkafka's messages to the server's log."},
	{"log_level", RULE_OWNED, "The server's setting log_min_messages decides."},
	{"internal.termination.signal", RULE_OWNED, "Signals belong to the database server."},
};

static RuleKind rule_of(const char *name, const char **reason);
static void check_place(const char *name, RuleKind kind, bool on_server);
static void check_privilege(const char *name, RuleKind kind);
static void check_value(const char *name, const char *value);
static bool is_consumer_property(const char *name);
static List *list_properties(const char *users);
static bool is_enabled(List *options, const char *name);

/*
 * es_kafka_check_option raises an error unless a property may be set there, by
 * this user, to this value.
 */
void
es_kafka_check_option(const char *name, const char *value, bool on_server)
{
	const char *reason = NULL;
	RuleKind	kind = rule_of(name, &reason);

	if (kind == RULE_OWNED)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" cannot be set", name),
				 errdetail_internal("%s", reason)));

	/* before librdkafka sees the value: it may act on it */
	check_privilege(name, kind);
	if (strcmp(name, "sasl.oauthbearer.token.endpoint.url") == 0 &&
		strncmp(value, "https://", 8) != 0 && strncmp(value, "http://", 7) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\"", name),
				 errdetail("It must begin with https:// or http://, as it must not read files.")));
	check_value(name, value);
	if (strcmp(name, "partitioner") == 0 && pg_strcasecmp(value, "random") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\"", name),
				 errdetail("It would scatter a stream's events over the partitions, which have no common order."),
				 errhint("Choose one that goes by the key, such as murmur2_random.")));
	check_place(name, kind, on_server);
	if ((strcmp(name, "sasl.mechanism") == 0 || strcmp(name, "sasl.mechanisms") == 0) &&
		pg_strncasecmp(value, "SCRAM-", 6) == 0 && rd_kafka_version() < FIRST_GOOD_SCRAM)
		ereport(WARNING,
				(errmsg("librdkafka %s cannot use %s with all brokers", rd_kafka_version_str(), value),
				 errdetail("Before 2.6.1 it makes a mistake that Kafka 4, and other brokers that verify the nonce, refuse as invalid credentials."),
				 errhint("Use a newer librdkafka, or PLAIN over TLS.")));
}

/*
 * es_kafka_check_server raises an error if a server's options do not go
 * together.
 */
void
es_kafka_check_server(List *options)
{
	if (!is_enabled(options, "bootstrap.servers") &&
		!is_enabled(options, "metadata.broker.list") &&
		!is_enabled(options, "test.mock.num.brokers"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"bootstrap.servers\" is required"),
				 errhint("Name the brokers, for example OPTIONS (type 'kafka', \"bootstrap.servers\" 'host1:9092,host2:9092').")));
}

/*
 * rule_of finds what holds for a property.
 */
static RuleKind
rule_of(const char *name, const char **reason)
{
	for (int i = 0; i < lengthof(rules); i++)
	{
		if (strcmp(rules[i].name, name) == 0)
		{
			*reason = rules[i].reason;
			return rules[i].kind;
		}
	}
	return RULE_FREE;
}

/*
 * check_place raises an error if a property stands on the server but belongs
 * on the user mapping, or the other way round.
 */
static void
check_place(const char *name, RuleKind kind, bool on_server)
{
	if (on_server && kind == RULE_SECRET)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is a credential and does not belong on a server", name),
				 errdetail("Everybody can read the options of servers."),
				 errhint("CREATE USER MAPPING FOR the relay's owner SERVER ... OPTIONS (\"%s\" '...');", name)));
	if (!on_server && kind == RULE_FREE)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" does not belong on a user mapping", name),
				 errdetail("User mappings hold credentials."),
				 errhint("Set it on the server.")));
}

/*
 * check_privilege raises an error if the current user may not make the server
 * process read files or run programs.
 */
static void
check_privilege(const char *name, RuleKind kind)
{
	Oid			role;

	if (kind == RULE_FILE)
		role = ROLE_PG_READ_SERVER_FILES;
	else if (kind == RULE_PROGRAM)
		role = ROLE_PG_EXECUTE_SERVER_PROGRAM;
	else
		return;

	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", name),
				 kind == RULE_FILE ?
				 errdetail("It makes the server process read a file: only superusers and members of pg_read_server_files may set it.") :
				 errdetail("It makes the server process run code: only superusers and members of pg_execute_server_program may set it.")));
}

/*
 * check_value has librdkafka check a property, on a configuration of which no
 * client is ever made (so that no thread starts).
 */
static void
check_value(const char *name, const char *value)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_conf_res_t result;
	char		error[ES_BROKER_TEXT] = "";
	size_t		length;

	result = rd_kafka_conf_set(conf, name, value, error, sizeof(error));
	rd_kafka_conf_destroy(conf);

	/* librdkafka ends some of its messages with a newline */
	length = strlen(error);
	while (length > 0 && error[length - 1] == '\n')
		error[--length] = '\0';

	if (result == RD_KAFKA_CONF_UNKNOWN)
	{
		char	   *closest = es_closest_name(name, list_properties("*P"));

		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", name),
				 errdetail_internal("%s", error),
				 closest ?
				 errhint("Perhaps you meant the option \"%s\".", closest) :
				 errhint("The options are \"type\" and librdkafka's properties of producers, see its CONFIGURATION.md.")));
	}
	if (result != RD_KAFKA_CONF_OK)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\"", name),
				 errdetail_internal("%s", error)));

	/* what librdkafka would only say when a client is made */
	if ((strcmp(name, "max.in.flight") == 0 ||
		 strcmp(name, "max.in.flight.requests.per.connection") == 0) &&
		atoi(value) > 5)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\"", name),
				 errdetail("The idempotent producer allows at most 5.")));
	if (is_consumer_property(name))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" is of no use to a relay", name),
				 errdetail("librdkafka knows it as a property of consumers.")));
}

/*
 * is_consumer_property tells whether a property means nothing to producers.
 */
static bool
is_consumer_property(const char *name)
{
	ListCell   *cell;

	foreach(cell, list_properties("C"))
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

/*
 * list_properties lists librdkafka's properties for the given users ("P"
 * producers, "C" consumers, "*" both), as its own documentation has them:
 * lines "name | * | ...".
 */
static List *
list_properties(const char *users)
{
	List	   *names = NIL;
	char	   *text = NULL;
	size_t		size = 0;
	FILE	   *stream = open_memstream(&text, &size);
	char	   *line;
	char	   *rest;

	if (stream == NULL)
		return NIL;
	rd_kafka_conf_properties_show(stream);
	fclose(stream);

	for (line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
	{
		char	   *bar = strchr(line, '|');
		const char *reason;
		char	   *name;

		if (bar == NULL || strlen(bar) < 7 || strchr(users, bar[3]) == NULL ||
			strncmp(bar, "|  ", 3) != 0 || strncmp(bar + 4, "  |", 3) != 0)
			continue;
		name = pnstrdup(line, strcspn(line, " |"));
		if (rule_of(name, &reason) != RULE_OWNED && *name != '\0')
			names = lappend(names, name);
	}
	free(text);
	return names;
}

/*
 * is_enabled tells whether an option is set to something.
 */
static bool
is_enabled(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option)[0] != '\0' &&
				strcmp(defGetString(option), "0") != 0;
	}
	return false;
}
