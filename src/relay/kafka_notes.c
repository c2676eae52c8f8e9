/*
 * kafka_notes.c
 *		Kafka, exactly once: what librdkafka has to say.
 *
 * Failed deliveries and errors wait in a queue of each client until somebody
 * listens, a thread of ours or the relay's; log lines come in librdkafka's own
 * threads.  All is noted in the EsKafkaTxn, for the relay's thread, as nothing
 * else may touch PostgreSQL.
 *
 * A producer that reports by events, not by callbacks, has a flush that ends
 * with the last acknowledgement; one with callbacks looks every 10 ms.
 */
#include "relay/kafka_txn.h"

#include <stdio.h>

static void note_delivery(EsKafkaTxn *kafka, const rd_kafka_message_t *message);
static void note_error(EsKafkaTxn *kafka, rd_kafka_event_t *event);

/*
 * es_kafka_listen takes in what waits in a client's queue.
 */
void
es_kafka_listen(EsKafkaTxn *kafka, rd_kafka_queue_t *queue)
{
	rd_kafka_event_t *event;

	while (rd_kafka_queue_length(queue) > 0 && (event = rd_kafka_queue_poll(queue, 0)) != NULL)
	{
		const rd_kafka_message_t *message;

		if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
			note_error(kafka, event);
		else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
		{
			while ((message = rd_kafka_event_message_next(event)) != NULL)
				note_delivery(kafka, message);
		}
		rd_kafka_event_destroy(event);
	}
}

/*
 * es_kafka_has_failures tells whether a message failed.
 */
bool
es_kafka_has_failures(EsKafkaTxn *kafka)
{
	bool		failed;

	pthread_mutex_lock(&kafka->lock);
	failed = kafka->failures > 0;
	pthread_mutex_unlock(&kafka->lock);
	return failed;
}

/*
 * es_kafka_note_log keeps a log line for the relay's thread; the latest are
 * lost if there are too many.
 */
void
es_kafka_note_log(const rd_kafka_t * client, int level, const char *facility, const char *text)
{
	EsKafkaTxn *kafka = rd_kafka_opaque(client);

	pthread_mutex_lock(&kafka->lock);
	if (kafka->log_lines < ES_KAFKA_LOG_LINES)
	{
		EsKafkaLogLine *line = &kafka->log[kafka->log_lines++];

		line->level = level;
		strlcpy(line->facility, facility, sizeof(line->facility));
		strlcpy(line->text, text, sizeof(line->text));
	}
	pthread_mutex_unlock(&kafka->lock);
}

/*
 * es_kafka_take_notes passes on what librdkafka said.
 */
void
es_kafka_take_notes(EsKafkaTxn *kafka)
{
	EsKafkaLogLine lines[ES_KAFKA_LOG_LINES];
	char		error[ES_BROKER_TEXT];
	bool		has_error;
	int			count;

	pthread_mutex_lock(&kafka->lock);
	count = kafka->log_lines;
	memcpy(lines, kafka->log, sizeof(EsKafkaLogLine) * count);
	kafka->log_lines = 0;
	has_error = kafka->has_error;
	kafka->has_error = false;
	memcpy(error, kafka->error, sizeof(error));
	pthread_mutex_unlock(&kafka->lock);

	if (has_error)
	{
		es_broker_error(&kafka->base, "%s", error);
		kafka->base.troubled = true;
	}
	for (int i = 0; i < count; i++)
		es_kafka_log(lines[i].level, lines[i].facility, lines[i].text);
}

/*
 * note_delivery notes that a message was not delivered (those that
 * were, are not reported).  The first reason says why; what is purged behind it
 * only follows.
 */
static void
note_delivery(EsKafkaTxn *kafka, const rd_kafka_message_t *message)
{
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR ||
		message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
		message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT ||
		message->err == RD_KAFKA_RESP_ERR__FATAL)
		return;
	pthread_mutex_lock(&kafka->lock);
	if (kafka->failures == 0)
	{
		kafka->failure = message->err;
		strlcpy(kafka->failed_topic, rd_kafka_topic_name(message->rkt), sizeof(kafka->failed_topic));
	}
	if (message->err == kafka->failure)
		kafka->failed_sequence = Max(kafka->failed_sequence,
									 (uint64) (uintptr_t) message->_private);
	kafka->failures++;
	pthread_mutex_unlock(&kafka->lock);
}

/*
 * note_error notes an error of a whole client.
 */
static void
note_error(EsKafkaTxn *kafka, rd_kafka_event_t *event)
{
	/* what is fatal shows in what is done next */
	if (rd_kafka_event_error_is_fatal(event))
		return;
	pthread_mutex_lock(&kafka->lock);
	/* "all brokers are down" tells less than what came before it */
	if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || kafka->error[0] == '\0')
		strlcpy(kafka->error, rd_kafka_event_error_string(event), sizeof(kafka->error));
	kafka->has_error = true;
	pthread_mutex_unlock(&kafka->lock);
}
