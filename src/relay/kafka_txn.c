/*
 * kafka_txn.c
 *		Kafka, exactly once: a relay's events in transactions.
 *
 * A transaction holds a batch of events and one record of the relay's progress
 * (kafka_progress.c).  Producers take turns: while one commits, in a thread
 * (kafka_thread.c), the next takes the events that follow, but holds them back:
 * it sends and commits only after the first did, as the order of messages in
 * Kafka is what consumers see.  If the first fails, both abort and the relay
 * begins anew with what is confirmed.  So batches grow with the load.
 *
 * A start fences whoever else sends for this relay.  Who is fenced leaves off.
 */
#include "relay/kafka_txn.h"

#include <unistd.h>

#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* a batch that has so many events takes no more while another commits */
#define BATCH_EVENTS	(ES_WINDOW_EVENTS / 2)

/* a start that takes longer is reported */
#define SLOW_START_MS	10000

/* how long an open transaction may keep us when we leave */
#define LEAVE_MS		500

static EsProgressState txn_last_position(EsBroker *broker, EsProgress *progress);
static EsSendResult txn_send(EsBroker *broker, const EsMessage *message);
static void txn_end_batch(EsBroker *broker, int64 position);
static void txn_poll(EsBroker *broker);
static void txn_flush(EsBroker *broker, int timeout_ms);
static void txn_probe(EsBroker *broker, int timeout_ms);
static void txn_close(EsBroker *broker);

static bool has_begun(EsKafkaTxn *kafka);
static void name_things(EsKafkaTxn *kafka, const EsSender *sender);
static uint64 writer_id(void);
static bool start_clients(EsKafkaTxn *kafka, List *options, const EsSender *sender,
						  char *error, size_t error_size);
static rd_kafka_t * start_client(EsKafkaTxn *kafka, rd_kafka_type_t kind, rd_kafka_conf_t *conf,
								 rd_kafka_queue_t **queue, char *error, size_t error_size);
static void free_clients(EsKafkaTxn *kafka);
static bool waits(EsKafkaTxn *kafka);

static const EsBrokerType txn_broker = {
	.name = "kafka",
	.exactly_once = true,
	.check_option = es_kafka_check_option,
	.check_server = es_kafka_check_server,
	.check_topic = es_kafka_check_topic,
	.topic_value = es_kafka_topic_value,
	.topic_end = es_kafka_topic_end,
	.last_position = txn_last_position,
	.send = txn_send,
	.end_batch = txn_end_batch,
	.poll = txn_poll,
	.flush = txn_flush,
	.probe = txn_probe,
	.close = txn_close,
};

/* what the relay sets; some of it the user's options may change */
static const char *const producer_properties[][2] = {
	{"enable.idempotence", "true"},
	{"acks", "all"},
	{"transaction.timeout.ms", "30000"},
	{"delivery.report.only.error", "true"},
	/* not to follow what held_properties say */
	{"sticky.partitioning.linger.ms", "10"},
	{"partitioner", "murmur2_random"},
	{"socket.nagle.disable", "true"},
	{"ssl.endpoint.identification.algorithm", "https"},
};

/* nothing is sent until the end of a batch, which does not wait */
static const char *const held_properties[][2] = {
	{"linger.ms", ES_KAFKA_HELD},
	{"batch.num.messages", "1000000"},
	{"batch.size", "2147483647"},
};

static const char *const reader_properties[][2] = {
	{"enable.partition.eof", "true"},
	{"isolation.level", "read_committed"},
	{"auto.offset.reset", "earliest"},
	{"enable.auto.commit", "false"},
	/* so soon it hears that there is no more */
	{"fetch.wait.max.ms", "20"},
	{"socket.nagle.disable", "true"},
	{"ssl.endpoint.identification.algorithm", "https"},
};

/*
 * es_kafka_txn_open starts the producers and the thread, which connects and
 * reads the progress in the background.
 */
