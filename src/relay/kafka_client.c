/*
 * kafka_client.c
 *		librdkafka's clients: how they are made, and what is the same for all.
 */
#include "relay/kafka.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "commands/defrem.h"

static rd_kafka_topic_t *find_topic(rd_kafka_t * producer, EsKafkaTopics *topics, const char *name);

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
		if (!es_kafka_set(conf, properties[i][0], properties[i][1], error, error_size))
			return NULL;
	}

	/* the validator let nothing pass that the relay sets itself */
	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "type") == 0)
			continue;
		if (!es_kafka_set(conf, option->defname, defGetString(option), error, error_size))
			return NULL;
	}
	return conf;
}

/*
 * es_kafka_set sets a property; on failure false and an error, and the
 * configuration is gone.
 */
bool
es_kafka_set(rd_kafka_conf_t *conf, const char *name, const char *value,
			 char *error, size_t error_size)
{
	if (rd_kafka_conf_set(conf, name, value, error, error_size) == RD_KAFKA_CONF_OK)
		return true;
	rd_kafka_conf_destroy(conf);
	return false;
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
es_kafka_produce(rd_kafka_t * producer, EsKafkaTopics *topics, const EsMessage *message,
				 uint64 sequence)
{
	rd_kafka_vu_t args[7];
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_error_t *error;
	int			n = 0;

	args[n].vtype = RD_KAFKA_VTYPE_RKT;
	args[n].u.rkt = find_topic(producer, topics, message->topic);
	if (args[n++].u.rkt == NULL)
		return rd_kafka_error_new(rd_kafka_last_error(), "%s", rd_kafka_err2str(rd_kafka_last_error()));
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
	if (message->nheaders > 0)
	{
		headers = rd_kafka_headers_new(message->nheaders);
		for (int i = 0; i < message->nheaders; i++)
			(void) rd_kafka_header_add(headers, message->headers[i].name, -1,
									   message->headers[i].value, message->headers[i].length);
		args[n].vtype = RD_KAFKA_VTYPE_HEADERS;
		args[n++].u.headers = headers;
	}
	error = rd_kafka_produceva(producer, args, n);
	if (error != NULL && headers != NULL)
		rd_kafka_headers_destroy(headers);
	return error;
}

/*
 * es_kafka_forget_topics lets go of a producer's topics, before it ends.
 */
void
es_kafka_forget_topics(EsKafkaTopics *topics)
{
	for (int i = 0; i < ES_KAFKA_TOPICS; i++)
	{
		if (topics->topics[i] != NULL)
			rd_kafka_topic_destroy(topics->topics[i]);
		topics->topics[i] = NULL;
	}
}

/*
 * find_topic returns the handle of a topic; NULL if librdkafka does not take
 * the name.
 */
static rd_kafka_topic_t *
find_topic(rd_kafka_t * producer, EsKafkaTopics *topics, const char *name)
{
	rd_kafka_topic_t **topic;
	uint32		hash = 0;

	for (const char *p = name; *p != '\0'; p++)
		hash = hash * 31 + (unsigned char) *p;
	topic = &topics->topics[hash & (ES_KAFKA_TOPICS - 1)];
	if (*topic == NULL || strcmp(rd_kafka_topic_name(*topic), name) != 0)
	{
		if (*topic != NULL)
			rd_kafka_topic_destroy(*topic);
		*topic = rd_kafka_topic_new(producer, name, NULL);
	}
	return *topic;
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
