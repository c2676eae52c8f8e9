/*
 * kafka.c
 *		Kafka as a broker: librdkafka's idempotent producer.
 *
 * librdkafka runs threads of its own.  They have all signals blocked, and all
 * that they have to say (deliveries, errors, log lines) waits in librdkafka's
 * main queue until kafka_poll() takes it in, in the relay's thread.  A pipe
 * becomes readable when the queue has something, so that the relay can sleep
 * on its latch and the broker together.
 *
 * Retries never end (message.timeout.ms 0) and nothing overtakes a message
 * that Kafka refuses (enable.gapless.guarantee): the producer fails as a
 * whole, and the relay begins anew with the first event that is unconfirmed.
 * Yet a broker takes the second batch of a new producer for a partition though
 * it refused the first.  So one request at a time is under way (max.in.flight),
 * and the relay sends what may be refused again alone (relay.c).
 */
#include "relay/relay.h"

#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/memutils.h"

typedef struct EsKafka
{
	EsBroker	base;
	rd_kafka_t *producer;
	int			pipe[2];
	bool		closing;
	bool		explained;		/* the error says which event failed */
} EsKafka;

static EsBroker *kafka_open(List *options, const EsSender *sender, EsWindow *window,
							char *error, size_t error_size);
static EsSendResult kafka_send(EsBroker *broker, const EsMessage *message);
static void kafka_poll(EsBroker *broker);
static void kafka_flush(EsBroker *broker, int timeout_ms);
static void kafka_probe(EsBroker *broker, int timeout_ms);
static void kafka_close(EsBroker *broker);

static rd_kafka_conf_t *configure(EsKafka *kafka, List *options, char *error, size_t error_size);
static rd_kafka_t * start_producer(rd_kafka_conf_t *conf, char *error, size_t error_size);
static void note_address(EsKafka *kafka, List *options);
static void take_delivery(rd_kafka_t * producer, const rd_kafka_message_t *message, void *opaque);
static void take_error(rd_kafka_t * producer, int error, const char *reason, void *opaque);
static void take_log(const rd_kafka_t * producer, int level, const char *facility, const char *text);

const EsBrokerType es_kafka_broker = {
	.name = "kafka",
	.check_option = es_kafka_check_option,
	.check_server = es_kafka_check_server,
	.check_topic = es_kafka_check_topic,
	.topic_value = es_kafka_topic_value,
	.topic_end = es_kafka_topic_end,
	.open = kafka_open,
	.send = kafka_send,
	.poll = kafka_poll,
	.flush = kafka_flush,
	.probe = kafka_probe,
	.close = kafka_close,
};

/* what the relay sets, before the user's options and not to be changed by them */
static const char *const own_properties[][2] = {
	{"enable.idempotence", "true"},
	{"enable.gapless.guarantee", "true"},
	{"acks", "all"},
	{"message.timeout.ms", "0"},
	{"log.queue", "true"},
	/* defaults that the user's options may change */
	{"max.in.flight", "1"},
	{"partitioner", "murmur2_random"},
	{"socket.nagle.disable", "true"},
};

/*
 * kafka_open starts a producer; it connects in the background.
 */
static EsBroker *
kafka_open(List *options, const EsSender *sender, EsWindow *window,
		   char *error, size_t error_size)
{
	EsKafka    *kafka = MemoryContextAllocZero(TopMemoryContext, sizeof(EsKafka));
	rd_kafka_conf_t *conf;
	rd_kafka_queue_t *queue;

	kafka->base.type = &es_kafka_broker;
	kafka->base.window = window;

	if (pipe(kafka->pipe) != 0)
	{
		snprintf(error, error_size, "could not create pipe: %m");
		pfree(kafka);
		return NULL;
	}
	for (int i = 0; i < 2; i++)
	{
		(void) fcntl(kafka->pipe[i], F_SETFL, O_NONBLOCK);
		(void) fcntl(kafka->pipe[i], F_SETFD, FD_CLOEXEC);
	}

	conf = configure(kafka, options, error, error_size);
	if (conf != NULL)
		kafka->producer = start_producer(conf, error, error_size);
	if (kafka->producer == NULL)
	{
		close(kafka->pipe[0]);
		close(kafka->pipe[1]);
		pfree(kafka);
		return NULL;
	}

	rd_kafka_set_log_queue(kafka->producer, NULL);
	queue = rd_kafka_queue_get_main(kafka->producer);
	rd_kafka_queue_io_event_enable(queue, kafka->pipe[1], "1", 1);
	rd_kafka_queue_destroy(queue);
	kafka->base.wake = kafka->pipe[0];

	note_address(kafka, options);
	return &kafka->base;
}