EsBroker *
es_kafka_txn_open(List *options, const EsSender *sender, EsWindow *window,
				  char *error, size_t error_size)
{
	EsKafkaTxn *kafka = MemoryContextAllocZero(TopMemoryContext, sizeof(EsKafkaTxn));
	const char *addresses = es_kafka_addresses(options);

	kafka->base.type = &txn_broker;
	kafka->base.window = window;
	kafka->answered = true;
	kafka->started_at = GetCurrentTimestamp();
	name_things(kafka, sender);
	if (addresses != NULL)
		strlcpy(kafka->base.address, addresses, sizeof(kafka->base.address));
	if (!es_kafka_open_pipe(kafka->pipe, error, error_size))
	{
		pfree(kafka);
		return NULL;
	}
	pthread_mutex_init(&kafka->lock, NULL);
	pthread_cond_init(&kafka->asked, NULL);
	pthread_cond_init(&kafka->done, NULL);

	if (!start_clients(kafka, options, sender, error, error_size))
	{
		free_clients(kafka);
		return NULL;
	}
	if (!es_kafka_thread_start(kafka))
	{
		snprintf(error, error_size, "could not start a thread");
		free_clients(kafka);
		return NULL;
	}
	kafka->base.wake = kafka->pipe[0];
	es_kafka_thread_ask(kafka, ES_JOB_START, 0);
	return &kafka->base;
}

/*
 * txn_last_position tells how far the relay has come, once that is known.
 */
static EsProgressState
txn_last_position(EsBroker *broker, EsProgress *progress)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;

	if (!kafka->started)
	{
		if (kafka->answered &&
			TimestampDifferenceExceeds(kafka->started_at, GetCurrentTimestamp(), SLOW_START_MS))
		{
			kafka->answered = false;
			if (kafka->awaits_decision)
				es_broker_error(broker, "topic \"%s\" has a transaction that Kafka has neither committed nor aborted for %d s",
								kafka->topic, SLOW_START_MS / 1000);
			else if (!broker->troubled)
				es_broker_error(broker, kafka->awaits_first ?
								"the relay's first lane has not begun for %d s" :
								"the broker has not answered for %d s", SLOW_START_MS / 1000);
		}
		return ES_PROGRESS_UNKNOWN;
	}
	if (!kafka->found)
		return ES_PROGRESS_NONE;
	*progress = kafka->record.progress;
	return ES_PROGRESS_FOUND;
}

/*
 * txn_send adds an event to the transaction that is filled.
 */
static EsSendResult
txn_send(EsBroker *broker, const EsMessage *message)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;
	EsKafkaTurn *turn;
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t code;

	if (kafka->finished)
		es_kafka_txn_take_result(kafka);
	if (broker->failed)
		return ES_SEND_FAILED;
	turn = &kafka->turns[kafka->filling];
	if (kafka->aborting || broker->rewound || kafka->cut || turn->count >= BATCH_EVENTS)
		return ES_SEND_FULL;
	if (!turn->begun && (waits(kafka) || !es_kafka_txn_begin(kafka, turn)))
		return broker->failed ? ES_SEND_FAILED : ES_SEND_FULL;

	error = es_kafka_produce(turn->producer, &turn->topics, message, broker->window->next);
	if (error == NULL)
	{
		size_t		length = Min(message->event_id_length, ES_PROGRESS_ID);

		turn->last_sequence = es_window_add(broker->window, message->position,
											message->key_length + message->value_length);
		turn->count++;
		kafka->ended = false;
		turn->progress.position = turn->progress.event_position = message->position;
		memcpy(turn->progress.event_id, message->event_id, length);
		turn->progress.event_id[length] = '\0';

		/*
		 * While another transaction is committed, Kafka is told of the
		 * progress topic's partition, too, together with those of the first
		 * events: to tell it at the end would take a request more before this
		 * one can be committed.
		 */
		if (turn->count == 1 && !es_kafka_thread_is_idle(kafka) && !es_kafka_txn_add_progress(kafka, turn))
			return broker->failed ? ES_SEND_FAILED : ES_SEND_FULL;
		return ES_SEND_OK;
	}

	code = rd_kafka_error_code(error);
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
	{
		rd_kafka_error_destroy(error);
		return ES_SEND_FULL;
	}
	if (es_kafka_is_final(code))
	{
		rd_kafka_error_destroy(error);

		/* what goes before it is delivered first */
		if (es_window_pending(broker->window) > 0)
		{
			kafka->cut = turn->count > 0;
			return ES_SEND_FULL;
		}
		es_broker_reject(broker, message->position, "topic \"%s\": %s",
						 message->topic, rd_kafka_err2str(code));
		return ES_SEND_FAILED;
	}
	es_kafka_txn_fail(kafka, turn->producer, error);
	return broker->failed ? ES_SEND_FAILED : ES_SEND_FULL;
}

