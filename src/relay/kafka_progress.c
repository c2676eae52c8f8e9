/*
 * kafka_progress.c
 *		A relay's progress, as Kafka keeps it.
 *
 * Each relay has a compacted topic of its own, with one partition.  Every
 * transaction writes the events of a batch and one record here, so that both
 * are there or neither is.  The last record is what counts.  It is found by
 * reading the end of the topic, whatever its length; with a topic for all
 * relays, one relay's open transaction would hide the records of the others.
 *
 * Nothing here touches PostgreSQL: it runs in a thread.
 */
#include "relay/kafka.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* how many offsets before the end are read first; each transaction takes two */
#define TAIL	64

static bool topic_exists(rd_kafka_t * client, const char *topic, bool *exists,
						 char *error, size_t error_size);
static EsKafkaResult create_topic(rd_kafka_t * client, const char *topic, volatile bool *quit,
								  char *error, size_t error_size);
static EsKafkaResult read_from(rd_kafka_topic_t *topic, int64_t offset, const char *key,
							   EsKafkaRecord *record, int64_t *end, volatile bool *quit,
							   char *error, size_t error_size);
static void take_record(rd_kafka_message_t *message, EsKafkaRecord *record);
static bool header_of(rd_kafka_headers_t *headers, const char *name, char *buffer, size_t size);

/*
 * es_kafka_provide_topic creates the topic unless it exists.
 */
EsKafkaResult
es_kafka_provide_topic(rd_kafka_t * client, const char *topic, volatile bool *quit,
					   char *error, size_t error_size)
{
	bool		exists;

	while (!*quit)
	{
		EsKafkaResult result;

		if (!topic_exists(client, topic, &exists, error, error_size))
			continue;			/* the client reports what is wrong */
		if (exists)
			return ES_KAFKA_OK;
		result = create_topic(client, topic, quit, error, error_size);
		if (result != ES_KAFKA_OK)
			return result;
	}
	return ES_KAFKA_QUIT;
}

/*
 * es_kafka_read_record reads the last record of the topic, among those that
 * are committed.  Nothing can be read behind a transaction that is open: if
 * decided is given, it tells whether there was none.
 */
EsKafkaResult
es_kafka_read_record(rd_kafka_t * reader, const char *topic, const char *key,
					 EsKafkaRecord *record, bool *decided, volatile bool *quit,
					 char *error, size_t error_size)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(reader, topic, NULL);
	int64_t		low = 0;
	int64_t		high = 0;
	int64_t		tail = TAIL;
	EsKafkaResult result = ES_KAFKA_NOTHING;

	while (!*quit)
	{
		int64_t		offset;
		int64_t		end = 0;
		int64_t		first;
		int64_t		all;

		if (rd_kafka_query_watermark_offsets(reader, topic, 0, &low, &high,
											 ES_KAFKA_STEP_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		if (high <= low && decided == NULL)
			break;
		offset = high - low <= tail ? low : high - tail;
		result = read_from(handle, offset, key, record, &end, quit, error, error_size);

		/*
		 * high is as far as the reader may go, all as far as there is
		 * anything
		 */
		if (decided != NULL)
			*decided = rd_kafka_get_watermark_offsets(reader, topic, 0, &first, &all) == RD_KAFKA_RESP_ERR_NO_ERROR &&
				end >= all;
		if (result != ES_KAFKA_NOTHING || offset == low)
			break;
		tail *= 16;
	}
	rd_kafka_topic_destroy(handle);
	return *quit ? ES_KAFKA_QUIT : result;
}

/*
 * es_kafka_produce_record adds a record to the producer's transaction.
 */
rd_kafka_error_t *
es_kafka_produce_record(rd_kafka_t * producer, rd_kafka_topic_t *topic, const char *key,
						const EsKafkaRecord *record)
{
	const EsProgress *progress = &record->progress;
	char		value[256];
	char		epoch[32];
	char		timeline[16];
	char		writer[32];
	char		position[32];
	char		event_position[32];
	const char *headers[][2] = {
		{"position", position}, {"epoch", epoch}, {"timeline", timeline}, {"writer", writer},
		{"event-position", event_position}, {"event-id", progress->event_id}
	};
	rd_kafka_vu_t args[5 + lengthof(headers)];
	int			n = 0;

	snprintf(position, sizeof(position), INT64_FORMAT, progress->position);
	snprintf(epoch, sizeof(epoch), INT64_FORMAT, progress->epoch);
	snprintf(timeline, sizeof(timeline), "%u", record->timeline);
	snprintf(writer, sizeof(writer), UINT64_FORMAT, record->writer);
	snprintf(event_position, sizeof(event_position), INT64_FORMAT, progress->event_position);
	snprintf(value, sizeof(value),
			 "{\"position\":%s,\"eventPosition\":%s,\"epoch\":%s,\"timeline\":%s}",
			 position, event_position, epoch, timeline);

	args[n].vtype = RD_KAFKA_VTYPE_RKT;
	args[n++].u.rkt = topic;
	args[n].vtype = RD_KAFKA_VTYPE_PARTITION;
	args[n++].u.i32 = 0;
	args[n].vtype = RD_KAFKA_VTYPE_KEY;
	args[n].u.mem.ptr = unconstify(char *, key);
	args[n++].u.mem.size = strlen(key);
	args[n].vtype = RD_KAFKA_VTYPE_VALUE;
	args[n].u.mem.ptr = value;
	args[n++].u.mem.size = strlen(value);
	args[n].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
	args[n++].u.i = RD_KAFKA_MSG_F_COPY;
	for (int i = 0; i < lengthof(headers); i++)
	{
		args[n].vtype = RD_KAFKA_VTYPE_HEADER;
		args[n].u.header.name = headers[i][0];
		args[n].u.header.val = headers[i][1];
		args[n++].u.header.size = strlen(headers[i][1]);
	}
	return rd_kafka_produceva(producer, args, n);
}

/*
 * topic_exists asks whether there is such a topic; false if there is no answer.
 */
static bool
topic_exists(rd_kafka_t * client, const char *topic, bool *exists, char *error, size_t error_size)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t result;
	bool		answered = false;

	result = rd_kafka_metadata(client, 0, handle, &metadata, ES_KAFKA_STEP_MS);
	if (result == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_resp_err_t found = metadata->topic_cnt == 1 ? metadata->topics[0].err :
			RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;

		*exists = found == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topics[0].partition_cnt > 0;
		answered = *exists || found == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
			found == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
		rd_kafka_metadata_destroy(metadata);
	}
	rd_kafka_topic_destroy(handle);
	return answered;
}

