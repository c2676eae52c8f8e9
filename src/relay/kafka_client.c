/*
 * kafka_client.c
 *		librdkafka's clients: how they are made, and what is the same for all.
 */
#include "relay/kafka.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "commands/defrem.h"

/*
 * es_kafka_configure makes a configuration of properties of ours and then of a
 * server's options; on failure NULL and an error.
 */
rd_kafka_conf_t *
es_kafka_configure(const char *const(*properties)[2], int count, List *options,
				   char *error, size_t error_size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	ListCell   *cell;

	for (int i = 0; i < count; i++)
	{
		if (rd_kafka_conf_set(conf, properties[i][0], properties[i][1],
							  error, error_size) != RD_KAFKA_CONF_OK)
		{
			rd_kafka_conf_destroy(conf);
			return NULL;
		}
	}

	/* the validator let nothing pass that the relay sets itself */
	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "type") == 0)
			continue;
		if (rd_kafka_conf_set(conf, option->defname, defGetString(option),
							  error, error_size) != RD_KAFKA_CONF_OK)
		{
			rd_kafka_conf_destroy(conf);
			return NULL;
		}
	}
	return conf;
}

/*
 * es_kafka_start makes a client, whose threads inherit our signal mask: they
 * must never see a signal that is meant for the server process.  The
 * configuration is used up.
 */
rd_kafka_t *
es_kafka_start(rd_kafka_type_t kind, rd_kafka_conf_t *conf, char *error, size_t error_size)
{
	rd_kafka_t *client;
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	client = rd_kafka_new(kind, conf, error, error_size);
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	if (client == NULL)
		rd_kafka_conf_destroy(conf);
	return client;
}

/*
 * es_kafka_addresses returns the brokers that the options name, or NULL.
 */
const char *
es_kafka_addresses(List *options)
{
	const char *addresses = NULL;
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "bootstrap.servers") == 0 ||
			strcmp(option->defname, "metadata.broker.list") == 0)
			addresses = defGetString(option);
	}
	return addresses;
}

/*
 * es_kafka_is_mock tells whether the broker is librdkafka's own test cluster,
 * which lives in the client that asks for it.
 */
bool
es_kafka_is_mock(List *options)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "test.mock.num.brokers") == 0)
			return strcmp(defGetString(option), "0") != 0;
	}
	return false;
}

/*
 * es_kafka_open_pipe makes a pipe by which threads wake us; false and an error
 * if that fails.
 */
bool
es_kafka_open_pipe(int *ends, char *error, size_t error_size)
{
	if (pipe(ends) != 0)
	{
		snprintf(error, error_size, "could not create pipe: %m");
		return false;
	}
	for (int i = 0; i < 2; i++)
	{
		(void) fcntl(ends[i], F_SETFL, O_NONBLOCK);
		(void) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
	}
	return true;
}

/*
 * es_kafka_empty_pipe empties it, so that what comes later wakes us again.
 */
void
es_kafka_empty_pipe(int *ends)
{
	char		buffer[64];

	while (read(ends[0], buffer, sizeof(buffer)) > 0)
		;
}

/*
 * es_kafka_wake_by makes a pipe readable when a client has something to say.
 */
void
es_kafka_wake_by(rd_kafka_t * client, int *ends)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_get_main(client);

	rd_kafka_queue_io_event_enable(queue, ends[1], "1", 1);
	rd_kafka_queue_destroy(queue);
}

/*
 * es_kafka_is_final tells whether an error is due to the message itself, so
 * that no new attempt can mend it.
 */
bool
es_kafka_is_final(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
			return true;
		default:
			return false;
	}
}

/*
 * es_kafka_produce hands an event to librdkafka, which copies it; its delivery
 * will be reported by the sequence number.
 */
rd_kafka_error_t *
es_kafka_produce(rd_kafka_t * producer, const EsMessage *message, uint64 sequence)
{
	rd_kafka_vu_t args[6 + ES_MAX_HEADERS];
	int			n = 0;

	args[n].vtype = RD_KAFKA_VTYPE_TOPIC;
	args[n++].u.cstr = message->topic;
	args[n].vtype = RD_KAFKA_VTYPE_KEY;
	args[n].u.mem.ptr = unconstify(char *, message->key);
	args[n++].u.mem.size = message->key_length;
	args[n].vtype = RD_KAFKA_VTYPE_VALUE;
	args[n].u.mem.ptr = unconstify(char *, message->value);
	args[n++].u.mem.size = message->value_length;
	args[n].vtype = RD_KAFKA_VTYPE_TIMESTAMP;
	args[n++].u.i64 = message->timestamp_ms;
	args[n].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
	args[n++].u.i = RD_KAFKA_MSG_F_COPY;
	args[n].vtype = RD_KAFKA_VTYPE_OPAQUE;
	args[n++].u.ptr = (void *) (uintptr_t) sequence;
	for (int i = 0; i < message->nheaders; i++)
	{
		args[n].vtype = RD_KAFKA_VTYPE_HEADER;
		args[n].u.header.name = message->headers[i].name;
		args[n].u.header.val = message->headers[i].value;
		args[n++].u.header.size = message->headers[i].length;
	}
	return rd_kafka_produceva(producer, args, n);
}

/*
 * es_kafka_log passes one of librdkafka's log lines on.
 */
void
es_kafka_log(int level, const char *facility, const char *text)
{
	/* syslog's levels: 4 is a warning; errors are reported elsewhere */
	ereport(level <= 4 && strcmp(facility, "FAIL") != 0 &&
			strcmp(facility, "ERROR") != 0 && strcmp(facility, "CONFWARN") != 0 ?
			LOG : DEBUG1,
			(errmsg_internal("%s: %s: %s", es_relay_title(), facility, text)));
}