/*
 * txn_end_batch has the transaction committed as soon as the other one is.
 */
static void
txn_end_batch(EsBroker *broker, int64 position)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;

	kafka->scanned = position;
	kafka->ended = true;
	es_kafka_txn_submit(kafka);
}

/*
 * txn_poll takes in what the thread and librdkafka have to say.
 */
static void
txn_poll(EsBroker *broker)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;

	es_kafka_empty_pipe(kafka->pipe);
	for (int i = 0; i < ES_KAFKA_TURNS; i++)
		es_kafka_listen(kafka, kafka->turns[i].queue);
	es_kafka_listen(kafka, kafka->reader_queue);
	es_kafka_take_notes(kafka);
	es_kafka_txn_take_result(kafka);
	(void) waits(kafka);
}

/*
 * waits tells whether the producer whose turn it is to take events has yet to
 * wait, and sees to it that nothing is read meanwhile: after its last commit, or
 * until the events of a small commit are in Kafka.  What would come in bit by
 * bit until then is better taken at once, as each partition that joins a
 * transaction later is a request of its own, and it could not be sent anyway.
 */
static bool
waits(EsKafkaTxn *kafka)
{
	EsKafkaTurn *turn = &kafka->turns[kafka->filling];
	long		left = 0;

	if (!turn->begun && turn->rests_until != 0)
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), turn->rests_until);
	/* it is over, or the clock was set back */
	if (left > ES_KAFKA_REST_MS)
		left = 0;
	if (left == 0)
		turn->rests_until = 0;
	kafka->base.wake_ms = (int) left;
	kafka->base.busy = left > 0 || (!turn->begun && kafka->sending);
	return kafka->base.busy;
}

/*
 * txn_flush commits what was sent and waits for it.
 */
static void
txn_flush(EsBroker *broker, int timeout_ms)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	while (kafka->started && !broker->failed && !broker->rewound &&
		   es_window_pending(broker->window) > 0)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (left <= 0)
			break;
		es_kafka_txn_submit(kafka);
		if (es_kafka_thread_wait(kafka, (int) left))
			es_kafka_txn_take_result(kafka);
	}
}

/*
 * txn_probe asks for metadata: librdkafka does not tell when a broker can be
 * reached again.
 */
static void
txn_probe(EsBroker *broker, int timeout_ms)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;
	const struct rd_kafka_metadata *metadata;

	if (rd_kafka_metadata(kafka->turns[0].producer, 0, NULL, &metadata,
						  timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_metadata_destroy(metadata);
		broker->troubled = false;
	}
}

/*
 * txn_close ends the thread and the producers.  What is open is aborted, if
 * the broker is there, as it hides from consumers what others send.
 */
static void
txn_close(EsBroker *broker)
{
	EsKafkaTxn *kafka = (EsKafkaTxn *) broker;

	if (kafka->started && !broker->failed && !broker->troubled &&
		has_begun(kafka))
	{
		if (es_kafka_thread_wait(kafka, LEAVE_MS))
			es_kafka_txn_take_result(kafka);
		es_kafka_txn_undo(kafka);
		if (kafka->aborting)
			(void) es_kafka_thread_wait(kafka, LEAVE_MS);
	}
	es_kafka_thread_end(kafka);
	free_clients(kafka);
}

/*
 * has_begun tells whether a transaction is open.
 */
static bool
has_begun(EsKafkaTxn *kafka)
{
	for (int i = 0; i < ES_KAFKA_TURNS; i++)
	{
		if (kafka->turns[i].begun)
			return true;
	}
	return false;
}

/*
 * name_things makes up the names by which Kafka knows the relay.  They hold no
 * timeline: a promoted standby is to fence the old primary.
 */