/*
 * kafka_send hands an event to librdkafka, which copies it.
 */
static EsSendResult
kafka_send(EsBroker *broker, const EsMessage *message)
{
	EsKafka    *kafka = (EsKafka *) broker;
	rd_kafka_vu_t args[6 + ES_MAX_HEADERS];
	rd_kafka_error_t *error;
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
	args[n++].u.ptr = (void *) (uintptr_t) broker->window->next;
	for (int i = 0; i < message->nheaders; i++)
	{
		args[n].vtype = RD_KAFKA_VTYPE_HEADER;
		args[n].u.header.name = message->headers[i].name;
		args[n].u.header.val = message->headers[i].value;
		args[n++].u.header.size = message->headers[i].length;
	}

	error = rd_kafka_produceva(kafka->producer, args, n);
	if (error == NULL)
	{
		es_window_add(broker->window, message->position,
					  message->key_length + message->value_length);
		return ES_SEND_OK;
	}
	if (rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
	{
		rd_kafka_error_destroy(error);
		return ES_SEND_FULL;
	}

	/* a fatal error is described better elsewhere */
	if (rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__FATAL)
	{
		es_broker_error(broker,
						"event at position " INT64_FORMAT " cannot be sent to topic \"%s\": %s",
						message->position, message->topic,
						rd_kafka_err2str(rd_kafka_error_code(error)));
		kafka->explained = true;
		broker->refused = message->position;
	}
	rd_kafka_error_destroy(error);
	broker->failed = true;
	return ES_SEND_FAILED;
}

/*
 * kafka_poll takes in deliveries, errors and log lines.
 */
static void
kafka_poll(EsBroker *broker)
{
	EsKafka    *kafka = (EsKafka *) broker;
	char		buffer[64];

	/* first empty the pipe, so that what comes later wakes us again */
	while (read(kafka->pipe[0], buffer, sizeof(buffer)) > 0)
		;

	/* take_log() must not end the process in the middle of librdkafka */
	HOLD_INTERRUPTS();
	while (rd_kafka_poll(kafka->producer, 0) > 0)
		;
	RESUME_INTERRUPTS();
}

/*
 * kafka_flush waits for the confirmation of all that was sent.
 */
static void
kafka_flush(EsBroker *broker, int timeout_ms)
{
	HOLD_INTERRUPTS();
	(void) rd_kafka_flush(((EsKafka *) broker)->producer, timeout_ms);
	RESUME_INTERRUPTS();
}

/*
 * kafka_probe asks for metadata: librdkafka does not tell when a broker can be
 * reached again.
 */
static void
kafka_probe(EsBroker *broker, int timeout_ms)
{
	EsKafka    *kafka = (EsKafka *) broker;
	const struct rd_kafka_metadata *metadata;

	if (rd_kafka_metadata(kafka->producer, 0, NULL, &metadata, timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_metadata_destroy(metadata);
		broker->troubled = false;
	}
}

/*
 * kafka_close ends the producer and its threads, and drops what it holds.
 */
static void
kafka_close(EsBroker *broker)
{
	EsKafka    *kafka = (EsKafka *) broker;

	kafka->closing = true;
	HOLD_INTERRUPTS();
	(void) rd_kafka_purge(kafka->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	rd_kafka_destroy_flags(kafka->producer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	RESUME_INTERRUPTS();
	close(kafka->pipe[0]);
	close(kafka->pipe[1]);
	pfree(kafka);
}

/*
 * configure makes librdkafka's configuration; on failure NULL and an error.
 */
static rd_kafka_conf_t *
configure(EsKafka *kafka, List *options, char *error, size_t error_size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	ListCell   *cell;

	for (int i = 0; i < lengthof(own_properties); i++)
	{
		if (rd_kafka_conf_set(conf, own_properties[i][0], own_properties[i][1],
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

	rd_kafka_conf_set_opaque(conf, kafka);
	rd_kafka_conf_set_dr_msg_cb(conf, take_delivery);
	rd_kafka_conf_set_error_cb(conf, take_error);
	rd_kafka_conf_set_log_cb(conf, take_log);
	return conf;
}

/*
 * start_producer makes the client, whose threads inherit our signal mask: they
 * must never see a signal that is meant for the server process.
 */
static rd_kafka_t *
start_producer(rd_kafka_conf_t *conf, char *error, size_t error_size)
{
	rd_kafka_t *producer;
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, error_size);
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	if (producer == NULL)
		rd_kafka_conf_destroy(conf);
	return producer;
}

/*
 * note_address writes down where the brokers are: the servers that the options
 * name, or those of librdkafka's own test cluster, which lives in this process
 * and which other programs can reach while it does.
 */
static void
note_address(EsKafka *kafka, List *options)
{
	rd_kafka_mock_cluster_t *cluster = rd_kafka_handle_mock_cluster(kafka->producer);
	ListCell   *cell;

	if (cluster != NULL)
	{
		snprintf(kafka->base.address, sizeof(kafka->base.address), "%s", rd_kafka_mock_cluster_bootstraps(cluster));
		return;
	}
	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "bootstrap.servers") == 0 ||
			strcmp(option->defname, "metadata.broker.list") == 0)
			snprintf(kafka->base.address, sizeof(kafka->base.address), "%s", defGetString(option));
	}
}

/*
 * take_delivery notes what became of a message (within kafka_poll).
 */
static void
take_delivery(rd_kafka_t * producer, const rd_kafka_message_t *message, void *opaque)
{
	EsKafka    *kafka = opaque;
	EsBroker   *broker = &kafka->base;
	uint64		sequence = (uint64) (uintptr_t) message->_private;
	int64		position = es_window_position(broker->window, sequence);

	if (kafka->closing)
		return;
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		es_window_confirm(broker->window, sequence);
		broker->troubled = false;
		return;
	}

	/* the first failure says why; what is purged behind it only follows */
	if (message->err != RD_KAFKA_RESP_ERR__FATAL &&
		message->err != RD_KAFKA_RESP_ERR__PURGE_QUEUE &&
		message->err != RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
	{
		if (!kafka->explained)
			es_broker_error(broker,
							"event at position " INT64_FORMAT ", or one of its batch, was not accepted by topic \"%s\": %s",
							position, rd_kafka_topic_name(message->rkt),
							rd_kafka_err2str(message->err));
		kafka->explained = true;
		broker->refused = Max(broker->refused, position);
	}
	broker->failed = true;
}

/*
 * take_error notes an error of the whole client (within kafka_poll).
 */
static void
take_error(rd_kafka_t * producer, int error, const char *reason, void *opaque)
{
	EsKafka    *kafka = opaque;
	EsBroker   *broker = &kafka->base;

	if (kafka->closing)
		return;
	if (error == RD_KAFKA_RESP_ERR__FATAL)
	{
		char		why[ES_BROKER_TEXT];

		if (!kafka->explained && rd_kafka_fatal_error(producer, why, sizeof(why)))
			es_broker_error(broker, "%s", why);
		broker->failed = true;
		return;
	}

	/* "all brokers are down" tells less than what came before it */
	if (error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || broker->error[0] == '\0')
		es_broker_error(broker, "%s", reason);
	broker->troubled = true;
}

/*
 * take_log passes librdkafka's log lines on (within kafka_poll).
 */
static void
take_log(const rd_kafka_t * producer, int level, const char *facility, const char *text)
{
	/* syslog's levels: 4 is a warning; what take_error() gets is not repeated */
	ereport(level <= 4 && strcmp(facility, "FAIL") != 0 &&
			strcmp(facility, "ERROR") != 0 && strcmp(facility, "CONFWARN") != 0 ?
			LOG : DEBUG1,
			(errmsg_internal("relay: %s: %s", facility, text)));
}
