/*
 * kafka.c
 *		Kafka as a broker, at least once: librdkafka's idempotent producer.
 *		Exactly once is in kafka_txn.c.
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
#include "relay/kafka.h"

#include <librdkafka/rdkafka_mock.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/memutils.h"

typedef struct EsKafka
{
	EsBroker	base;
	rd_kafka_t *producer;
	EsKafkaTopics topics;
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

static void note_address(EsKafka *kafka, List *options);
static void take_delivery(rd_kafka_t * producer, const rd_kafka_message_t *message, void *opaque);
static void take_error(rd_kafka_t * producer, int error, const char *reason, void *opaque);
static void take_log(const rd_kafka_t * producer, int level, const char *facility, const char *text);

const EsBrokerType es_kafka_broker = {
	.name = "kafka",
	.exactly_once = true,
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
	{"linger.ms", "0"},
	{"partitioner", "murmur2_random"},
	{"socket.nagle.disable", "true"},
	{"ssl.endpoint.identification.algorithm", "https"},
};

/*
 * kafka_open starts a producer; it connects in the background.
 */
static EsBroker *
kafka_open(List *options, const EsSender *sender, EsWindow *window,
		   char *error, size_t error_size)
{
	EsKafka    *kafka;
	rd_kafka_conf_t *conf;

	/* the test cluster lives in one client and knows no compacted topics */
	if (sender->exactly_once && !es_kafka_is_mock(options))
		return es_kafka_txn_open(options, sender, window, error, error_size);

	kafka = MemoryContextAllocZero(TopMemoryContext, sizeof(EsKafka));
	kafka->base.type = &es_kafka_broker;
	kafka->base.window = window;
	if (!es_kafka_open_pipe(kafka->pipe, error, error_size))
	{
		pfree(kafka);
		return NULL;
	}

	conf = es_kafka_configure(own_properties, lengthof(own_properties), options, error, error_size);
	if (conf != NULL)
	{
		rd_kafka_conf_set_opaque(conf, kafka);
		rd_kafka_conf_set_dr_msg_cb(conf, take_delivery);
		rd_kafka_conf_set_error_cb(conf, take_error);
		rd_kafka_conf_set_log_cb(conf, take_log);
		kafka->producer = es_kafka_start(RD_KAFKA_PRODUCER, conf, error, error_size);
	}
	if (kafka->producer == NULL)
	{
		close(kafka->pipe[0]);
		close(kafka->pipe[1]);
		pfree(kafka);
		return NULL;
	}

	rd_kafka_set_log_queue(kafka->producer, NULL);
	es_kafka_wake_by(kafka->producer, kafka->pipe);
	kafka->base.wake = kafka->pipe[0];
	note_address(kafka, options);
	return &kafka->base;
}

/*
 * kafka_send hands an event to librdkafka.
 */
static EsSendResult
kafka_send(EsBroker *broker, const EsMessage *message)
{
	EsKafka    *kafka = (EsKafka *) broker;
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t code;

	error = es_kafka_produce(kafka->producer, &kafka->topics, message, broker->window->next);
	if (error == NULL)
	{
		es_window_add(broker->window, message->position,
					  message->key_length + message->value_length);
		return ES_SEND_OK;
	}
	code = rd_kafka_error_code(error);
	rd_kafka_error_destroy(error);
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		return ES_SEND_FULL;
	if (es_kafka_is_final(code))
	{
		/* what goes before it is delivered first */
		if (es_window_pending(broker->window) > 0)
			return ES_SEND_FULL;
		es_broker_reject(broker, message->position, "topic \"%s\": %s",
						 message->topic, rd_kafka_err2str(code));
		return ES_SEND_FAILED;
	}

	/* a fatal error is described better elsewhere */
	if (code != RD_KAFKA_RESP_ERR__FATAL)
	{
		es_broker_error(broker,
						"event at position " INT64_FORMAT " cannot be sent to topic \"%s\": %s",
						message->position, message->topic, rd_kafka_err2str(code));
		kafka->explained = true;
		broker->refused = message->position;
	}
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

	es_kafka_empty_pipe(kafka->pipe);

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
	es_kafka_forget_topics(&kafka->topics);
	(void) rd_kafka_purge(kafka->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	rd_kafka_destroy_flags(kafka->producer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	RESUME_INTERRUPTS();
	close(kafka->pipe[0]);
	close(kafka->pipe[1]);
	pfree(kafka);
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
	const char *addresses = cluster != NULL ? rd_kafka_mock_cluster_bootstraps(cluster) :
		es_kafka_addresses(options);

	if (addresses != NULL)
		strlcpy(kafka->base.address, addresses, sizeof(kafka->base.address));
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
		if (es_kafka_is_final(message->err) && es_window_pending(broker->window) == 1)
			es_broker_reject(broker, position, "topic \"%s\": %s",
							 rd_kafka_topic_name(message->rkt), rd_kafka_err2str(message->err));
		else if (!kafka->explained)
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
	es_kafka_log(level, facility, text);
}