static void
name_things(EsKafkaTxn *kafka, const EsSender *sender)
{
	snprintf(kafka->key, sizeof(kafka->key), UINT64_FORMAT ".%u." INT64_FORMAT,
			 sender->system_identifier, sender->database, sender->relay);
	if (sender->lane > 0)
	{
		strlcpy(kafka->first_key, kafka->key, sizeof(kafka->first_key));
		snprintf(kafka->first_topic, sizeof(kafka->first_topic), "eventsrc.progress.%s", kafka->first_key);
		snprintf(kafka->key, sizeof(kafka->key), "%s.%d", kafka->first_key, sender->lane);
	}
	snprintf(kafka->topic, sizeof(kafka->topic), "eventsrc.progress.%s", kafka->key);
	kafka->epoch = sender->epoch;
	kafka->start_position = sender->position;
	kafka->timeline = sender->timeline;
	kafka->writer = writer_id();
	kafka->was_fenced = es_kafka_txn_was_fenced();
}

/*
 * writer_id returns a number of this process's own.
 */
static uint64
writer_id(void)
{
	static uint64 id = 0;

	if (id == 0 && !pg_strong_random(&id, sizeof(id)))
		id = (uint64) GetCurrentTimestamp() ^ ((uint64) MyProcPid << 40);
	return id;
}

/*
 * start_clients makes the producers and the reader; false and an error if one
 * cannot be made.
 */
static bool
start_clients(EsKafkaTxn *kafka, List *options, const EsSender *sender,
			  char *error, size_t error_size)
{
	rd_kafka_conf_t *conf;

	for (int i = 0; i < ES_KAFKA_TURNS; i++)
	{
		char		id[ES_KAFKA_NAME];

		conf = es_kafka_configure(producer_properties, lengthof(producer_properties),
								  options, error, error_size);
		if (conf == NULL)
			return false;
		snprintf(id, sizeof(id), "eventsrc.%s.%d", kafka->key, i);
		if (!es_kafka_set(conf, "transactional.id", id, error, error_size))
			return false;
		for (int j = 0; j < lengthof(held_properties); j++)
		{
			if (!es_kafka_set(conf, held_properties[j][0], held_properties[j][1], error, error_size))
				return false;
		}
		kafka->turns[i].producer = start_client(kafka, RD_KAFKA_PRODUCER, conf, &kafka->turns[i].queue,
												error, error_size);
		if (kafka->turns[i].producer == NULL)
			return false;
	}
	conf = es_kafka_configure(reader_properties, lengthof(reader_properties),
							  options, error, error_size);
	if (conf == NULL)
		return false;
	kafka->reader = start_client(kafka, RD_KAFKA_CONSUMER, conf, &kafka->reader_queue, error, error_size);
	return kafka->reader != NULL;
}

/*
 * start_client makes one client that tells us what befalls it.
 */
static rd_kafka_t *
start_client(EsKafkaTxn *kafka, rd_kafka_type_t kind, rd_kafka_conf_t *conf,
			 rd_kafka_queue_t **queue, char *error, size_t error_size)
{
	rd_kafka_t *client;

	rd_kafka_conf_set_opaque(conf, kafka);
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
	rd_kafka_conf_set_log_cb(conf, es_kafka_note_log);
	client = es_kafka_start(kind, conf, error, error_size);
	if (client != NULL)
	{
		es_kafka_wake_by(client, kafka->pipe);
		*queue = rd_kafka_queue_get_main(client);
	}
	return client;
}

/*
 * free_clients ends all clients and frees what was allocated.
 */
static void
free_clients(EsKafkaTxn *kafka)
{
	for (int i = 0; i < ES_KAFKA_TURNS; i++)
	{
		rd_kafka_t *producer = kafka->turns[i].producer;

		if (producer == NULL)
			continue;
		es_kafka_forget_topics(&kafka->turns[i].topics);
		if (kafka->turns[i].record_topic != NULL)
			rd_kafka_topic_destroy(kafka->turns[i].record_topic);
		rd_kafka_queue_destroy(kafka->turns[i].queue);
		(void) rd_kafka_purge(producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		rd_kafka_destroy_flags(producer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	}
	if (kafka->reader != NULL)
	{
		rd_kafka_queue_destroy(kafka->reader_queue);
		rd_kafka_destroy_flags(kafka->reader, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	}
	close(kafka->pipe[0]);
	close(kafka->pipe[1]);
	pthread_cond_destroy(&kafka->asked);
	pthread_cond_destroy(&kafka->done);
	pthread_mutex_destroy(&kafka->lock);
	pfree(kafka);
}