/*
 * create_topic asks for the topic; OK if the request was answered in a way that
 * lets the topic appear.
 */
static EsKafkaResult
create_topic(rd_kafka_t * client, const char *topic, volatile bool *quit,
			 char *error, size_t error_size)
{
	static const char *const settings[][2] = {
		{"cleanup.policy", "compact"},
		/* only closed segments are compacted */
		{"segment.bytes", "16777216"},
	};
	rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(topic, 1, -1, error, error_size);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event = NULL;
	EsKafkaResult result = ES_KAFKA_OK;

	if (wanted == NULL)
	{
		rd_kafka_queue_destroy(queue);
		return ES_KAFKA_FAILED;
	}
	for (int i = 0; i < lengthof(settings); i++)
		rd_kafka_NewTopic_set_config(wanted, settings[i][0], settings[i][1]);
	rd_kafka_CreateTopics(client, &wanted, 1, NULL, queue);
	while (event == NULL && !*quit)
		event = rd_kafka_queue_poll(queue, ES_KAFKA_STEP_MS);

	if (event != NULL && rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		size_t		count;
		const rd_kafka_topic_result_t **answers =
			rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);

		if (count == 1)
		{
			switch (rd_kafka_topic_result_error(answers[0]))
			{
				case RD_KAFKA_RESP_ERR_NO_ERROR:
				case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
				case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
				case RD_KAFKA_RESP_ERR_NOT_CONTROLLER:
					break;
				default:
					snprintf(error, error_size,
							 "topic \"%s\", which keeps the relay's progress, cannot be created: %s "
							 "(it needs one partition and cleanup.policy=compact)",
							 topic, rd_kafka_topic_result_error_string(answers[0]));
					result = ES_KAFKA_FAILED;
			}
		}
	}
	if (event != NULL)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_NewTopic_destroy(wanted);
	return result;
}

/*
 * read_from reads from an offset to the end, which it tells, and keeps the last
 * record.
 */
static EsKafkaResult
read_from(rd_kafka_topic_t *topic, int64_t offset, const char *key, EsKafkaRecord *record,
		  int64_t *end, volatile bool *quit, char *error, size_t error_size)
{
	EsKafkaResult result = ES_KAFKA_NOTHING;
	bool		at_end = false;

	if (rd_kafka_consume_start(topic, 0, offset) != 0)
	{
		snprintf(error, error_size, "the relay's progress cannot be read: %s",
				 rd_kafka_err2str(rd_kafka_last_error()));
		return ES_KAFKA_FAILED;
	}
	while (!at_end && !*quit && result != ES_KAFKA_FAILED)
	{
		rd_kafka_message_t *message = rd_kafka_consume(topic, 0, ES_KAFKA_STEP_MS);

		if (message == NULL)
			continue;
		if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			if (message->key_len == strlen(key) && memcmp(message->key, key, message->key_len) == 0)
			{
				take_record(message, record);
				result = ES_KAFKA_OK;
			}
		}
		else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
		{
			at_end = true;
			*end = message->offset;
		}
		else if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
				 message->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
		{
			snprintf(error, error_size, "the relay's progress cannot be read: %s",
					 rd_kafka_message_errstr(message));
			result = ES_KAFKA_FAILED;
		}
		rd_kafka_message_destroy(message);
	}
	rd_kafka_consume_stop(topic, 0);
	return result;
}

/*
 * take_record takes a record out of a message.
 */
static void
take_record(rd_kafka_message_t *message, EsKafkaRecord *record)
{
	rd_kafka_headers_t *headers;
	char		number[32];

	memset(record, 0, sizeof(EsKafkaRecord));
	if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	if (header_of(headers, "position", number, sizeof(number)))
		record->progress.position = strtoll(number, NULL, 10);
	if (header_of(headers, "epoch", number, sizeof(number)))
		record->progress.epoch = strtoll(number, NULL, 10);
	if (header_of(headers, "event-position", number, sizeof(number)))
		record->progress.event_position = strtoll(number, NULL, 10);
	if (header_of(headers, "timeline", number, sizeof(number)))
		record->timeline = strtoul(number, NULL, 10);
	if (header_of(headers, "writer", number, sizeof(number)))
		record->writer = strtoull(number, NULL, 10);
	(void) header_of(headers, "event-id", record->progress.event_id,
					 sizeof(record->progress.event_id));
}

/*
 * header_of copies a header's value as a string, cut if need be.
 */
static bool
header_of(rd_kafka_headers_t *headers, const char *name, char *buffer, size_t size)
{
	const void *value;
	size_t		length;

	buffer[0] = '\0';
	if (rd_kafka_header_get_last(headers, name, &value, &length) != RD_KAFKA_RESP_ERR_NO_ERROR ||
		value == NULL)
		return false;
	length = Min(length, size - 1);
	memcpy(buffer, value, length);
	buffer[length] = '\0';
	return true;
}
